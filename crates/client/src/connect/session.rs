//! One connection as a task: records and frames in both directions, keep-alive, its end.
//!
//! Knows nothing of what the frames mean; the engine does. It reads without a pause as long as the
//! engine takes what it read, and joins everything that waits into full records.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commucat_crypto::Sealer;
use commucat_crypto::tunnel::padding_payloads;
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::encoder;
use commucat_proto::frame::{Frame, FrameType, Header};
use commucat_proto::limits::{KEEPALIVE_LOST_HALVES, RECORD_PLAINTEXT_MAX};
use h2::SendStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::Stream;
use super::login::{Session, Ticket, Welcome, login};
use crate::error::ClientError;

/// Batches that wait for the engine; at the bound the connection reads more slowly.
const BATCHES_MAX: usize = 64;
/// Frames that wait for the wire. The engine never has more: `limits.unacked`, one ACK a batch.
const OUTGOING_MAX: usize = 8192;

/// How long the end of a connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a connection tells the engine.
pub(crate) enum Report {
    /// Signed in.
    Online(Box<Welcome>),
    /// Frames, in order.
    Frames(Vec<Frame>),
    /// The end; nothing follows.
    Closed(ClientError),
}

/// The engine's end of a connection.
pub(crate) struct Link {
    pub(crate) reports: mpsc::Receiver<Report>,
    outgoing: Option<mpsc::Sender<Bytes>>,
    stop: CancellationToken,
}

impl Link {
    /// Starts to connect.
    pub(crate) fn start(ticket: Ticket, padding: bool, tracker: &TaskTracker) -> Self {
        let (report, reports) = mpsc::channel(BATCHES_MAX);
        let (outgoing, frames) = mpsc::channel(OUTGOING_MAX);
        let stop = CancellationToken::new();
        let (inner, token) = (tracker.clone(), stop.clone());
        tracker.spawn(async move {
            let work = run(ticket, padding, (&inner, token.clone()), (&report, frames));
            let end = tokio::select! {
                () = token.cancelled() => return,
                result = Box::pin(work) => result,
            };
            let reason = end
                .err()
                .unwrap_or(ClientError::Http("connection closed".to_owned()));
            // The engine may be gone; then nobody wants to know.
            drop(report.send(Report::Closed(reason)).await);
        });
        Self {
            reports,
            outgoing: Some(outgoing),
            stop,
        }
    }

    /// Hands frames over for the wire; false if the connection is gone or hopelessly behind.
    pub(crate) fn send(&self, frames: Bytes) -> bool {
        self.outgoing
            .as_ref()
            .is_some_and(|outgoing| outgoing.try_send(frames).is_ok())
    }

    /// Says goodbye: what was handed over is written, then the stream ends.
    pub(crate) async fn close(mut self) {
        self.outgoing = None;
        let ended = async { while self.reports.recv().await.is_some() {} };
        // A server that does not answer is not waited for.
        drop(tokio::time::timeout(GOODBYE, ended).await);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(
    ticket: Ticket,
    padding: bool,
    tasks: (&TaskTracker, CancellationToken),
    (report, frames): (&mpsc::Sender<Report>, mpsc::Receiver<Bytes>),
) -> Result<(), ClientError> {
    let Session {
        stream,
        sealer,
        mut opener,
        mut decoder,
        hello,
    } = login(&ticket, tasks).await?;
    let keepalive = Duration::from_secs(hello.first.limits.keepalive.clamp(1, 3600));
    let max = usize::try_from(hello.first.limits.max_payload).unwrap_or(usize::MAX);
    decoder.set_ciphertext_max(max);
    if report.send(Report::Online(Box::new(hello))).await.is_err() {
        return Ok(());
    }
    let Stream { out, mut input } = stream;
    let writer = Writer {
        out,
        sealer,
        padding,
        keepalive,
    };
    let mut writing = std::pin::pin!(writer.run(frames));
    let lost = keepalive.saturating_mul(KEEPALIVE_LOST_HALVES) / 2;
    let mut deadline = Instant::now() + lost;
    loop {
        if !pass_on(&mut decoder, report).await? {
            return Ok(());
        }
        let chunk = tokio::select! {
            result = &mut writing => return result,
            chunk = Stream::read(&mut input) => chunk?,
            () = tokio::time::sleep_until(deadline) => {
                return Err(ClientError::Http("nothing came from the server".to_owned()));
            }
        };
        let Some(chunk) = chunk else { return Ok(()) };
        deadline = Instant::now() + lost;
        opener
            .open(&chunk, decoder.buffer_mut())
            .map_err(|_| ClientError::Http("a sealed record does not open".to_owned()))?;
    }
}

/// Gives the engine every frame that is complete; false if it is gone.
async fn pass_on(
    decoder: &mut Decoder,
    report: &mpsc::Sender<Report>,
) -> Result<bool, ClientError> {
    let mut batch = Vec::new();
    loop {
        match decoder.next_frame() {
            Ok(Some(Incoming::Frame(frame))) => {
                let (name, bytes) = (frame.header.kind.name(), frame.payload.len());
                tracing::trace!(frame = name, seq = frame.header.sequence, bytes, "received");
                batch.push(frame);
            }
            // Of a later version, or larger than this side takes: it has no meaning here, but its
            // number counts.
            Ok(Some(Incoming::Skipped(skipped))) => {
                let header = Header::new(FrameType::Padding, skipped.sequence);
                batch.push(Frame {
                    header,
                    payload: Bytes::new(),
                });
            }
            Ok(None) => break,
            Err(error) => return Err(ClientError::Http(error.to_string())),
        }
    }
    if batch.is_empty() {
        return Ok(true);
    }
    Ok(report.send(Report::Frames(batch)).await.is_ok())
}

/// The writing half.
struct Writer {
    out: SendStream<Bytes>,
    sealer: Sealer,
    padding: bool,
    keepalive: Duration,
}

impl Writer {
    async fn run(mut self, mut frames: mpsc::Receiver<Bytes>) -> Result<(), ClientError> {
        let mut plain = BytesMut::new();
        loop {
            plain.clear();
            match tokio::time::timeout(self.keepalive, frames.recv()).await {
                Ok(None) => {
                    // The engine is done: end the stream properly, then wait for the server's end.
                    let end = self.out.send_data(Bytes::new(), true);
                    end.map_err(|error| ClientError::Http(error.to_string()))?;
                    return std::future::pending().await;
                }
                Ok(Some(first)) => {
                    plain.extend_from_slice(&first);
                    // Whatever waits goes into the same records.
                    while plain.len() < RECORD_PLAINTEXT_MAX {
                        let Ok(more) = frames.try_recv() else { break };
                        plain.extend_from_slice(&more);
                    }
                }
                Err(_) => encoder::padding(0, &mut plain),
            }
            tracing::trace!(bytes = plain.len(), "sending");
            let mut sealed = BytesMut::with_capacity(plain.len() + 64);
            self.seal(&plain, &mut sealed)
                .map_err(|_| ClientError::Http("this connection is used up".to_owned()))?;
            Stream::write(&mut self.out, sealed.freeze()).await?;
        }
    }

    fn seal(
        &mut self,
        mut plain: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), commucat_crypto::tunnel::SealError> {
        while !plain.is_empty() {
            let mut record = self.sealer.record(out);
            plain = record.append(plain);
            let missing = if self.padding {
                record.missing_to_class()
            } else {
                0
            };
            if missing > 0 {
                let mut filling = BytesMut::new();
                for payload in padding_payloads(missing) {
                    encoder::padding(payload, &mut filling);
                }
                // Made to fit exactly.
                let rest = record.append(&filling);
                debug_assert!(rest.is_empty(), "padding fits its record");
            }
            record.finish()?;
        }
        Ok(())
    }
}
