//! Administration of a CommuCat server from the command line.
//!
//! Each command asks the running server over its socket, or opens the store itself when none runs
//! (`door`). What is printed is built in `output`; what goes wrong is told by `report`.

mod archive;
pub mod args;
mod clock;
mod commands;
mod door;
mod output;
mod qr;
pub mod report;
pub mod run;
mod site;
mod time;
