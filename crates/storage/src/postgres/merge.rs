//! Calls that wait while a transaction runs become the next one, all together.

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::StoreError;

/// Calls that wait before callers wait.
const CALLS_MAX: usize = 1_024;
/// Rows in one transaction, beyond its first call.
const ROWS_MAX: usize = 4_096;

/// Work that many callers' calls can be done in at once.
pub(super) trait Merge: Send + Sync + 'static {
    type Call: Send + Sync + 'static;
    type Answer: Send + 'static;

    /// How many rows a call is about.
    fn rows(call: &Self::Call) -> usize;

    /// Does all of them in one transaction, or none; an answer each, in order.
    fn run(
        &self,
        calls: &[Self::Call],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// The way to the task that merges.
pub(super) struct Merger<M: Merge> {
    calls: Mutex<Option<mpsc::Sender<Waiting<M>>>>,
    tasks: TaskTracker,
}

struct Waiting<M: Merge> {
    call: M::Call,
    reply: oneshot::Sender<Result<M::Answer, StoreError>>,
}

impl<M: Merge> Merger<M> {
    pub(super) fn start(work: M, on: &Handle) -> Self {
        let (calls, waiting) = mpsc::channel(CALLS_MAX);
        let tasks = TaskTracker::new();
        tasks.spawn_on(merge(work, waiting), on);
        tasks.close();
        Self {
            calls: Mutex::new(Some(calls)),
            tasks,
        }
    }

    /// Has a call done; answers after the commit.
    pub(super) async fn call(&self, call: M::Call) -> Result<M::Answer, StoreError> {
        let calls = self.calls.lock().clone().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        if calls.send(Waiting { call, reply }).await.is_err() {
            return Err(StoreError::Closed);
        }
        drop(calls);
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Waits until everything sent before is done.
    pub(super) async fn close(&self) {
        drop(self.calls.lock().take());
        self.tasks.wait().await;
    }
}

async fn merge<M: Merge>(work: M, mut waiting: mpsc::Receiver<Waiting<M>>) {
    while let Some(first) = waiting.recv().await {
        let mut rows = M::rows(&first.call);
        let (mut calls, mut replies) = (vec![first.call], vec![first.reply]);
        while rows < ROWS_MAX
            && let Ok(next) = waiting.try_recv()
        {
            rows += M::rows(&next.call);
            calls.push(next.call);
            replies.push(next.reply);
        }
        for (reply, answer) in replies.into_iter().zip(answers(&work, &calls).await) {
            // The caller may have gone; what was done is done.
            drop(reply.send(answer));
        }
    }
}

async fn answers<M: Merge>(work: &M, calls: &[M::Call]) -> Vec<Result<M::Answer, StoreError>> {
    match work.run(calls).await {
        Ok(done) => done.into_iter().map(Ok).collect(),
        // One call must not fail those of others: each by itself.
        Err(StoreError::Refused(_) | StoreError::Corrupt { .. }) if calls.len() > 1 => {
            let mut answers = Vec::with_capacity(calls.len());
            for call in calls {
                let done = work.run(std::slice::from_ref(call)).await;
                answers.push(done.and_then(|mut done| done.pop().ok_or(StoreError::Closed)));
            }
            answers
        }
        Err(failed) => calls.iter().map(|_| Err(failed.clone())).collect(),
    }
}
