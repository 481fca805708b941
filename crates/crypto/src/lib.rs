//! Noise handshakes, sealed records, signatures and sealed references.
