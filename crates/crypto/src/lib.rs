//! Noise handshakes, sealed records, signatures and sealed references.
//!
//! Bytes in, values out: nothing here does network I/O or reads a clock. Only [`keyring`] touches
//! files.

pub mod certificate;
pub mod keyring;
pub mod noise;
pub mod sealed_box;
pub mod sealed_ref;
pub mod secret;
pub mod server_keys;
pub mod signing;
pub mod tunnel;

pub use self::noise::{Established, HandshakeError, StaticKey};
pub use self::secret::Secret;
pub use self::signing::{Purpose, SigningKey};
pub use self::tunnel::{Opener, Sealer};
