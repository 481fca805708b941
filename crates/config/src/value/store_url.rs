//! Where the durable state is.

use std::fmt;
use std::path::Path;

use super::{Raw, Value, scalar};

const NEEDS: &str = "`sqlite:DIRECTORY` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";

/// A URL of a store. It may hold a password; `Debug` hides it.
#[derive(Clone, Eq, PartialEq)]
pub struct StoreUrl(Box<str>);

impl StoreUrl {
    /// That of the embedded store in `directory`.
    pub(crate) fn embedded(directory: &Path) -> Self {
        Self(format!("sqlite:{}", directory.display()).into())
    }

    /// The URL itself. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The directory of an embedded store.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        let path = self.0.strip_prefix("sqlite:")?;
        Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl(..)")
    }
}

impl Value for StoreUrl {
    // The word `secret` keeps it from being shown.
    const KIND: &'static str = "secret URL";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = scalar(raw, NEEDS)?;
        let schemes = ["sqlite:", "postgres://", "postgresql://"];
        let path = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        if path.is_some_and(|path| !path.is_empty()) {
            Ok(Self(text.into()))
        } else {
            Err(NEEDS.to_owned())
        }
    }
}
