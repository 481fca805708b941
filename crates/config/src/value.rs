//! The types of the settings, and how each is read from text.

mod choice;
mod duration;
mod network;
mod peer;
mod plain;
mod secret;
mod size;
mod store_url;

pub use choice::{FederationPolicy, LedgerSink, LogFormat, Registration};
pub use network::Network;
pub use peer::NamedPeer;
pub use secret::Secret;
pub use size::Size;
pub use store_url::StoreUrl;

/// What a source holds for one key, before its type is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Raw {
    /// One scalar, or a list with commas (environment, flags, defaults).
    Text(String),
    /// A list of scalars (the file).
    List(Vec<String>),
}

/// A type that a setting may have.
pub(crate) trait Value: Sized {
    /// Its name in the table of keys.
    const KIND: &'static str;

    /// Reads it.
    ///
    /// # Errors
    ///
    /// What a good value looks like, to stand behind "needs".
    fn read(raw: &Raw) -> Result<Self, String>;

    /// A default of this type as TOML.
    fn text_to_toml(text: &str) -> String {
        quoted(text)
    }
}

pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The text of a scalar; a list is refused.
fn scalar<'a>(raw: &'a Raw, needs: &str) -> Result<&'a str, String> {
    match raw {
        Raw::Text(text) => Ok(text.trim()),
        Raw::List(_) => Err(needs.to_owned()),
    }
}
