//! CommuCat client SDK and the commucat command.
