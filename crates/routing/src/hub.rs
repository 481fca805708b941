//! The hub's rules for groups (CCP-1 section 5).
