//! A data directory and the program run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory that is gone at the end of a test.
pub(crate) struct World {
    place: tempfile::TempDir,
}

/// How a run went.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            place: tempfile::tempdir().unwrap(),
        }
    }

    /// A world in which `init` was run.
    pub(crate) fn made() -> Self {
        let world = Self::new();
        let run = world.run(&["init"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The program with these arguments, in the world's directory and without the tester's own
    /// variables.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_commucat-cli"));
        command
            .current_dir(self.path())
            .env_clear()
            .stdin(Stdio::null());
        command.args(["--data", "data"]).args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(&self.command(args).output().unwrap())
    }

    /// The output of a run that must succeed.
    pub(crate) fn stdout(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.stderr, "", "{args:?}");
        run.stdout
    }

    /// The same as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.stdout(&args)).unwrap()
    }

    /// The form in which outputs are compared: what differs from run to run is replaced, by texts
    /// of the same width where a table may hold it.
    pub(crate) fn steady(&self, text: &str) -> String {
        let text = text.replace(&self.path().display().to_string(), "[world]");
        let is_part = |sign: char| sign.is_ascii_alphanumeric() || "-: ".contains(sign);
        let mut steady = String::new();
        for piece in text.split_inclusive(|sign| !is_part(sign)) {
            steady.push_str(&steady_times(piece));
        }
        let mut words = String::new();
        for piece in steady.split_inclusive(|sign: char| !sign.is_ascii_alphanumeric()) {
            let word = piece.trim_end_matches(|sign: char| !sign.is_ascii_alphanumeric());
            words.push_str(steady_word(word));
            words.push_str(&piece[word.len()..]);
        }
        words
    }
}

/// Replaces each time of day with its form.
fn steady_times(text: &str) -> String {
    const FORM: &str = "yyyy-mm-dd hh:mm UTC";
    let mut parts = text.split(" UTC").peekable();
    let mut steady = String::new();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            steady.push_str(part);
        } else {
            steady.push_str(&part[..part.len() + " UTC".len() - FORM.len()]);
            steady.push_str(FORM);
        }
    }
    steady
}

fn steady_word(word: &str) -> &str {
    let all = |is_good: fn(&u8) -> bool| word.as_bytes().iter().all(is_good);
    match word.len() {
        13 if all(u8::is_ascii_digit) => "[ms]",
        16 if all(u8::is_ascii_hexdigit) => "0123456789abcdef",
        26 if all(u8::is_ascii_alphanumeric) => "[token]",
        52 if all(u8::is_ascii_alphanumeric) => "[key]",
        _ => word,
    }
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }
}
