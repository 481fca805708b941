//! What the reader sees: steps, plain words, and time to read them.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::args::Args;

/// A step is read in about this time.
const PAUSE: Duration = Duration::from_secs(2);

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";
const CYAN: &str = "36";

/// The terminal, or whatever stdout is.
#[derive(Debug)]
pub(crate) struct Screen {
    is_silent: bool,
    has_colours: bool,
    has_pauses: bool,
    rows_max: usize,
    step: u32,
}

/// Rows of a table that are shown without `--rows`.
const ROWS_MAX: usize = 3;

impl Screen {
    pub(crate) fn new(args: &Args) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            is_silent: args.json,
            has_colours: is_terminal && !is_plain,
            has_pauses: is_terminal && !args.fast && !args.json,
            rows_max: if args.rows { usize::MAX } else { ROWS_MAX },
            step: 0,
        }
    }

    /// Rows of a table to show.
    pub(crate) const fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Begins a step of the story, after a moment to read the last one.
    pub(crate) async fn step(&mut self, title: &str) {
        if self.step > 0 {
            self.pause().await;
        }
        self.step += 1;
        let title = format!("{}. {title}", self.step);
        self.line("");
        self.line(&self.paint(&[BOLD, CYAN], &title));
    }

    /// Plain words.
    pub(crate) fn say(&self, text: &str) {
        self.line(&format!("   {text}"));
    }

    /// A result that was hoped for, or not.
    pub(crate) fn result(&self, is_good: bool, text: &str) {
        let mark = if is_good {
            self.paint(&[BOLD, GREEN], "ok")
        } else {
            self.paint(&[BOLD, RED], "NO")
        };
        let text = self.paint(&[BOLD], text);
        self.line(&format!("   {mark} {text}"));
    }

    /// Something to look at more closely.
    pub(crate) fn detail(&self, text: &str) {
        self.line(&self.paint(&[DIM], &format!("      {text}")));
    }

    /// A command to type.
    pub(crate) fn command(&self, text: &str) {
        self.line(&format!("     {}", self.paint(&[CYAN], text)));
    }

    /// A moment to read; not how anything here is synchronised.
    pub(crate) async fn pause(&self) {
        if self.has_pauses {
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn line(&self, text: &str) {
        if !self.is_silent {
            // A closed pipe is no reason to fail: the exit code still tells the result.
            writeln!(io::stdout(), "{text}").ok();
        }
    }

    fn paint(&self, codes: &[&str], text: &str) -> String {
        if self.has_colours {
            format!("\u{1b}[{}m{text}\u{1b}[0m", codes.join(";"))
        } else {
            text.to_owned()
        }
    }
}
