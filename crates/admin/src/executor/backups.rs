//! Copies of an embedded store. A large one takes longer than an answer may, so that it is begun,
//! asked after, and forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commucat_proto::time::Timestamp;
use commucat_storage::{BackupError, CopyProgress, Store, StoreCopy};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::{ExecuteError, Executor, Live};
use crate::request::BackupStep;
use crate::response::{Answer, BackupMade, BackupState, millis};

/// The copy that was asked for last.
#[derive(Default)]
pub(super) struct Backups {
    last: Mutex<Option<Begun>>,
    /// A copy ends by itself, at the latest when the store is closed.
    tasks: TaskTracker,
}

struct Begun {
    taken: Timestamp,
    progress: Arc<Progress>,
    task: JoinHandle<Result<StoreCopy, BackupError>>,
}

#[derive(Default)]
struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Begun {
    fn start(store: Store, now: Timestamp, tasks: &TaskTracker) -> Self {
        let progress = Arc::new(Progress::default());
        let seen = Arc::clone(&progress);
        let on_step = move |step: CopyProgress| {
            seen.done.store(step.done, Ordering::Relaxed);
            seen.total.store(step.total, Ordering::Relaxed);
        };
        let task = tasks.spawn(async move { store.copy(on_step).await });
        Self {
            taken: now,
            progress,
            task,
        }
    }

    fn state(&self, made: Option<BackupMade>) -> BackupState {
        BackupState {
            taken_ms: millis(self.taken),
            pages: self.progress.done.load(Ordering::Relaxed),
            pages_total: self.progress.total.load(Ordering::Relaxed),
            made,
        }
    }
}

impl<L: Live> Executor<L> {
    pub(super) async fn backup(
        &self,
        step: BackupStep,
        now: Timestamp,
    ) -> Result<Answer, ExecuteError> {
        match step {
            BackupStep::Start => self.start_backup(now).map(Answer::Backup),
            BackupStep::State => self.backup_state().await.map(Answer::Backup),
            BackupStep::End => self.end_backup().await.map(|()| Answer::Healthy),
        }
    }

    fn start_backup(&self, now: Timestamp) -> Result<BackupState, ExecuteError> {
        let mut begun = self.backups.last.lock();
        if begun.as_ref().is_some_and(|one| !one.task.is_finished()) {
            return Err(ExecuteError::BackupRuns);
        }
        let started = Begun::start(self.site.store.clone(), now, &self.backups.tasks);
        Ok(begun.insert(started).state(None))
    }

    /// How far it is. Told once that it has ended.
    async fn backup_state(&self) -> Result<BackupState, ExecuteError> {
        let ended = {
            let mut begun = self.backups.last.lock();
            match begun.as_ref() {
                None => return Err(ExecuteError::NoBackup),
                Some(one) if !one.task.is_finished() => return Ok(one.state(None)),
                Some(_) => begun.take(),
            }
        };
        let mut ended = ended.ok_or(ExecuteError::NoBackup)?;
        let copy = (&mut ended.task).await.map_err(|_| ExecuteError::Stopped)?;
        let copy = copy.map_err(ExecuteError::Backup)?;
        Ok(ended.state(Some(BackupMade {
            file: copy.path,
            bytes: copy.bytes,
            schema_version: copy.schema_version,
        })))
    }

    async fn end_backup(&self) -> Result<(), ExecuteError> {
        let runs = self.backups.last.lock().is_some();
        if runs {
            return Err(ExecuteError::BackupRuns);
        }
        self.site.store.forget_copy().await;
        Ok(())
    }
}
