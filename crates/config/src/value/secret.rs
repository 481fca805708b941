//! A setting that must not be shown.

use std::fmt;

use super::{Raw, Value, scalar};

const NEEDS: &str = "16 to 256 printable ASCII characters without spaces";

/// A secret that an operator chose; `Debug` hides it.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Box<str>);

impl Secret {
    /// The secret itself. Compare it in constant time; never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Value for Secret {
    const KIND: &'static str = "secret";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = scalar(raw, NEEDS)?;
        let good = (16..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NEEDS.to_owned())
        }
    }
}
