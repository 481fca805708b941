//! A change is acknowledged when, and only when, the sink has kept it.

use std::sync::mpsc as std_mpsc;

use super::*;
use crate::entry::Hash;

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
const RETRY: Duration = Duration::from_millis(1);

fn change(serial: u64) -> Change {
    Change::ServerKeysChanged {
        serial,
        statement: Hash::of_body(b"statement"),
    }
}

/// Asks the test about each append; keeps the entries that are allowed.
struct Scripted {
    kept: Vec<Entry>,
    asked: std_mpsc::SyncSender<usize>,
    verdicts: std_mpsc::Receiver<Result<(), SinkError>>,
}

impl Sink for Scripted {
    fn next_index(&self) -> u64 {
        u64::try_from(self.kept.len()).unwrap()
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), SinkError> {
        self.asked.send(entries.len()).unwrap();
        self.verdicts.recv().unwrap()?;
        self.kept.extend_from_slice(entries);
        Ok(())
    }
}

struct Script {
    asked: std_mpsc::Receiver<usize>,
    verdicts: std_mpsc::SyncSender<Result<(), SinkError>>,
}

fn scripted() -> (Scripted, Script) {
    let (asked, asked_of) = std_mpsc::sync_channel(16);
    let (verdict, verdicts) = std_mpsc::sync_channel(16);
    let sink = Scripted {
        kept: Vec::new(),
        asked,
        verdicts,
    };
    (
        sink,
        Script {
            asked: asked_of,
            verdicts: verdict,
        },
    )
}

fn full() -> Result<(), SinkError> {
    Err(SinkError::Io(io::ErrorKind::StorageFull.into()))
}

impl Script {
    /// Waits until the writer tries an append; returns how many entries it has.
    async fn asked(self) -> (usize, Self) {
        let waiting = tokio::task::spawn_blocking(move || (self.asked.recv().unwrap(), self));
        waiting.await.unwrap()
    }

    fn answer(&self, verdict: Result<(), SinkError>) {
        self.verdicts.send(verdict).unwrap();
    }
}

#[tokio::test]
async fn a_change_is_acknowledged_only_after_the_sink_kept_it() {
    let (sink, script) = scripted();
    let (ledger, worker) = Ledger::start_with(sink, RETRY).unwrap();
    let acknowledged = AtomicBool::new(false);

    let recording = async {
        let recorded = ledger.record(NOW, change(1)).await;
        acknowledged.store(true, Ordering::Relaxed);
        recorded
    };
    let failing_twice = async {
        let (_, script) = script.asked().await;
        script.answer(full());
        let (_, script) = script.asked().await;
        script.answer(full());
        let (_, script) = script.asked().await;
        assert_eq!(
            ledger.status(),
            Status {
                kept: 0,
                failures: 2,
                failing: true
            }
        );
        assert!(!acknowledged.load(Ordering::Relaxed));
        script.answer(Ok(()));
    };
    let (recorded, ()) = tokio::join!(recording, failing_twice);

    assert_eq!(recorded, Ok(0));
    assert_eq!(
        ledger.status(),
        Status {
            kept: 1,
            failures: 2,
            failing: false
        }
    );
    worker.stop().await;
}

#[tokio::test]
async fn changes_that_wait_are_kept_by_one_append_in_order() {
    let (sink, script) = scripted();
    let (ledger, worker) = Ledger::start_with(sink, RETRY).unwrap();

    let late = async {
        let (first, script) = script.asked().await;
        // All three wait before the first append is let go.
        let (one, two, three, second) = tokio::join!(
            biased;
            ledger.record(NOW, change(1)),
            ledger.record(NOW, change(2)),
            ledger.record(NOW, change(3)),
            async {
                script.answer(Ok(()));
                let (second, script) = script.asked().await;
                script.answer(Ok(()));
                second
            },
        );
        ([first, second], [one, two, three])
    };
    let (zero, (appends, rest)) = tokio::join!(ledger.record(NOW, change(0)), late);

    assert_eq!(appends, [1, 3]);
    assert_eq!((zero, rest), (Ok(0), [Ok(1), Ok(2), Ok(3)]));
    worker.stop().await;
}

#[tokio::test]
async fn stopping_ends_a_writer_whose_sink_fails() {
    let (sink, script) = scripted();
    let (ledger, worker) = Ledger::start_with(sink, Duration::from_secs(3_600)).unwrap();
    script.answer(full());

    let recording = ledger.record(NOW, change(1));
    let stopping = async {
        let (_, _script) = script.asked().await;
        worker.stop().await;
    };
    let (recorded, ()) = tokio::join!(recording, stopping);

    assert_eq!(recorded, Err(RecordError::Stopped));
    assert_eq!(
        ledger.record(NOW, change(2)).await,
        Err(RecordError::Stopped)
    );
}

#[tokio::test]
async fn what_was_handed_over_before_the_stop_is_kept() {
    let (sink, script) = scripted();
    let (ledger, worker) = Ledger::start_with(sink, RETRY).unwrap();
    script.answer(Ok(()));
    script.answer(Ok(()));

    let (recorded, ()) = tokio::join!(biased; ledger.record(NOW, change(1)), worker.stop());

    assert_eq!(recorded, Ok(0));
    assert_eq!(ledger.status().kept, 1);
}

#[tokio::test]
async fn a_sink_that_breaks_its_contract_is_not_asked_for_ever() {
    let (sink, script) = scripted();
    let (ledger, worker) = Ledger::start_with(sink, RETRY).unwrap();
    script
        .verdicts
        .send(Err(SinkError::OutOfOrder {
            expected: 0,
            found: 1,
        }))
        .unwrap();

    assert_eq!(
        ledger.record(NOW, change(1)).await,
        Err(RecordError::Refused)
    );
    worker.stop().await;
}
