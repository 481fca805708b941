//! The embedded backend.

use std::path::PathBuf;

use crate::store::{Counters, Options};
use crate::{OpenError, StoreError};

#[derive(Clone)]
pub(crate) struct Sqlite;

impl Sqlite {
    pub(crate) async fn open(_directory: PathBuf, _options: Options) -> Result<Self, OpenError> {
        Err(OpenError::UnknownSchema)
    }
    pub(crate) async fn pending<T>(&self) -> Result<T, StoreError> { Err(StoreError::Closed) }
    pub(crate) async fn close(&self) {}
    pub(crate) fn counters(&self) -> Counters { Counters::default() }
    pub(crate) fn schema_version(&self) -> u32 { 0 }
}
