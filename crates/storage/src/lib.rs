//! Durable state of a CommuCat server: queues, groups, devices, keys.
//!
//! [`Store`] is the only door. Its methods, grouped by concern in `store/<concern>.rs`, are the
//! contract; each backend implements them and passes the same conformance suite.
//!
//! What holds for every method:
//!
//! * A method that changes something returns after the change is on disk (fsynced), or with an
//!   error. [`StoreError::Unavailable`] may mean either outcome; every operation can be repeated.
//! * A business outcome (refused, conflict, not found) is a value, never an error.
//! * Times are passed in; nothing here reads a clock.
//!
//! # Cancel safety
//!
//! A method that is dropped half-way may still take effect. No change is ever applied in part.

#[cfg(test)]
mod conformance;
mod error;
mod lists;
mod postgres;
mod sqlite;
mod store;
mod stored;
mod tally;
mod transfer;

pub use error::{OpenError, StoreError};
pub use postgres::url::{PostgresUrl, UrlError};
pub use store::backup::{BackupError, CopyProgress, ReplaceError, Replacement, Since, StoreCopy};
pub use store::capabilities::CapabilityChange;
pub use store::clock::ExpiryClock;
pub use store::devices::{
    Admission, Device, DeviceList, ListChange, ListPut, ListedDevice, Registration, StoredList,
};
pub use store::groups::{
    Commit, CommitOutcome, Fanout, FanoutEntry, Group, GroupCreated, GroupDelivery, GroupHead,
    GroupRemoval, JoinKey, JoinKeyChange, LogEntry, LogPage, NewGroup,
};
pub use store::invites::{Invite, NewInvite};
pub use store::key_packages::{
    Access, Claim, ClaimBudgets, ClaimedPackage, NewPackage, PackageCount, Published,
};
pub use store::meta::MetaKey;
pub use store::outbox::{
    GroupRelay, NewOutboxEntry, NodeId, OutboxContent, OutboxLane, OutboxLimits, OutboxPage,
    OutboxRow, OutboxRowId, OutboxState, Outboxed,
};
pub use store::peers::{PeerFollowed, PeerFound, PeerRecord, PeerSource, PeerStatus, PreviousKey};
pub use store::queues::{
    Content, Delivery, EntryKind, Expired, Left, NewEntry, Page, QueuePosition, QueueSpooled,
    QueueState, Reference, ReferenceState, Refusal, Row, RowId, Spooled,
};
pub use store::{Counters, Location, Migrations, Options, QueueLimits, Store, SweepCursor};
pub use transfer::{TransferError, TransferProgress, Transferred, transfer};
