//! One connection as the engine sees it: sequences, what is unanswered, which channels are bound.
//!
//! Dies with the connection; everything that matters is in the vault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use commucat_proto::frame::ack::ForkTag;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{AccountId, GroupId};
use commucat_proto::limits::{CHANNEL_MAX, REQUEST_TIMEOUT};
use commucat_proto::time::Timestamp;

/// A request is given up a little after the server should have.
const PATIENCE: Duration = Duration::from_secs(REQUEST_TIMEOUT.as_secs() + 10);

/// Limits that the server named in its first ACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) payload: usize,
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// What a control request was for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Bind the group's channel.
    Join(GroupId),
    /// Make the group at the hub.
    Create(GroupId),
    /// The own reference for a group to be made.
    Reference(GroupId),
    /// Key packages of an account, for a group.
    Claim(GroupId, AccountId),
    /// A commit that the hub decides on.
    Commit(GroupId),
    /// Entries of the log.
    Log(GroupId),
    /// GroupInfos, for rejoining.
    Rejoin(GroupId),
    /// Entries since the GroupInfo that opens, for rejoining.
    Since(GroupId),
    /// GroupInfos, for comparing after a fork alarm.
    Compare(GroupId),
    /// The hub's list, to see who is gone.
    Gone(GroupId),
    /// GroupInfo that a Welcome needs.
    Welcome(GroupId),
    /// Leave for good.
    Leave(GroupId),
    /// Give the channel back.
    Unbind(GroupId),
    /// The device list of a contact.
    List(AccountId),
    /// A new own device list.
    PutList,
    /// How many key packages are left.
    Count,
    /// New key packages.
    Publish,
    /// The capability of the own contact link.
    Capability,
}

impl Purpose {
    /// The group in which this device has to be for the answer to be of use.
    pub(crate) const fn membership(&self) -> Option<&GroupId> {
        match self {
            Self::Join(group)
            | Self::Create(group)
            | Self::Reference(group)
            | Self::Claim(group, _)
            | Self::Commit(group)
            | Self::Log(group)
            | Self::Rejoin(group)
            | Self::Since(group)
            | Self::Compare(group)
            | Self::Gone(group) => Some(group),
            Self::Welcome(_)
            | Self::Leave(_)
            | Self::Unbind(_)
            | Self::List(_)
            | Self::PutList
            | Self::Count
            | Self::Publish
            | Self::Capability => None,
        }
    }
}

/// Something that the server has not answered.
#[derive(Clone, Debug)]
pub(crate) enum Unanswered {
    /// A MSG, by its number in the group's outbox, and where it was sent.
    Message {
        group: GroupId,
        channel: u32,
        number: u64,
        bytes: usize,
    },
    /// A control request.
    Request { purpose: Purpose, at: Timestamp },
}

/// The channel of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Binding {
    /// JOIN is under way.
    Joining,
    /// Frames may be sent.
    Bound,
    /// An ERROR unbound it; frames behind it are still being refused.
    Broken,
}

/// Channels that groups take which have nothing to send.
const CHANNELS_FOR_TAGS: usize = CHANNEL_MAX as usize / 2;

/// What a device that rejoins has fetched so far.
pub(crate) struct Rejoining {
    /// The hub's head when the GroupInfos were fetched.
    pub(crate) head: u64,
    /// Sealed GroupInfos with their positions.
    pub(crate) infos: Vec<(u64, Bytes)>,
    /// Entries since the GroupInfo that opens.
    pub(crate) since: Vec<LogEntry>,
}

/// Fork tags that wait for the channel of their group, by group: hubs look at the last positions only.
const TAGS_KEPT: usize = 4;

/// State of one connection.
pub(crate) struct Online {
    pub(crate) limits: Limits,
    next: u32,
    /// The highest sequence received, and the highest acknowledged.
    pub(crate) received: u32,
    pub(crate) acknowledged: u32,
    pub(crate) unanswered: BTreeMap<u32, Unanswered>,
    messages: usize,
    bytes: usize,
    channels: HashMap<u32, GroupId>,
    pub(crate) bindings: HashMap<GroupId, (u32, Binding)>,
    /// The last outbox number sent, by group.
    pub(crate) sent: HashMap<GroupId, u64>,
    /// Conversations that the window keeps from sending.
    pub(crate) blocked: BTreeSet<GroupId>,
    /// Conversations with a structural request under way.
    pub(crate) busy: BTreeSet<GroupId>,
    /// Fork tags that were not reported yet: of a group that is not bound, the last few.
    pub(crate) tags: Vec<ForkTag>,
    /// Groups that this device is about to rejoin.
    pub(crate) rejoining: HashMap<GroupId, Rejoining>,
    /// Since when the server has sent everything that waited.
    pub(crate) caught_up: Option<Timestamp>,
    /// Contacts whose list was asked for on this connection.
    pub(crate) asked: BTreeSet<AccountId>,
}

impl Online {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 1,
            received: 0,
            acknowledged: 0,
            unanswered: BTreeMap::new(),
            messages: 0,
            bytes: 0,
            channels: HashMap::new(),
            bindings: HashMap::new(),
            sent: HashMap::new(),
            blocked: BTreeSet::new(),
            busy: BTreeSet::new(),
            tags: Vec::new(),
            rejoining: HashMap::new(),
            caught_up: None,
            asked: BTreeSet::new(),
        }
    }

    /// Takes the next sequence for `what`.
    pub(crate) fn number(&mut self, what: Unanswered) -> u32 {
        let sequence = self.next;
        self.next = self.next.saturating_add(1);
        if let Unanswered::Message { bytes, .. } = &what {
            self.messages += 1;
            self.bytes += bytes;
        }
        self.unanswered.insert(sequence, what);
        sequence
    }

    /// The answer to `sequence` came.
    pub(crate) fn answered(&mut self, sequence: u32) -> Option<Unanswered> {
        let what = self.unanswered.remove(&sequence)?;
        if let Unanswered::Message { bytes, .. } = &what {
            self.messages = self.messages.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(*bytes);
        }
        Some(what)
    }

    /// Whether a MSG of `bytes` may be sent now (`limits.unacked`).
    pub(crate) const fn has_room(&self, bytes: usize) -> bool {
        self.messages < self.limits.frames
            && (self.messages == 0 || self.bytes + bytes <= self.limits.bytes)
    }

    /// Whether a request with this purpose is unanswered.
    pub(crate) fn is_pending(&self, wanted: &Purpose) -> bool {
        self.unanswered
            .values()
            .any(|one| matches!(one, Unanswered::Request { purpose, .. } if purpose == wanted))
    }

    /// Whether everything that a fresh connection needs has been answered.
    pub(crate) fn is_settled(&self) -> bool {
        let first = [Purpose::Count, Purpose::Publish, Purpose::Capability];
        self.caught_up.is_some() && !first.iter().any(|purpose| self.is_pending(purpose))
    }

    /// Whether a MSG of `group` is unanswered.
    pub(crate) fn has_messages(&self, group: &GroupId) -> bool {
        self.unanswered
            .values()
            .any(|one| matches!(one, Unanswered::Message { group: of, .. } if of == group))
    }

    /// Keeps a fork tag for the next ACK.
    pub(crate) fn report(&mut self, tag: ForkTag) {
        let group = tag.group;
        self.tags.push(tag);
        if !self.is_bound(&group) {
            let mut of_group = self.tags.iter().filter(|tag| tag.group == group);
            let oldest = of_group.next().map(|tag| tag.position);
            if of_group.count() >= TAGS_KEPT {
                self.tags
                    .retain(|tag| tag.group != group || Some(tag.position) != oldest);
            }
        }
    }

    /// The fork tags of bound groups: only those may be reported.
    pub(crate) fn take_tags(&mut self) -> Vec<ForkTag> {
        let tags = std::mem::take(&mut self.tags);
        let (due, rest) = tags.into_iter().partition(|tag| self.is_bound(&tag.group));
        self.tags = rest;
        due
    }

    /// Groups that have fork tags and no channel, while half of the channels are left for those that
    /// have something to send.
    pub(crate) fn unbound_with_tags(&self) -> BTreeSet<GroupId> {
        if self.channels.len() >= CHANNELS_FOR_TAGS {
            return BTreeSet::new();
        }
        let groups = self.tags.iter().map(|tag| tag.group);
        groups
            .filter(|group| !self.bindings.contains_key(group))
            .collect()
    }

    fn is_bound(&self, group: &GroupId) -> bool {
        matches!(self.bindings.get(group), Some((_, Binding::Bound)))
    }

    /// The group that a channel is bound to.
    pub(crate) fn group_of(&self, channel: u32) -> Option<GroupId> {
        self.channels.get(&channel).copied()
    }

    /// A channel for `group`: the one it has, or a free one; none if all are taken.
    pub(crate) fn channel_for(&mut self, group: &GroupId) -> Option<u32> {
        if let Some((channel, _)) = self.bindings.get(group) {
            return Some(*channel);
        }
        let used = u32::try_from(self.channels.len()).unwrap_or(CHANNEL_MAX);
        let channel = (1..=used.saturating_add(1)).find(|one| !self.channels.contains_key(one))?;
        if channel > CHANNEL_MAX {
            return None;
        }
        self.channels.insert(channel, *group);
        Some(channel)
    }

    /// Gives the channel of `group` back, where the server has no binding.
    pub(crate) fn unbind(&mut self, group: &GroupId) {
        if let Some((channel, _)) = self.bindings.remove(group) {
            self.channels.remove(&channel);
        }
    }

    /// Stops using the channel of `group`; whether there was one. No other group may have it before the
    /// server has answered a LEAVE: see [`Online::left`].
    pub(crate) fn release(&mut self, group: &GroupId) -> bool {
        self.sent.remove(group);
        self.bindings.remove(group).is_some()
    }

    /// The membership in `group` is another one from now on: what was asked in the old one is not waited
    /// for. LEAVEs still are.
    pub(crate) fn forget_requests(&mut self, group: &GroupId) {
        self.busy.remove(group);
        self.rejoining.remove(group);
        self.unanswered.retain(|_, one| match one {
            Unanswered::Request { purpose, .. } => purpose.membership() != Some(group),
            Unanswered::Message { .. } => true,
        });
    }

    /// The server has no binding of `group` any more, unless a JOIN after the LEAVE made one.
    pub(crate) fn left(&mut self, group: &GroupId) {
        let own = self.bindings.get(group).map(|(channel, _)| *channel);
        self.channels
            .retain(|channel, of| of != group || Some(*channel) == own);
    }

    /// When the oldest request should have been answered.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let times = self.unanswered.values().filter_map(|one| match one {
            Unanswered::Request { at, .. } => Some(at.saturating_add(PATIENCE)),
            Unanswered::Message { .. } => None,
        });
        times.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn online(frames: usize, bytes: usize) -> Online {
        Online::new(Limits {
            payload: 1000,
            frames,
            bytes,
        })
    }

    fn message(bytes: usize) -> Unanswered {
        Unanswered::Message {
            group: GroupId::new([1; 32]),
            channel: 1,
            number: 1,
            bytes,
        }
    }

    #[test]
    fn sequences_start_at_one_and_have_no_gaps() {
        let mut online = online(10, 1000);

        let numbers: Vec<_> = (0..3).map(|_| online.number(message(1))).collect();

        assert_eq!(numbers, [1, 2, 3]);
    }

    #[test]
    fn the_window_closes_at_its_frames_and_bytes_and_opens_with_answers() {
        let mut online = online(2, 100);
        let first = online.number(message(90));

        assert!(online.has_room(10));
        assert!(!online.has_room(11));
        online.number(message(1));
        assert!(!online.has_room(1));
        online.answered(first);
        assert!(online.has_room(99));
    }

    #[test]
    fn a_group_keeps_its_channel_and_groups_do_not_share_one() {
        let mut online = online(2, 100);
        let (one, two) = (GroupId::new([1; 32]), GroupId::new([2; 32]));

        let channel = online.channel_for(&one).unwrap();
        online.bindings.insert(one, (channel, Binding::Bound));

        assert_eq!(online.channel_for(&one), Some(channel));
        assert_ne!(online.channel_for(&two), Some(channel));
        assert_eq!(online.group_of(channel), Some(one));
    }
}
