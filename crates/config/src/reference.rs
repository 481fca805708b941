//! The table of keys, and the example files made from it.

use std::fmt::Write as _;

use crate::blocks::{Admin, Crypto, Federation, Ledger, Limits, Server, Storage};

/// One row of the table of keys.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its block.
    pub block: &'static str,
    /// Its name in the block.
    pub name: &'static str,
    /// Its type, in words.
    pub kind: &'static str,
    /// Its default as text, as an environment variable would hold it.
    pub default: &'static str,
    /// Turns the default into TOML.
    pub(crate) default_toml: fn(&str) -> String,
    /// The lowest and the highest value.
    pub range: Option<(&'static str, &'static str)>,
    /// What it means, line by line.
    pub meaning: &'static [&'static str],
}

impl Setting {
    /// `block.name`
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.block, self.name)
    }

    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("COMMUCAT_{}_{}", self.block, self.name).to_ascii_uppercase()
    }

    /// The default as TOML.
    #[must_use]
    pub fn toml(&self) -> String {
        (self.default_toml)(self.default)
    }

    /// The meaning in one line.
    fn meaning(&self) -> String {
        let lines: Vec<_> = self.meaning.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }

    /// The meaning in one line, with the range.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut sentence = self.meaning();
        if let Some((low, high)) = self.range {
            let _infallible = write!(sentence, " From {low} to {high}.");
        }
        sentence
    }
}

/// Every setting, in the order of the example file.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    [
        Server::SETTINGS,
        Storage::SETTINGS,
        Crypto::SETTINGS,
        Federation::SETTINGS,
        Ledger::SETTINGS,
        Limits::SETTINGS,
        Admin::SETTINGS,
    ]
    .into_iter()
    .flatten()
}

/// The commented file `commucat.toml`, in which every key has its default.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Configuration of a CommuCat server. Every line below shows a default; nothing here is\n\
         # needed to start. Remove the `#` in front of a key to change it.\n\
         # Environment variables COMMUCAT_<BLOCK>_<KEY> go over this file, flags over both.\n\
         # Durations: ms, s, m, h, d. Sizes: B, KiB, MiB, GiB.\n",
    );
    let mut block = "";
    for setting in settings() {
        if setting.block != block {
            block = setting.block;
            let _infallible = write!(text, "\n[{block}]\n");
        }
        for line in comment(setting) {
            let _infallible = writeln!(text, "# {line}");
        }
        let _infallible = writeln!(text, "#{} = {}", setting.name, setting.toml());
    }
    text
}

/// The commented file `.env.sample`.
#[must_use]
pub fn environment_sample() -> String {
    let mut text = String::from(
        "# Environment variables of a CommuCat server, each with its default. They go over\n\
         # commucat.toml; lists are separated by commas.\n",
    );
    let mut block = "";
    for setting in settings() {
        if setting.block != block {
            block = setting.block;
            text.push('\n');
        }
        for line in comment(setting) {
            let _infallible = writeln!(text, "# {line}");
        }
        let _infallible = writeln!(text, "#{}={}", setting.variable(), setting.default);
    }
    text
}

/// The page `docs/CONFIGURATION.md`: every setting with type, default, variable and meaning.
#[must_use]
pub fn page() -> String {
    let mut text = String::from(
        "# Configuration reference\n\n\
         Made from the code by `cargo run -p commucat-config --example reference -- write`; a test compares \
         it. How the settings\nwork together is told in [SERVER_GUIDE.md](SERVER_GUIDE.md).\n\n\
         Sources, each over the one before: the defaults, `commucat.toml`, environment variables, flags \
         (`--set block.key=value`).\nDurations have a unit: ms, s, m, h, d. Sizes too: B, KiB, MiB, GiB. \
         Lists are TOML arrays, in variables separated by commas.\nAn unknown key or variable of a \
         block is an error that names the nearest one.\n",
    );
    let mut block = "";
    for setting in settings() {
        if setting.block != block {
            block = setting.block;
            let _infallible = write!(
                text,
                "\n## [{block}]\n\n| key | type | default | environment variable | meaning |\n\
                 |---|---|---|---|---|\n"
            );
        }
        let _infallible = writeln!(
            text,
            "| `{}` | {} | {} | `{}` | {} |",
            setting.key(),
            cell(&kind(setting)),
            if setting.default.is_empty() {
                "empty".to_owned()
            } else {
                format!("`{}`", setting.default)
            },
            setting.variable(),
            cell(&setting.meaning()),
        );
    }
    text
}

/// The type in words, with its range.
fn kind(setting: &Setting) -> String {
    match setting.range {
        Some((low, high)) => format!("{}, {low} to {high}", setting.kind),
        None if setting.kind.contains(", ") => format!("one of: {}", setting.kind),
        None => setting.kind.to_owned(),
    }
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn comment(setting: &Setting) -> Vec<String> {
    let mut lines: Vec<String> = setting
        .meaning
        .iter()
        .map(|line| line.trim().to_owned())
        .collect();
    if setting.range.is_some() || setting.kind.contains(", ") {
        lines.push(format!("({})", kind(setting)));
    }
    lines
}

/// The known name that `wrong` was probably meant to be.
pub(crate) fn nearest(wrong: &str, known: impl Iterator<Item = String>) -> Option<String> {
    // Below this the two words have nothing to do with each other.
    const ALIKE: f64 = 0.6;
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(wrong, &name), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}
