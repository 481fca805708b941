//! An error with its causes in one line, for logs. Uses `Display` only: `Debug` may show values.

use std::error::Error;
use std::fmt;

/// Shows `error` and each of its sources, separated by colons.
pub(crate) struct Chain<'a>(&'a dyn Error);

/// See [`Chain`].
pub(crate) fn chain(error: &dyn Error) -> Chain<'_> {
    Chain(error)
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
