//! Small values of the server itself, such as serial numbers.

use bytes::Bytes;

use super::{Store, on_backend};
use crate::StoreError;

/// The name of a value. Names are constants of the program, never outside data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MetaKey(&'static str);

impl MetaKey {
    /// Names a value.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub(crate) const fn as_str(self) -> &'static str {
        self.0
    }
}

impl Store {
    /// The value stored under `key`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> {
        on_backend!(self, backend => backend.meta(key).await)
    }

    /// Stores `value` under `key`, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the value is the earlier one, or see [`StoreError::Unavailable`].
    pub async fn set_meta(&self, key: MetaKey, value: Bytes) -> Result<(), StoreError> {
        on_backend!(self, backend => backend.set_meta(key, value).await)
    }
}
