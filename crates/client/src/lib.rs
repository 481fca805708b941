//! CommuCat client SDK and the commucat command.

pub mod vault;
