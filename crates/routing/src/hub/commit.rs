//! KEY_UPDATE: compare-and-swap on the log's position, and what a commit does to the list.

use std::collections::HashSet;

use commucat_proto::id::{Domain, Handle, SealedRef};

use super::Refusal;
use super::group::{Author, Entry, Group, JoinKey};

/// What the hub reads of a bundle; the rest is opaque to it.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    /// The head that the author has seen.
    pub expect: u64,
    /// Key 7.
    pub author: &'a Handle,
    /// The KEY_UPDATE's key 2.
    pub sealed_ref: &'a SealedRef,
    /// The domain that the request came from, authenticated.
    pub origin: &'a Domain,
    /// Entries to add.
    pub add: &'a [Entry],
    /// Handles to remove.
    pub remove: &'a [Handle],
    /// New admin flags.
    pub admins: &'a [(Handle, bool)],
    /// The handles of each Welcome.
    pub welcomes: &'a [Vec<Handle>],
    /// What becomes of the join key.
    pub join_key: JoinKeyChange,
    /// Whether the group is closed.
    pub close: bool,
    /// The position that the first message names, if there is one.
    pub first_message: Option<u64>,
}

/// Change of the join key by a commit.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum JoinKeyChange {
    /// As it was.
    #[default]
    Keep,
    /// None is in force.
    Clear,
    /// This one.
    Set(JoinKey),
}

/// The key under which a bundle has to verify.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Signer {
    /// The author's handle, with the purpose `commit`.
    Member,
    /// The join key in force, with the purpose `join commit`.
    Joiner(JoinKey),
}

/// What the log says of the position that a bundle asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Past {
    /// Its entry has the same body: the bundle was accepted before.
    Same,
    /// There is no such entry, or it is another one.
    Other,
}

/// One recipient of an accepted commit: first its Welcome, then the entry, then the message.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Recipient {
    /// Its entry, as added or as it was.
    pub entry: Entry,
    /// Which of the bundle's Welcomes is for it.
    pub welcome: Option<usize>,
    /// Whether it gets the bundle's first message; those removed do not.
    pub message: bool,
}

/// What an accepted commit does, at `position`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The new head.
    pub position: u64,
    /// The group afterwards.
    pub group: Group,
    /// All but the author, those removed included.
    pub recipients: Vec<Recipient>,
}

/// What became of a bundle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Committed {
    /// Apply this if the head is still what it was.
    Apply(Box<Change>),
    /// It is the entry at this position already: answer as the first time.
    Repeat {
        /// Its position.
        position: u64,
    },
}

/// Which key the bundle has to verify under (decision 0801, 19).
///
/// # Errors
///
/// [`Refusal::NotFound`] if the author is not in the list and no join key is in force.
pub fn signer(group: &Group, author: &Handle) -> Result<Signer, Refusal> {
    if group.entry(author).is_some() {
        return Ok(Signer::Member);
    }
    group.join_key.map(Signer::Joiner).ok_or(Refusal::NotFound)
}

/// Decides on a bundle whose signature verified under `signer`'s key (CCP-1 sections 5.2 and 5.4).
///
/// `past` is what the log holds at `expect + 1`.
///
/// # Errors
///
/// [`Refusal`]; nothing changes. `Conflict` goes out with the missing entries.
pub fn commit(
    group: &Group,
    proposal: &Proposal<'_>,
    signer: Signer,
    past: Past,
) -> Result<Committed, Refusal> {
    let position = proposal.expect.saturating_add(1);
    if past == Past::Same && position <= group.head {
        return Ok(Committed::Repeat { position });
    }
    if group.closed {
        return Err(Refusal::NotFound);
    }
    check_author(group, proposal, signer)?;
    if proposal.expect != group.head {
        return Err(Refusal::Conflict { head: group.head });
    }
    check_rights(group, proposal, signer)?;
    let after = apply(group, proposal, position)?;
    let recipients = recipients(group, proposal)?;
    Ok(Committed::Apply(Box::new(Change {
        position,
        group: after,
        recipients,
    })))
}

/// Strangers learn nothing, not even the head.
fn check_author(group: &Group, proposal: &Proposal<'_>, signer: Signer) -> Result<(), Refusal> {
    match signer {
        Signer::Member => {
            let author = Author {
                handle: proposal.author,
                sealed_ref: proposal.sealed_ref,
                origin: proposal.origin,
            };
            group.authorise(author).map(|_| ())
        }
        Signer::Joiner(key) => {
            let is_new = group.entry(proposal.author).is_none();
            if is_new && group.join_key == Some(key) {
                Ok(())
            } else {
                Err(Refusal::NotFound)
            }
        }
    }
}

fn check_rights(group: &Group, proposal: &Proposal<'_>, signer: Signer) -> Result<(), Refusal> {
    let changes_more = !proposal.remove.is_empty()
        || !proposal.admins.is_empty()
        || proposal.join_key != JoinKeyChange::Keep
        || proposal.close;
    match signer {
        Signer::Member => {
            let is_admin = group
                .entry(proposal.author)
                .is_some_and(|entry| entry.admin);
            let makes_admins = proposal.add.iter().any(|entry| entry.admin);
            if !is_admin && (changes_more || makes_admins) {
                return Err(Refusal::Forbidden("only an admin's commit may do this"));
            }
        }
        Signer::Joiner(_) => {
            let adds_itself_only = matches!(proposal.add, [entry]
                if entry.handle == *proposal.author
                    && entry.domain == *proposal.origin
                    && entry.sealed_ref == *proposal.sealed_ref
                    && !entry.admin);
            if !adds_itself_only || changes_more || !proposal.welcomes.is_empty() {
                return Err(Refusal::Forbidden(
                    "a join commit adds its author and nothing else",
                ));
            }
        }
    }
    Ok(())
}

fn apply(group: &Group, proposal: &Proposal<'_>, position: u64) -> Result<Group, Refusal> {
    if proposal
        .first_message
        .is_some_and(|named| named != position)
    {
        return Err(Refusal::Invalid("the first message names another position"));
    }
    let mut after = group.clone();
    after.head = position;
    let mut touched = HashSet::new();
    for entry in proposal.add {
        if !touched.insert(entry.handle) || after.entry(&entry.handle).is_some() {
            return Err(Refusal::Invalid("a handle is added twice"));
        }
        after.gone.retain(|gone| *gone != entry.handle);
        after.list.push(entry.clone());
    }
    for handle in proposal.remove {
        if !touched.insert(*handle) {
            return Err(Refusal::Invalid(
                "a handle is removed twice, or added and removed",
            ));
        }
        if group.entry(handle).is_none() && !group.gone.contains(handle) {
            return Err(Refusal::Invalid("a handle is removed without being there"));
        }
        after.list.retain(|entry| entry.handle != *handle);
        // The members may not be able to read the commit: then the leaf is there still, and goes later.
        after.remember_gone([*handle]);
    }
    let mut flagged = HashSet::new();
    for (handle, admin) in proposal.admins {
        if !flagged.insert(*handle) {
            return Err(Refusal::Invalid("an admin flag is set twice"));
        }
        match after.list.iter_mut().find(|entry| entry.handle == *handle) {
            Some(entry) => entry.admin = *admin,
            None if group.gone.contains(handle) => {}
            None => {
                return Err(Refusal::Invalid(
                    "an admin flag is set for a handle not there",
                ));
            }
        }
    }
    match proposal.join_key {
        JoinKeyChange::Keep => {}
        JoinKeyChange::Clear => after.join_key = None,
        JoinKeyChange::Set(key) => after.join_key = Some(key),
    }
    after.check_size()?;
    after.closed |= proposal.close;
    after.settle();
    Ok(after)
}

fn recipients(group: &Group, proposal: &Proposal<'_>) -> Result<Vec<Recipient>, Refusal> {
    let mut recipients: Vec<Recipient> = group
        .list
        .iter()
        .chain(proposal.add)
        .filter(|entry| entry.handle != *proposal.author)
        .map(|entry| Recipient {
            entry: entry.clone(),
            welcome: None,
            message: proposal.first_message.is_some() && !proposal.remove.contains(&entry.handle),
        })
        .collect();
    for (index, handles) in proposal.welcomes.iter().enumerate() {
        for handle in handles {
            let is_added = proposal.add.iter().any(|entry| entry.handle == *handle);
            let recipient = recipients
                .iter_mut()
                .find(|recipient| recipient.entry.handle == *handle);
            match recipient {
                Some(recipient) if is_added && recipient.welcome.is_none() => {
                    recipient.welcome = Some(index);
                }
                _ => {
                    return Err(Refusal::Invalid(
                        "a Welcome goes once, to a handle in `add`",
                    ));
                }
            }
        }
    }
    Ok(recipients)
}
