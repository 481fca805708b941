//! The pool of connections for reads.

use std::path::PathBuf;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::open;
use crate::{OpenError, StoreError};

pub(super) struct Readers {
    path: PathBuf,
    permits: std::sync::Arc<Semaphore>,
    size: u32,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn open(path: PathBuf, size: usize) -> Result<Self, OpenError> {
        let size = u32::try_from(size.clamp(1, 64)).unwrap_or(1);
        // One now, to find out whether it works; the others when they are needed.
        let first = open::reader_connection(&path)?;
        let permits = std::sync::Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(1)));
        Ok(Self {
            path,
            permits,
            size,
            idle: Mutex::new(vec![first]),
        })
    }

    /// Waits for a free connection.
    pub(super) async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, StoreError> {
        let permits = std::sync::Arc::clone(&self.permits);
        permits
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)
    }

    /// Runs `work` in one read transaction. Blocks; the caller holds a permit.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open::reader_connection(&self.path).map_err(OpenError::into_unavailable)?,
        };
        let snapshot = connection.unchecked_transaction()?;
        let done = work(&connection);
        snapshot.finish()?;
        self.idle.lock().push(connection);
        done
    }

    /// Waits until no read runs and closes all connections.
    pub(super) async fn close(&self) {
        let all: Result<SemaphorePermit<'_>, _> = self.permits.acquire_many(self.size).await;
        self.permits.close();
        self.idle.lock().clear();
        drop(all);
    }
}
