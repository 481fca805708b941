//! What the operator of a server asks of it: invites, devices, keys, state.
//!
//! An embedded store belongs to one process. While a server runs, `commucat-cli` sends it a
//! [`Request`] over a socket in the data directory; otherwise it opens the store itself. Both ways
//! end in the same [`Executor`]; what only a running server has to do, such as ending a session, is
//! behind [`Live`].

mod executor;
mod request;
mod response;
mod socket;

pub use self::executor::{Executor, Live, Offline, Site};
pub use self::request::{BackupStep, INVITE_LASTS_MAX, INVITE_USES_MAX, KeyKind, Request};
pub use self::response::{
    Answer, BackupMade, BackupState, Device, DeviceDetails, Devices, Failure, FailureKind, Hidden,
    Invite, Invites, Keys, LedgerState, NewInvite, Node, Nodes, NoiseKey, Peer, PeerStanding,
    Peers, Ping, Response, Status,
};
pub use self::socket::{Client, Connection, LINE_BYTES_MAX, Listener, SOCKET_FILE, SocketError};
