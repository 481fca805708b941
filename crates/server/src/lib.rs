//! The CommuCat server.
