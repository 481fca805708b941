//! What stands for MLS's bytes: commits, GroupInfos, Welcomes and contents, as words.

use bytes::Bytes;
use commucat_proto::id::Handle;

use super::group::{Epoch, Roster};
use crate::judge::Text;
use crate::outside::Index;

/// Whether a commit is a member's, or comes from outside: of whoever rejoins or joins by link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Member,
    External,
}

/// A commit: it names the state that it follows, and is of no use on any other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Commit {
    pub(crate) kind: Kind,
    pub(crate) parent: u64,
    /// No two commits are the same.
    pub(crate) nonce: u64,
    /// The devices that cannot read it, one bit each: a committer may put rubbish into some of an
    /// update path's secrets and good ones into others.
    pub(crate) spoiled: u64,
    /// What shows that a joiner knows the group's link; 0 for all others.
    pub(crate) link: u64,
    /// The devices of `add`, or the one that comes from outside.
    pub(crate) clients: Vec<Index>,
}

impl Commit {
    pub(crate) fn encode(&self) -> Bytes {
        let kind = match self.kind {
            Kind::Member => 0,
            Kind::External => 1,
        };
        let head = [kind, self.parent, self.nonce, self.spoiled, self.link];
        let clients = self.clients.iter().map(|client| word(*client));
        words(head.into_iter().chain(clients)).into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let read = unwords(bytes)?;
        let (&[kind, parent, nonce, spoiled, link], clients) = read.split_first_chunk::<5>()?;
        Some(Self {
            kind: match kind {
                0 => Kind::Member,
                1 => Kind::External,
                _ => return None,
            },
            parent,
            nonce,
            spoiled,
            link,
            clients: clients.iter().map(|client| index(*client)).collect(),
        })
    }

    /// Whether this device cannot read it.
    pub(crate) fn is_spoiled_for(&self, device: Index) -> bool {
        self.spoiled & bit(device) != 0
    }
}

/// The bit of a device in [`Commit::spoiled`].
pub(crate) fn bit(device: Index) -> u64 {
    u32::try_from(device).map_or(0, |device| 1_u64.checked_shl(device).unwrap_or(0))
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

impl Content {
    pub(crate) fn encode(&self) -> Vec<u8> {
        words([self.state, self.author, self.nonce, self.text])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let read = unwords(bytes)?;
        let &[state, author, nonce, text] = read.as_slice() else {
            return None;
        };
        Some(Self {
            state,
            author,
            nonce,
            text,
        })
    }
}

/// What lets others in at an epoch: its state, its key, its link and who is there.
pub(crate) fn welcome(epoch: &Epoch) -> Bytes {
    let link = epoch.link.unwrap_or(0);
    let mut bytes = words([epoch.state(), epoch.key, link]);
    write_roster(&mut bytes, &epoch.roster);
    bytes.into()
}

/// The epoch that a Welcome leads to.
pub(crate) fn of_welcome(position: u64, welcome: &[u8]) -> Option<Epoch> {
    let (head, roster) = welcome.split_first_chunk::<24>()?;
    let &[state, key, link] = unwords(head)?.as_slice() else {
        return None;
    };
    let link = (link != 0).then_some(link);
    Some(Epoch::new(
        position,
        state,
        (key, link),
        read_roster(roster)?,
    ))
}

/// A GroupInfo, sealed under the group's key for one position.
pub(crate) fn group_info(epoch: &Epoch, position: u64) -> Bytes {
    let link = epoch.link.unwrap_or(0);
    let mut bytes = words([seal(epoch.key, position), epoch.state(), link]);
    write_roster(&mut bytes, &epoch.roster);
    bytes.into()
}

/// The epoch that a GroupInfo is of, if it opens under `key`.
pub(crate) fn open_info(key: u64, position: u64, sealed: &[u8]) -> Option<Epoch> {
    let (head, roster) = sealed.split_first_chunk::<24>()?;
    let &[sealed, state, link] = unwords(head)?.as_slice() else {
        return None;
    };
    let link = (link != 0).then_some(link);
    let opens = sealed == seal(key, position);
    let roster = read_roster(roster).filter(|_| opens)?;
    Some(Epoch::new(position, state, (key, link), roster))
}

fn seal(key: u64, position: u64) -> u64 {
    hash(&[b"seal", &key.to_be_bytes(), &position.to_be_bytes()])
}

fn write_roster(bytes: &mut Vec<u8>, roster: &Roster) {
    for (handle, (client, admin)) in roster {
        bytes.extend_from_slice(handle.as_bytes());
        bytes.extend_from_slice(&word(*client).to_be_bytes());
        bytes.push(u8::from(*admin));
    }
}

fn read_roster(bytes: &[u8]) -> Option<Roster> {
    let (people, odd) = bytes.as_chunks::<41>();
    let person = |raw: &[u8; 41]| {
        let (handle, rest) = raw.split_first_chunk::<32>()?;
        let (client, admin) = rest.split_first_chunk::<8>()?;
        let client = index(u64::from_be_bytes(*client));
        Some((Handle::new(*handle), (client, admin == [1])))
    };
    let roster = people.iter().map(person).collect::<Option<_>>()?;
    odd.is_empty().then_some(roster)
}

fn words(all: impl IntoIterator<Item = u64>) -> Vec<u8> {
    all.into_iter().flat_map(u64::to_be_bytes).collect()
}

fn unwords(bytes: &[u8]) -> Option<Vec<u64>> {
    let (all, odd) = bytes.as_chunks::<8>();
    let read = all.iter().map(|word| u64::from_be_bytes(*word)).collect();
    odd.is_empty().then_some(read)
}

fn word(index: Index) -> u64 {
    u64::try_from(index).unwrap_or(u64::MAX)
}

fn index(word: u64) -> Index {
    usize::try_from(word).unwrap_or(usize::MAX)
}

pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
