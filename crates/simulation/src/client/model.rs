//! A client without MLS: a disk that survives, a connection that does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use commucat_crypto::secret::Secret;
use commucat_crypto::signing::SigningKey;
use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::{Frame, FrameType, Header};
use commucat_proto::id::{DedupeKey, DeviceId, Domain, GroupId, Handle, MessageId};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;

use super::external::{Joining, Way};
use super::group::{Epoch, Member};
use crate::judge::Text;
use crate::outside::{Connection, Event, Index, Outside};

/// A client.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) index: Index,
    pub(crate) home: Index,
    /// The name of its home.
    pub(super) domain: Domain,
    pub(crate) device: DeviceId,
    pub(crate) disk: Disk,
    pub(crate) online: Option<Online>,
    /// The planted bug: frames that were acknowledged and are not stored.
    pub(super) unstored: Vec<Frame>,
    /// It does not connect until the world is calm.
    pub(crate) away: bool,
    waking: bool,
}

/// What survives.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) groups: BTreeMap<GroupId, Member>,
    pub(crate) outbox: Vec<Outgoing>,
    /// Texts that were acknowledged, for when they are returned.
    pub(super) sent: BTreeMap<MessageId, (GroupId, Text)>,
    /// Handles of the own key packages.
    pub(super) packages: BTreeMap<Handle, SigningKey>,
    pub(super) keys: BTreeSet<DedupeKey>,
    pub(super) opened: BTreeSet<(u64, MessageId)>,
    /// Notices that were taken: a repeat is dropped before anything is done about it.
    pub(super) notices: BTreeSet<MessageId>,
    /// Ciphertexts that came back: an ACK for one of them is worth nothing any more.
    pub(super) returned: BTreeSet<DedupeKey>,
    pub(super) held: Vec<(GroupId, Msg)>,
    pub(crate) intents: VecDeque<(GroupId, Intent)>,
    pub(super) pending: Option<Pending>,
    /// Groups that are being joined by link.
    pub(super) joining: BTreeMap<GroupId, Joining>,
    /// Groups that were left for good, of which the home server may not know yet.
    pub(super) leaving: BTreeSet<GroupId>,
    /// The newest Welcome into a group that the device is in, as far as it knows.
    pub(super) invited: BTreeMap<GroupId, GroupInvite>,
    /// It was told of a gap once. That may stand in the queue before the Welcome of a group whose entries
    /// it is about.
    pub(super) had_gap: bool,
    /// Positions for which a false tag is reported.
    pub(super) lies: BTreeSet<(GroupId, u64)>,
}

/// A text that waits for its acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) group: GroupId,
    pub(super) message: MessageId,
    pub(crate) text: Text,
    pub(super) sealed: Option<Msg>,
    /// It was on the wire before: the planted bug sends it behind what is new.
    pub(super) was_sent: bool,
}

/// A change of a group that the client wants.
#[derive(Clone, Debug)]
pub(crate) enum Intent {
    Update,
    Add(FanoutEntry, Index),
    Remove(Handle),
    /// A commit that nobody can apply.
    Rubbish,
    /// One that some can read and others cannot.
    Spoiled,
    /// A good one with a GroupInfo that is none, or is another group's.
    BadInfo,
    /// One of a group of its own making, whose GroupInfo opens, and a false tag.
    Lure,
    /// Into the list, and into a group of its own making.
    Ghost(FanoutEntry, Index),
    /// Out of the list and not out of the tree.
    Unlist(Handle),
    /// A removal by somebody who is no admin.
    Mutiny(Handle),
}

/// A commit that the hub has not decided on.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) group: GroupId,
    pub(super) bundle: Signed,
    pub(super) entry: MessageId,
    pub(super) expect: u64,
    /// The text that the bundle carries.
    pub(super) first: Option<Outgoing>,
    /// Of an external commit: where it leads.
    pub(super) external: Option<Epoch>,
    /// The position of the GroupInfo that it is built on.
    pub(super) base: u64,
}

/// What a request was for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// With the key of its ciphertext: a text that was sealed again has another.
    Message(GroupId, MessageId, DedupeKey),
    Join(GroupId),
    Commit,
    Fetch(GroupId),
    /// GroupInfos, to compare or to rejoin.
    Infos(GroupId),
    /// The entries after a GroupInfo that a device wants to follow.
    Way(GroupId),
    /// GroupInfos, to join by link.
    Link(GroupId),
    Leave(GroupId),
    /// What is not to succeed.
    Nothing,
}

/// The channel of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Binding {
    Joining,
    Bound,
    /// An ERROR unbound it; frames behind it are still being refused.
    Broken,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Online {
    pub(super) connection: Connection,
    next: u32,
    pub(super) received: u32,
    pub(super) unanswered: BTreeMap<u32, (Asked, u64)>,
    pub(super) channels: BTreeMap<GroupId, u32>,
    pub(super) bindings: BTreeMap<GroupId, Binding>,
    /// Messages that are on the wire of this connection.
    pub(super) sent: BTreeSet<MessageId>,
    /// The queue was read to its end: entries of the log fetched before would overtake messages
    /// that wait there, and their keys would be gone when they come.
    pub(super) caught_up: bool,
    pub(super) commit_at: u64,
    pub(super) fetch_at: u64,
    /// Fork tags to report, the newest of each group.
    pub(super) tags: BTreeMap<GroupId, (u64, Option<[u8; 16]>)>,
    /// The group that it is out of and whose channel it bound all the same.
    pub(super) intruded: Option<GroupId>,
    /// Ways back into groups that are looked at.
    pub(super) ways: BTreeMap<GroupId, Way>,
}

impl Model {
    pub(crate) fn new(index: Index, (home, domain): (Index, Domain), device: DeviceId) -> Self {
        Self {
            index,
            home,
            domain,
            device,
            disk: Disk::default(),
            online: None,
            unstored: Vec::new(),
            away: false,
            waking: false,
        }
    }

    /// A key package: the handle under which it will be in a group.
    pub(crate) fn package(&mut self, out: &mut Outside) -> Handle {
        let key = SigningKey::from_seed(&Secret::new(out.random.bytes()));
        let handle = Handle::new(key.public());
        out.judge.owns(self.index, handle);
        self.disk.packages.insert(handle, key);
        handle
    }

    /// Takes a key package's key out: its handle is in a group.
    pub(crate) fn take_package(&mut self, handle: &Handle) -> Option<SigningKey> {
        self.disk.packages.remove(handle)
    }

    /// The entry that it wants to put into a log, and has not heard about.
    pub(crate) fn awaited(&self) -> Option<MessageId> {
        self.disk.pending.as_ref().map(|pending| pending.entry)
    }

    /// Its connection.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.online.as_ref().map(|online| online.connection)
    }

    /// Whether this is its connection.
    pub(crate) fn is_on(&self, connection: Connection) -> bool {
        self.connection() == Some(connection)
    }

    /// A connection stands.
    pub(crate) fn connected(&mut self, out: &mut Outside, connection: Connection) {
        let index = self.index;
        out.note(|| format!("client {index} connects: {connection}"));
        self.online = Some(Online {
            connection,
            next: 1,
            received: 0,
            unanswered: BTreeMap::new(),
            channels: BTreeMap::new(),
            bindings: BTreeMap::new(),
            sent: BTreeSet::new(),
            caught_up: false,
            commit_at: 0,
            fetch_at: 0,
            tags: BTreeMap::new(),
            intruded: None,
            ways: BTreeMap::new(),
        });
        self.pump(out);
    }

    /// The connection is gone; it connects again a little later.
    pub(crate) fn disconnected(&mut self, out: &mut Outside) {
        if self.online.take().is_some() {
            let index = self.index;
            out.note(|| format!("client {index} is offline"));
        }
        let wait = out.random.between(10, 2_000);
        out.after(wait, Event::Connect(self.index));
    }

    /// The process dies; the disk is left.
    pub(crate) fn crash(&mut self) {
        self.unstored.clear();
        self.online = None;
    }

    /// Time passes: what has to be tried again is.
    pub(crate) fn wake(&mut self, out: &mut Outside) {
        self.waking = false;
        self.store_late(out);
        let overdue = self.online.as_ref().is_some_and(|online| {
            let mut asked = online.unanswered.values();
            asked.any(|(_, at)| at + 40_000 < out.now)
        });
        if overdue && let Some(online) = &self.online {
            out.cut_link(online.connection);
        }
        self.pump(out);
    }

    /// Looks around again later, if there is anything to do.
    pub(super) fn wake_later(&mut self, out: &mut Outside) {
        let waits = self.online.as_ref().is_some_and(|online| {
            !online.unanswered.is_empty()
                || !self.disk.intents.is_empty()
                || self.disk.pending.is_some()
                || !self.disk.joining.is_empty()
                || !self.disk.leaving.is_empty()
                || self.disk.groups.values().any(Member::is_busy)
        });
        if waits && !self.waking {
            self.waking = true;
            out.after(500, Event::Wake(self.index));
        }
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_quiet(&self) -> bool {
        self.online
            .as_ref()
            .is_some_and(|online| online.unanswered.is_empty())
            && self.disk.outbox.is_empty()
            && self.disk.intents.is_empty()
            && self.disk.pending.is_none()
            && self.disk.joining.is_empty()
            && self.disk.leaving.is_empty()
            && self.unstored.is_empty()
            && !self.disk.groups.values().any(Member::is_busy)
    }

    /// Sends a numbered frame.
    pub(super) fn ask(
        &mut self,
        out: &mut Outside,
        (kind, channel): (FrameType, u32),
        payload: Bytes,
        asked: Asked,
    ) {
        let Some(online) = &mut self.online else {
            return;
        };
        let sequence = online.next;
        online.next += 1;
        online.unanswered.insert(sequence, (asked, out.now));
        let header = Header {
            kind,
            channel,
            sequence,
        };
        out.up(online.connection, Frame { header, payload });
    }

    /// Sends a request on channel 0.
    pub(super) fn request(
        &mut self,
        out: &mut Outside,
        kind: FrameType,
        value: &impl Cbor,
        asked: Asked,
    ) {
        self.ask(out, (kind, 0), value.encode().into(), asked);
    }

    /// Whether a request of this kind is under way.
    pub(super) fn is_asking(&self, asked: Asked) -> bool {
        self.online.as_ref().is_some_and(|online| {
            let mut unanswered = online.unanswered.values();
            unanswered.any(|(other, _)| *other == asked)
        })
    }
}
