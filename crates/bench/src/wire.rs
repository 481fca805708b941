//! What a device of the generator can do, whatever is at the other end.

use anyhow::Result;

use crate::tally::Stamp;

/// What came since the last look.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) stamps: Vec<Stamp>,
    /// Messages of this device that the server answered for.
    pub(crate) acknowledged: u64,
    /// Of them, those that it did not take.
    pub(crate) refused: u64,
    /// Everything that waited in the store has come.
    pub(crate) queue_empty: bool,
}

/// A connected device.
pub(crate) trait Wire: Send {
    /// Waits for bytes and takes out all that is there; false at the end of the connection.
    ///
    /// Cancel-safe: bytes are taken only when nothing is waited for any more.
    fn receive(&mut self, inbox: &mut Inbox) -> impl Future<Output = Result<bool>> + Send;

    /// Queues a message.
    fn put(&mut self, stamp: Stamp);

    /// Queues one acknowledgement of everything that came.
    fn confirm(&mut self);

    /// Sends what is queued, in one piece.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;
}
