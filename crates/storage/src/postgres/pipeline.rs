//! Statements that are all sent before the first is answered: one round trip.

use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{MaybeDone, maybe_done, poll_fn};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::fault::Fault;
use super::tx::Tx;

/// Values of one statement.
pub(super) type Parameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

type Step<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>, Fault>> + Send + 'a>>;

/// Statements in the order in which they are sent. If one fails, PostgreSQL refuses those after it,
/// and a COMMIT among them rolls back.
pub(super) struct Pipeline<'a> {
    tx: &'a Tx,
    steps: Vec<MaybeDone<Step<'a>>>,
}

impl<'a> Pipeline<'a> {
    pub(super) const fn new(tx: &'a Tx) -> Self {
        Self {
            tx,
            steps: Vec::new(),
        }
    }

    fn push(&mut self, step: impl Future<Output = Result<Vec<Row>, Fault>> + Send + 'a) {
        self.steps.push(maybe_done(Box::pin(step)));
    }

    /// BEGIN, COMMIT.
    pub(super) fn plain(&mut self, statement: &'static str) {
        let tx = self.tx;
        self.push(async move {
            tx.client()?.batch_execute(statement).await?;
            Ok(Vec::new())
        });
    }

    /// A statement that returns rows.
    pub(super) fn query(&mut self, statement: Statement, parameters: Parameters<'a>) {
        let tx = self.tx;
        self.push(async move { Ok(tx.client()?.query(&statement, &parameters).await?) });
    }

    /// One that changes them and returns none.
    pub(super) fn execute(&mut self, statement: Statement, parameters: Parameters<'a>) {
        let tx = self.tx;
        self.push(async move {
            tx.count(tx.client()?.execute(&statement, &parameters).await?);
            Ok(Vec::new())
        });
    }

    /// Sends all and waits for all; the rows of each, in order.
    pub(super) async fn run(mut self) -> Result<Vec<Vec<Row>>, Fault> {
        // A statement is sent when its future is polled for the first time.
        poll_fn(|context| {
            for step in &mut self.steps {
                let _pending = Pin::new(step).poll(context);
            }
            Poll::Ready(())
        })
        .await;
        let mut answers = Vec::with_capacity(self.steps.len());
        for mut step in self.steps {
            Pin::new(&mut step).await;
            let answer = Pin::new(&mut step).take_output();
            answers.push(answer.unwrap_or_else(|| Err(Fault::corrupt("answer")))?);
        }
        Ok(answers)
    }
}
