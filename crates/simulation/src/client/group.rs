//! A group without MLS: epochs are a chain of hashes, and everything else is as in CCP-1 section 5.
//!
//! A commit names the state that it follows; it is valid if that is the present one and its author
//! may do what it does. A message names the state that it is sealed under, and opens for whoever
//! has been in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use commucat_crypto::signing::SigningKey;
use commucat_proto::frame::fanout::Change;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{Domain, GroupId, Handle, MessageId, SealedRef};

use super::commit::{Commit, Kind, hash, open_info};
use crate::outside::{Index, Outside};
use crate::plant::Plant;

/// Epochs whose messages still open.
const EPOCHS_KEPT: usize = 4;

/// Who is in a group, and whether an admin.
pub(crate) type Roster = BTreeMap<Handle, (Index, bool)>;

/// A device's place in a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) hub: Domain,
    pub(crate) key: SigningKey,
    pub(crate) reference: SealedRef,
    pub(crate) epoch: Epoch,
    pub(crate) counter: u64,
    /// Not, or no longer, in the group: since when.
    pub(crate) out: Option<u64>,
    /// Entries are missing.
    pub(crate) behind: bool,
    /// Something newer was seen since the log was asked for.
    pub(crate) overtaken: bool,
    /// The newest GroupInfo is to be compared with the own epoch.
    pub(crate) compares: bool,
    /// Its way back into the group is an external commit.
    pub(crate) rejoins: bool,
    /// It was told `fork`.
    pub(crate) told_fork: bool,
}

/// What all members of a group share.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    pub(crate) position: u64,
    /// The position of the last entry that took effect.
    settled: u64,
    states: VecDeque<u64>,
    /// States whose messages do not open any more.
    past: Vec<u64>,
    /// Seals GroupInfos; another one after every removal.
    pub(crate) key: u64,
    /// What those who join by link have to know; none after a removal.
    pub(crate) link: Option<u64>,
    pub(crate) roster: Roster,
    /// Whose commits since `settled` do not fit (decision 0602).
    doubts: BTreeSet<Index>,
}

/// What an entry of the log came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Applied {
    Advanced,
    Skipped(Invalid),
    Known,
    Gap,
}

/// Why an entry is skipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Invalid {
    /// It is no commit, or one that the rules do not allow: everybody sees that.
    Rules,
    /// It is of another epoch, or cannot be read here: its author is elsewhere, or this device is.
    Elsewhere,
}

impl Epoch {
    /// An epoch of which nothing but itself is known.
    pub(crate) fn new(
        position: u64,
        state: u64,
        (key, link): (u64, Option<u64>),
        roster: Roster,
    ) -> Self {
        Self {
            position,
            settled: position,
            states: [state].into(),
            past: Vec::new(),
            key,
            link,
            roster,
            doubts: BTreeSet::new(),
        }
    }

    /// A new group with its creator.
    pub(crate) fn of_creator(group: &GroupId, handle: Handle, client: Index) -> Self {
        let state = hash(&[group.as_bytes()]);
        let secrets = (
            hash(&[b"key", group.as_bytes()]),
            Some(hash(&[b"link", group.as_bytes()])),
        );
        Self::new(0, state, secrets, [(handle, (client, true))].into())
    }

    pub(crate) fn state(&self) -> u64 {
        self.states.back().copied().unwrap_or(0)
    }

    /// The position of the last entry that took effect.
    pub(crate) const fn settled(&self) -> u64 {
        self.settled
    }

    /// The state before the last entry that took effect.
    pub(crate) fn state_before(&self) -> Option<u64> {
        self.states.iter().rev().nth(1).copied()
    }

    /// The fork tag of the last position: none if its entry was skipped.
    pub(crate) fn tag(&self) -> Option<[u8; 16]> {
        let mut tag = [0; 16];
        let (first, _) = tag.split_first_chunk_mut::<8>()?;
        *first = self.state().to_be_bytes();
        (self.settled == self.position).then_some(tag)
    }

    /// Whether messages under `state` open.
    pub(crate) fn opens(&self, state: u64) -> bool {
        self.states.contains(&state)
    }

    /// Whether messages under `state` opened once: of one that comes too late the device is told.
    pub(crate) fn has_forgotten(&self, state: u64) -> bool {
        self.past.contains(&state)
    }

    /// Handles one entry of the log, on the device `me`; none stands for whoever can read all.
    pub(crate) fn apply(&mut self, entry: &LogEntry, me: Option<Index>) -> Applied {
        if entry.position <= self.position {
            return Applied::Known;
        }
        if entry.position > self.position + 1 {
            return Applied::Gap;
        }
        self.position = entry.position;
        match self.after(entry, me) {
            Ok((state, roster)) => {
                if !entry.change.remove.is_empty() {
                    self.key = hash(&[b"key", &state.to_be_bytes()]);
                    self.link = None;
                }
                self.roster = roster;
                self.settled = self.position;
                self.doubts.clear();
                self.states.push_back(state);
                if self.states.len() > EPOCHS_KEPT {
                    self.past.extend(self.states.pop_front());
                }
                Applied::Advanced
            }
            Err(invalid) => {
                let author = self.roster.get(&entry.author);
                if let (Invalid::Elsewhere, Some((author, _))) = (invalid, author)
                    && Some(*author) != me
                {
                    self.doubts.insert(*author);
                }
                Applied::Skipped(invalid)
            }
        }
    }

    /// The state and the members after a commit.
    fn after(&self, entry: &LogEntry, me: Option<Index>) -> Result<(u64, Roster), Invalid> {
        let commit = Commit::decode(&entry.commit).ok_or(Invalid::Rules)?;
        let is_spoiled = me.is_some_and(|me| commit.is_spoiled_for(me));
        if commit.parent != self.state() || is_spoiled {
            return Err(Invalid::Elsewhere);
        }
        let roster = match commit.kind {
            Kind::Member => self.after_member(entry, &commit),
            Kind::External => self.after_external(entry, &commit),
        };
        let state = hash(&[&entry.commit, &entry.authenticated_hash()]);
        Ok((state, roster.ok_or(Invalid::Rules)?))
    }

    fn after_member(&self, entry: &LogEntry, commit: &Commit) -> Option<Roster> {
        let (_, admin) = self.roster.get(&entry.author)?;
        let change = &entry.change;
        let is_allowed = *admin || !change.needs_admin();
        if !is_allowed || commit.clients.len() != change.add.len() {
            return None;
        }
        let mut roster = self.roster.clone();
        for (entry, client) in change.add.iter().zip(&commit.clients) {
            if roster
                .insert(entry.handle, (*client, entry.admin))
                .is_some()
            {
                return None;
            }
        }
        for handle in &change.remove {
            roster.remove(handle)?;
        }
        Some(roster)
    }

    /// Whoever rejoins takes its own leaf's place; whoever joins by link shows that it knows it.
    fn after_external(&self, entry: &LogEntry, commit: &Commit) -> Option<Roster> {
        let (change, author) = (&entry.change, entry.author);
        let &[client] = commit.clients.as_slice() else {
            return None;
        };
        if change.needs_admin() {
            return None;
        }
        let mut roster = self.roster.clone();
        match change.add.as_slice() {
            [] => {
                let (before, _) = roster.get(&author)?;
                (*before == client).then_some(roster)
            }
            [added] => {
                let knows_link = self.link.is_some_and(|link| link == commit.link);
                let is_itself = added.handle == author;
                let is_new = roster.insert(author, (client, false)).is_none();
                (knows_link && is_itself && is_new).then_some(roster)
            }
            _ => None,
        }
    }

    /// The newest GroupInfo that opens and that this device has reason to follow (decision 0602):
    /// that of an entry which it skipped may be anything that its author liked.
    pub(crate) fn newest_info(
        &self,
        out: &Outside,
        me: Index,
        infos: &[(u64, Bytes)],
    ) -> Option<Self> {
        let astray = self.is_astray(me) || out.has(Plant::AnyGroupInfo);
        let skipped = self.settled + 1..=self.position;
        newest(self.key, infos, |position| {
            position >= self.settled && (astray || !skipped.contains(&position))
        })
    }

    /// Whether the others have gone on without this device: commits of two of them do not fit, or of
    /// the only one.
    pub(crate) fn is_astray(&self, me: Index) -> bool {
        let others = self.roster.values().filter(|(client, _)| *client != me);
        let others: BTreeSet<Index> = others.map(|(client, _)| *client).collect();
        !self.doubts.is_empty() && self.doubts.len() >= others.len().min(2)
    }

    /// A group of somebody's own making that looks like this one.
    pub(crate) fn remade(&self, state: u64) -> Self {
        Self::new(
            self.position,
            state,
            (self.key, self.link),
            self.roster.clone(),
        )
    }

    /// The epoch for whoever was in none before.
    pub(crate) fn alone(&self) -> Self {
        self.remade(self.state())
    }

    /// The same epoch seen from a later position, in between which nothing took effect.
    pub(crate) const fn at(mut self, position: u64) -> Self {
        self.position = position;
        self
    }
}

/// The newest GroupInfo that opens, of the positions that count. Rubbish is passed over.
pub(crate) fn newest(
    key: u64,
    infos: &[(u64, Bytes)],
    counts: impl Fn(u64) -> bool,
) -> Option<Epoch> {
    let mut infos: Vec<_> = infos.iter().filter(|(at, _)| counts(*at)).collect();
    infos.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    let opened = |(position, sealed): &&(u64, Bytes)| open_info(key, *position, sealed);
    infos.iter().find_map(opened)
}

impl Member {
    /// A device's place from `epoch` on.
    pub(crate) fn new(
        hub: Domain,
        key: SigningKey,
        reference: SealedRef,
        (epoch, counter): (Epoch, u64),
    ) -> Self {
        Self {
            hub,
            key,
            reference,
            epoch,
            counter,
            out: None,
            behind: false,
            overtaken: false,
            compares: false,
            rejoins: false,
            told_fork: false,
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle::new(self.key.public())
    }

    /// A valid entry that the hub is never given.
    pub(crate) fn unseen_entry(&self, group: GroupId, nonce: u64) -> LogEntry {
        let commit = Commit {
            kind: Kind::Member,
            parent: self.epoch.state(),
            nonce,
            spoiled: 0,
            link: 0,
            clients: Vec::new(),
        };
        let [a, b, c, d, e, f, g, h] = nonce.to_be_bytes();
        LogEntry {
            group,
            position: self.epoch.position + 1,
            commit: commit.encode(),
            change: Change::default(),
            author: self.handle(),
            message: MessageId::new([a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0]),
        }
    }

    pub(crate) const fn is_in(&self) -> bool {
        self.out.is_none()
    }

    /// Whether something is to be asked of the hub before anything else.
    pub(crate) const fn is_busy(&self) -> bool {
        self.is_in() && (self.behind || self.compares || self.rejoins)
    }

    pub(crate) fn is_admin(&self) -> bool {
        let me = self.epoch.roster.get(&self.handle());
        me.is_some_and(|(_, admin)| *admin)
    }
}

/// What a commit on `epoch` leads to, to be computed before it is accepted.
pub(crate) fn next_epoch(
    epoch: &Epoch,
    (group, author): (GroupId, Handle),
    commit: &Bytes,
    change: &Change,
) -> Option<Epoch> {
    let entry = LogEntry {
        group,
        position: epoch.position + 1,
        commit: commit.clone(),
        change: change.clone(),
        author,
        message: MessageId::new([0; 16]),
    };
    let mut next = epoch.clone();
    (next.apply(&entry, None) == Applied::Advanced).then_some(next)
}
