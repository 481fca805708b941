//! A group as its hub knows it, and what the list alone decides.

use std::collections::HashSet;
use std::time::Duration;

use commucat_proto::id::{Domain, Handle, SealedRef};
use commucat_proto::time::Timestamp;

use super::Refusal;

/// The public key that join commits and join reads are signed by while it is in force.
pub type JoinKey = [u8; 32];

/// `limits.group_handles`: entries of one list.
pub const HANDLES_MAX: usize = 256;

/// Home domains of one list.
pub const DOMAINS_MAX: usize = 64;

/// Handles that were in a list and are remembered.
const GONE_KEPT: usize = 256;

/// A MSG may be sealed this many entries before the head, not more.
pub const EPOCHS_OPEN: u64 = 2;

/// How far a join read's `created` may be from the hub's clock.
pub const JOIN_READ_WINDOW: Duration = Duration::from_secs(15 * 60);

/// One entry of a fan-out list (CCP-1 section 5.0).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Entry {
    /// The pseudonym.
    pub handle: Handle,
    /// Its home domain.
    pub domain: Domain,
    /// Its queue, sealed by its home domain.
    pub sealed_ref: SealedRef,
    /// Whether its commits may remove others.
    pub admin: bool,
}

/// A group.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Group {
    /// The position of the last log entry; 0 before the first.
    pub head: u64,
    /// The list, in the order in which its entries were added.
    pub list: Vec<Entry>,
    /// Handles that were in the list, oldest first: commits may still remove their leaves.
    pub gone: Vec<Handle>,
    /// The join key in force.
    pub join_key: Option<JoinKey>,
    /// It takes no more commits and messages.
    pub closed: bool,
}

/// Who asks: all three must be one entry of the list.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// The handle named.
    pub handle: &'a Handle,
    /// The reference named.
    pub sealed_ref: &'a SealedRef,
    /// The domain that the request came from, authenticated.
    pub origin: &'a Domain,
}

/// Whether a group may lag behind the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// From memory: others may have changed it since.
    Cache,
    /// Just read from the store.
    Store,
}

/// Whether a MSG may go to everyone but its author.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It may.
    Granted,
    /// The group in hand may be too old for it: read the store and ask again.
    Reload,
}

/// What to do with a MSG.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fanout<'a> {
    /// Give it to these, all but the author.
    To(Vec<&'a Entry>),
    /// The group in hand may be too old for it: read the store and ask again.
    Reload,
}

/// What follows from entries that are gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Departure {
    /// The group afterwards; closed if nobody is left.
    pub group: Group,
    /// Those of the handles that were in the list: GROUP_EVENT `gone` names them.
    pub removed: Vec<Handle>,
}

impl Group {
    /// A new group: exactly one entry, an admin of the hub's own domain (CCP-1 section 5.1).
    ///
    /// Whether the id is taken and whether the reference opens is for the caller.
    ///
    /// # Errors
    ///
    /// [`Refusal::Invalid`] otherwise.
    pub fn create(
        fanout: &[Entry],
        hub: &Domain,
        join_key: Option<JoinKey>,
    ) -> Result<Self, Refusal> {
        match fanout {
            [creator] if creator.admin && creator.domain == *hub => Ok(Self {
                list: vec![creator.clone()],
                join_key,
                ..Self::default()
            }),
            [_] => Err(Refusal::Invalid(
                "the creator is an admin of the hub's own domain",
            )),
            _ => Err(Refusal::Invalid("a new group has exactly one entry")),
        }
    }

    /// The entry of a handle.
    #[must_use]
    pub fn entry(&self, handle: &Handle) -> Option<&Entry> {
        self.list.iter().find(|entry| entry.handle == *handle)
    }

    /// The author's entry, if handle, reference and origin are one entry of an open group. Decides
    /// `submit`, FETCH, fork tags and KEY_UPDATE.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotFound`] otherwise.
    pub fn authorise(&self, author: Author<'_>) -> Result<&Entry, Refusal> {
        self.entry(author.handle)
            .filter(|entry| {
                !self.closed
                    && entry.sealed_ref == *author.sealed_ref
                    && entry.domain == *author.origin
            })
            .ok_or(Refusal::NotFound)
    }

    /// Whether a MSG that was sealed at log position `position` may go to all but its author (CCP-1
    /// section 5.3).
    ///
    /// The list used is of that position or newer; a cached group that is older, or does not know
    /// the author, is to be read again first.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotFound`] for strangers and removed authors, [`Refusal::EpochOld`] and
    /// [`Refusal::Conflict`] for a position too far below or above the head.
    pub fn admit(
        &self,
        author: Author<'_>,
        position: u64,
        source: Source,
    ) -> Result<Admission, Refusal> {
        if let Err(refusal) = self.authorise(author) {
            return match source {
                Source::Cache => Ok(Admission::Reload),
                Source::Store => Err(refusal),
            };
        }
        if position > self.head {
            return match source {
                Source::Cache => Ok(Admission::Reload),
                Source::Store => Err(Refusal::Conflict { head: self.head }),
            };
        }
        if position.saturating_add(EPOCHS_OPEN) < self.head {
            return Err(Refusal::EpochOld);
        }
        Ok(Admission::Granted)
    }

    /// Who gets a MSG, by [`Group::admit`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn fanout(
        &self,
        author: Author<'_>,
        position: u64,
        source: Source,
    ) -> Result<Fanout<'_>, Refusal> {
        Ok(match self.admit(author, position, source)? {
            Admission::Granted => Fanout::To(self.all_but(author.handle)),
            Admission::Reload => Fanout::Reload,
        })
    }

    /// Everyone except one: who gets ephemeral frames, `gone` and `closed`.
    #[must_use]
    pub fn all_but(&self, handle: &Handle) -> Vec<&Entry> {
        self.list
            .iter()
            .filter(|entry| entry.handle != *handle)
            .collect()
    }

    /// Whether a join read (signature verified under [`Group::join_key`] by the caller) is granted:
    /// head and GroupInfo only, within 15 minutes of the hub's clock (CCP-1 section 5.4).
    ///
    /// # Errors
    ///
    /// [`Refusal::NotFound`] without a join key in force, [`Refusal::Forbidden`] outside the window
    /// or if it wants more.
    pub fn may_join_read(
        &self,
        created: Timestamp,
        now: Timestamp,
        wants_more: bool,
    ) -> Result<(), Refusal> {
        if self.closed || self.join_key.is_none() {
            return Err(Refusal::NotFound);
        }
        let apart = u128::from(created.as_millis().abs_diff(now.as_millis()));
        if apart > JOIN_READ_WINDOW.as_millis() {
            return Err(Refusal::Forbidden("a join read is made within 15 minutes"));
        }
        if wants_more {
            return Err(Refusal::Forbidden(
                "a join read grants head and GroupInfo only",
            ));
        }
        Ok(())
    }

    /// Removes entries whose references are gone, at once (CCP-1 section 5.2).
    #[must_use]
    pub fn depart(&self, handles: &[Handle]) -> Departure {
        let mut group = self.clone();
        let (gone, stay): (Vec<Entry>, Vec<Entry>) = group
            .list
            .into_iter()
            .partition(|entry| handles.contains(&entry.handle));
        group.list = stay;
        let removed: Vec<Handle> = gone.into_iter().map(|entry| entry.handle).collect();
        group.remember_gone(removed.iter().copied());
        group.settle();
        Departure { group, removed }
    }

    pub(super) fn remember_gone(&mut self, handles: impl IntoIterator<Item = Handle>) {
        for handle in handles {
            if !self.gone.contains(&handle) {
                self.gone.push(handle);
            }
        }
        let more = self.gone.len().saturating_sub(GONE_KEPT);
        self.gone.drain(..more);
    }

    /// What holds of every list: without an admin all are; without anybody it is closed.
    pub(super) fn settle(&mut self) {
        if !self.list.iter().any(|entry| entry.admin) {
            for entry in &mut self.list {
                entry.admin = true;
            }
        }
        self.closed |= self.list.is_empty();
    }

    pub(super) fn check_size(&self) -> Result<(), Refusal> {
        if self.list.len() > HANDLES_MAX {
            return Err(Refusal::Invalid("a group has at most 256 handles"));
        }
        let domains: HashSet<&Domain> = self.list.iter().map(|entry| &entry.domain).collect();
        if domains.len() > DOMAINS_MAX {
            return Err(Refusal::Invalid(
                "a group has handles of at most 64 domains",
            ));
        }
        Ok(())
    }
}
