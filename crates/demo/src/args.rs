//! The command line.

use clap::Parser;

const AFTER_HELP: &str = "\
Nothing has to be installed or configured, and nothing is left behind: the server and the three
devices live in a temporary directory, on a free port of 127.0.0.1.

Exit codes: 0 everything as promised, 1 not so, 2 wrong usage, 130 stopped.";

/// Two people chat through a server of their own, which is killed in the middle; then look at what
/// the server knows
#[derive(Debug, Parser)]
#[command(name = "commucat-demo", version, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Leave out the pauses for reading
    #[arg(long)]
    pub(crate) fast: bool,

    /// Print one JSON object with the figures instead of the story
    #[arg(long)]
    pub(crate) json: bool,

    /// Show every stored row, not three of a kind
    #[arg(long)]
    pub(crate) rows: bool,
}
