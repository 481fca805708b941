//! A group without MLS: epochs are a chain of hashes, and everything else is as in CCP-1 section 5.
//!
//! A commit names the state that it follows; it is valid if that is the present one and its author
//! may do what it does. A message names the state that it is sealed under, and opens for whoever
//! has been in it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use commucat_crypto::signing::SigningKey;
use commucat_proto::frame::fanout::Change;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{Domain, GroupId, Handle, SealedRef};

use crate::judge::Text;
use crate::outside::Index;

/// Epochs whose messages still open.
const EPOCHS_KEPT: usize = 4;

/// A device's place in a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) hub: Domain,
    pub(crate) key: SigningKey,
    pub(crate) reference: SealedRef,
    pub(crate) epoch: Epoch,
    pub(crate) counter: u64,
    /// Not, or no longer, in the group.
    pub(crate) out: bool,
    /// Entries are missing.
    pub(crate) behind: bool,
    /// Something newer was seen since the log was asked for.
    pub(crate) overtaken: bool,
}

/// What all members of a group share.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    pub(crate) position: u64,
    states: VecDeque<u64>,
    /// States whose messages do not open any more.
    past: Vec<u64>,
    /// Who, and whether an admin.
    pub(crate) roster: BTreeMap<Handle, (Index, bool)>,
}

/// What an entry of the log came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Applied {
    Advanced,
    Skipped,
    Known,
    Gap,
}

/// A content under a state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Content {
    pub(crate) state: u64,
    pub(crate) author: u64,
    /// No two ciphertexts are the same.
    pub(crate) nonce: u64,
    pub(crate) text: Text,
}

impl Epoch {
    /// A new group with its creator.
    pub(crate) fn of_creator(group: &GroupId, handle: Handle, client: Index) -> Self {
        Self {
            position: 0,
            states: [hash(&[group.as_bytes()])].into(),
            past: Vec::new(),
            roster: [(handle, (client, true))].into(),
        }
    }

    pub(crate) fn state(&self) -> u64 {
        self.states.back().copied().unwrap_or(0)
    }

    /// Whether messages under `state` open.
    pub(crate) fn opens(&self, state: u64) -> bool {
        self.states.contains(&state)
    }

    /// Whether messages under `state` opened once: of one that comes too late the device is told.
    pub(crate) fn has_forgotten(&self, state: u64) -> bool {
        self.past.contains(&state)
    }

    /// Handles one entry of the log.
    pub(crate) fn apply(&mut self, entry: &LogEntry) -> Applied {
        if entry.position <= self.position {
            return Applied::Known;
        }
        if entry.position > self.position + 1 {
            return Applied::Gap;
        }
        self.position = entry.position;
        match self.after(entry) {
            Some((state, roster)) => {
                self.roster = roster;
                self.states.push_back(state);
                if self.states.len() > EPOCHS_KEPT {
                    self.past.extend(self.states.pop_front());
                }
                Applied::Advanced
            }
            None => Applied::Skipped,
        }
    }

    /// The state and the members after a commit; `None` if it is not valid.
    fn after(&self, entry: &LogEntry) -> Option<(u64, BTreeMap<Handle, (Index, bool)>)> {
        let (parent, rest) = entry.commit.split_first_chunk::<8>()?;
        let (_nonce, added) = rest.split_first_chunk::<8>()?;
        let (_, admin) = self.roster.get(&entry.author)?;
        let change = &entry.change;
        let is_allowed = *admin || !change.needs_admin();
        let (clients, odd) = added.as_chunks::<8>();
        let fits = odd.is_empty() && clients.len() == change.add.len();
        if u64::from_be_bytes(*parent) != self.state() || !is_allowed || !fits {
            return None;
        }
        let mut roster = self.roster.clone();
        for (entry, client) in change.add.iter().zip(clients) {
            let client = usize::try_from(u64::from_be_bytes(*client)).ok()?;
            if roster.insert(entry.handle, (client, entry.admin)).is_some() {
                return None;
            }
        }
        for handle in &change.remove {
            roster.remove(handle)?;
        }
        let state = hash(&[&entry.commit, &entry.authenticated_hash()]);
        Some((state, roster))
    }

    /// The commit that adds these clients on this state.
    pub(crate) fn commit(&self, nonce: u64, added: &[Index]) -> Bytes {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.state().to_be_bytes());
        bytes.extend_from_slice(&nonce.to_be_bytes());
        for client in added {
            let client = u64::try_from(*client).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&client.to_be_bytes());
        }
        bytes.into()
    }

    /// What lets others in at this epoch.
    pub(crate) fn welcome(&self) -> Bytes {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.state().to_be_bytes());
        for (handle, (client, admin)) in &self.roster {
            bytes.extend_from_slice(handle.as_bytes());
            let client = u64::try_from(*client).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&client.to_be_bytes());
            bytes.push(u8::from(*admin));
        }
        bytes.into()
    }

    /// The epoch that a Welcome leads to.
    pub(crate) fn of_welcome(position: u64, welcome: &[u8]) -> Option<Self> {
        let (state, rest) = welcome.split_first_chunk::<8>()?;
        let (people, odd) = rest.as_chunks::<41>();
        let person = |raw: &[u8; 41]| {
            let (handle, rest) = raw.split_first_chunk::<32>()?;
            let (client, admin) = rest.split_first_chunk::<8>()?;
            let client = usize::try_from(u64::from_be_bytes(*client)).ok()?;
            Some((Handle::new(*handle), (client, admin == [1])))
        };
        Some(Self {
            position,
            states: [u64::from_be_bytes(*state)].into(),
            past: Vec::new(),
            roster: people.iter().map(person).collect::<Option<_>>()?,
        })
        .filter(|_| odd.is_empty())
    }
}

impl Content {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let words = [self.state, self.author, self.nonce, self.text];
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, odd) = bytes.as_chunks::<8>();
        let [state, author, nonce, text] = words else {
            return None;
        };
        odd.is_empty().then_some(Self {
            state: u64::from_be_bytes(*state),
            author: u64::from_be_bytes(*author),
            nonce: u64::from_be_bytes(*nonce),
            text: u64::from_be_bytes(*text),
        })
    }
}

impl Member {
    pub(crate) fn handle(&self) -> Handle {
        Handle::new(self.key.public())
    }

    pub(crate) fn is_admin(&self) -> bool {
        let me = self.epoch.roster.get(&self.handle());
        me.is_some_and(|(_, admin)| *admin)
    }
}

/// An entry that would follow on `epoch`, to compute what it leads to before it is accepted.
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
        message: commucat_proto::id::MessageId::new([0; 16]),
    };
    let mut next = epoch.clone();
    (next.apply(&entry) == Applied::Advanced).then_some(next)
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
