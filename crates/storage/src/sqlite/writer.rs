//! The thread that alone writes. Everything that waits becomes one transaction with one commit. If a
//! request fails, all are undone and run again, each in a transaction of its own.
//!
//! Savepoints would spare the second run, but they are two statements more per request and SQLite
//! copies each page before its first change under one: for a case that is rare.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection};
use tokio::sync::{mpsc, oneshot};

use super::bodies::Bodies;
use super::open;
use super::shown::ShownGaps;
use crate::store::QueueLimits;
use crate::store::outbox::OutboxLimits;
use crate::tally::Tally;
use crate::{OpenError, StoreError};

/// Requests that wait before senders wait.
const REQUESTS_MAX: usize = 4_096;
/// Requests in one transaction.
const BATCH_MAX: usize = 1_024;

/// What the writer needs besides its connection.
pub(super) struct Setting {
    pub(super) path: PathBuf,
    /// Held until the last commit is done.
    pub(super) lock: File,
    pub(super) limits: QueueLimits,
    pub(super) outbox: OutboxLimits,
    pub(super) tally: Arc<Tally>,
    pub(super) shown: Arc<ShownGaps>,
}

/// The way to the thread.
pub(super) struct Writer(mpsc::Sender<Message>);

enum Message {
    Run(Box<dyn Request>),
    Close(oneshot::Sender<()>),
}

/// A request runs, perhaps again after a rollback, is told how the commit went, and answers.
trait Request: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Typed<T, F> {
    work: F,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Request for Typed<T, F>
where
    T: Send,
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let done = (self.work)(tx);
        let verdict = done.as_ref().map(drop).map_err(Clone::clone);
        self.done = Some(done);
        verdict
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (self.done, committed) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(failed)) => Err(failed),
            (Some(done), Ok(())) => done,
            (None, Ok(())) => Err(StoreError::Closed),
        };
        // The caller may have gone; what was done is done.
        drop(self.reply.send(answer));
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, setting: Setting) -> Result<Self, OpenError> {
        let (requests, incoming) = mpsc::channel(REQUESTS_MAX);
        let thread = Thread {
            connection: Some(connection),
            bodies: Bodies::default(),
            forgotten_gaps: Vec::new(),
            setting,
        };
        std::thread::Builder::new()
            .name("commucat-store".to_owned())
            .spawn(move || thread.run(incoming))
            .map_err(OpenError::Directory)?;
        Ok(Self(requests))
    }

    /// See [`super::Sqlite::write`].
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = Typed {
            work,
            done: None,
            reply,
        };
        let sent = self.0.send(Message::Run(Box::new(request))).await;
        if sent.is_err() {
            return Err(StoreError::Closed);
        }
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Waits until everything sent before is done and the database is closed.
    pub(super) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.0.send(Message::Close(reply)).await.is_ok() {
            // An error means that the thread has ended: closed too.
            drop(closed.await);
        } else {
            self.0.closed().await;
        }
    }
}

/// A request's view of the transaction.
pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) bodies: &'a mut Bodies,
    pub(super) limits: QueueLimits,
    pub(super) outbox: OutboxLimits,
    pub(super) shown: &'a ShownGaps,
    /// Gap entries that will be gone once this is committed.
    pub(super) forgotten_gaps: &'a mut Vec<(commucat_proto::id::QueueId, i64)>,
}

impl<'a> Tx<'a> {
    /// A statement from the cache.
    pub(super) fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'a>> {
        self.connection.prepare_cached(sql)
    }

    /// Runs a cached statement; returns how many rows it changed.
    pub(super) fn execute(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
    ) -> rusqlite::Result<usize> {
        self.prepare(sql)?.execute(parameters)
    }

    /// The single row of a cached query.
    pub(super) fn row<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        use rusqlite::OptionalExtension as _;
        self.prepare(sql)?.query_row(parameters, read).optional()
    }
}

struct Thread {
    connection: Option<Connection>,
    bodies: Bodies,
    forgotten_gaps: Vec<(commucat_proto::id::QueueId, i64)>,
    setting: Setting,
}

impl Thread {
    fn run(mut self, mut incoming: mpsc::Receiver<Message>) {
        let mut closing = None;
        while let Some(first) = incoming.blocking_recv() {
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Run(request) => batch.push(request),
                    Message::Close(reply) => closing = Some(reply),
                }
                if closing.is_none() && batch.len() < BATCH_MAX {
                    next = incoming.try_recv().ok();
                }
            }
            self.handle(batch);
            if closing.is_some() {
                break;
            }
        }
        // Closed before the lock goes: the last commit is on disk when another process gets in.
        drop(self.connection.take());
        drop(self.setting.lock);
        if let Some(reply) = closing {
            // Nobody may wait for it any more.
            reply.send(()).ok();
        }
    }

    fn handle(&mut self, mut batch: Vec<Box<dyn Request>>) {
        if batch.is_empty() {
            return;
        }
        let outcome = self.transact(&mut batch);
        if let Ok(Outcome::Committed) = outcome {
            self.setting.shown.forget(self.forgotten_gaps.drain(..));
        } else {
            self.forgotten_gaps.clear();
            self.bodies.forget_all();
        }
        let committed = match outcome {
            Ok(Outcome::Undone) if batch.len() > 1 => {
                batch
                    .into_iter()
                    .for_each(|request| self.handle(vec![request]));
                return;
            }
            // A request that is alone answers with its own error.
            Ok(Outcome::Committed | Outcome::Undone) => Ok(()),
            Err(failed) => {
                // The outcome is unknown, and this connection's idea of the file with it.
                self.connection = None;
                self.setting.tally.count_failure(&failed);
                Err(failed)
            }
        };
        for request in batch {
            self.setting.tally.count_write_request();
            request.answer(committed.clone());
        }
    }

    fn transact(&mut self, batch: &mut [Box<dyn Request>]) -> Result<Outcome, StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            gone => gone.insert(open::reopened_writer(&self.setting.path)?),
        };
        let before = connection.total_changes();
        run_cached(connection, "BEGIN IMMEDIATE")?;
        let mut tx = Tx {
            connection,
            bodies: &mut self.bodies,
            limits: self.setting.limits,
            outbox: self.setting.outbox,
            shown: &self.setting.shown,
            forgotten_gaps: &mut self.forgotten_gaps,
        };
        let done = batch
            .iter_mut()
            .try_for_each(|request| request.run(&mut tx));
        if let Err(failed) = done {
            // A full disk or an I/O error has rolled back already.
            if connection.is_autocommit() || matches!(failed, StoreError::Unavailable(_)) {
                return Err(failed);
            }
            run_cached(connection, "ROLLBACK")?;
            return Ok(Outcome::Undone);
        }
        run_cached(connection, "COMMIT")?;
        let rows = connection.total_changes() - before;
        if rows > 0 {
            self.setting.tally.count_commit(rows);
        }
        Ok(Outcome::Committed)
    }
}

/// How a transaction ended while the store is up.
enum Outcome {
    Committed,
    /// A request failed, and all are undone.
    Undone,
}

fn run_cached(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
