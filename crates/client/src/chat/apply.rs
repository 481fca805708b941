//! The log of a group: entries in the order of their positions, the same for all members.

use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{GroupId, Handle};
use openmls::group::{MlsGroup, ProcessMessageError};
use openmls::prelude::{
    ContentType, MlsMessageBodyIn, ProcessedMessage, ProcessedMessageContent, ProtocolMessage,
};
use openmls_traits::OpenMlsProvider as _;

use super::device::{self, Leaf};
use super::intent::Intent;
use super::profile::Context;
use super::record::{Doubts, Pending, PendingKind, Record, State};
use super::validity::Case;
use super::view::Member;
use super::{Chat, ChatError, Invalid, keys};

/// Exporter label of the fork tag (CCP-1 section 5.2).
const TAG_LABEL: &str = "commucat fork tag";
const TAG_BYTES: usize = 16;

/// What became of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Applied {
    /// The group is in a new epoch. Messages kept for a later epoch may open now.
    Advanced(Box<Advance>),
    /// All members skip it: it used up its position and changed nothing. Report an empty tag.
    Skipped(Invalid),
    /// A copy that would be skipped: it changed nothing. FETCH from its position, and apply what is
    /// there.
    Unconfirmed(Invalid),
    /// There is nothing to do: the position was handled before, or this device is not a member.
    Known,
    /// Entries before it are missing: FETCH from this position, and apply it again after them.
    Gap(u64),
    /// This device was removed; its last frame. Nothing more can be sealed or opened.
    Removed(Box<Advance>),
}

/// Where an entry is from.
#[derive(Clone, Copy)]
enum Source {
    /// The hub's answer to a request that names it.
    Hub,
    /// The queue, into which other domains put frames too.
    Queue,
}

/// A step to a new epoch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Advance {
    /// Position of the entry.
    pub position: u64,
    /// The new epoch.
    pub epoch: u64,
    /// Who changed the group; none if it joined by this very commit and is not in the tree.
    pub author: Option<Member>,
    /// Whether this device was the author.
    pub own: bool,
    /// Whether this device came back by it from a history that the others may not have: what it sealed
    /// before, they may not be able to open.
    pub rejoined: bool,
    /// Devices that are members now.
    pub added: Vec<Member>,
    /// Devices that are not members any more.
    pub removed: Vec<Member>,
    /// Whether roles or the rule for joining changed.
    pub roles_changed: bool,
    /// Whether the group was closed.
    pub closed: bool,
    /// The tag to report for `position`; none for whoever was removed.
    pub tag: Option<[u8; TAG_BYTES]>,
}

impl Chat {
    /// The hub accepted the commit of [`Chat::propose`] (or of an external commit) at `position`.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotProposed`] if no commit waits for this position.
    pub fn accepted(&mut self, group: &GroupId, position: u64) -> Result<Applied, ChatError> {
        let record = self.record(group)?;
        if record.state != State::Joining && position <= record.position {
            return Ok(Applied::Known);
        }
        match &record.pending {
            Some(pending) if pending.expect.checked_add(1) == Some(position) => {}
            _ => return Err(ChatError::NotProposed(position)),
        }
        self.attempt(group, |chat| chat.merge_own(record, position))
    }

    /// Handles an entry of the group's log, as the hub gave it: by FETCH or with a `Conflict`.
    ///
    /// # Errors
    ///
    /// [`ChatError::UnknownGroup`], [`ChatError::Store`]. An entry that is not valid is
    /// [`Applied::Skipped`], not an error.
    pub fn apply(&mut self, entry: &LogEntry) -> Result<Applied, ChatError> {
        self.apply_from(Source::Hub, entry)
    }

    /// Handles a copy of an entry, from the queue. Its frame does not say which domain sent it, so one
    /// that does not fit uses up neither the position nor the key that it is encrypted with.
    ///
    /// # Errors
    ///
    /// Those of [`Chat::apply`]. A copy that is not valid is [`Applied::Unconfirmed`].
    pub fn apply_copy(&mut self, entry: &LogEntry) -> Result<Applied, ChatError> {
        match self.apply_from(Source::Queue, entry) {
            Err(ChatError::Copy(invalid)) => Ok(Applied::Unconfirmed(invalid)),
            other => other,
        }
    }

    fn apply_from(&mut self, source: Source, entry: &LogEntry) -> Result<Applied, ChatError> {
        let group = entry.group;
        let record = self.record(&group)?;
        let own = record
            .pending
            .as_ref()
            .is_some_and(|p| p.expect + 1 == entry.position && p.commit == *entry.commit);
        if own && (record.state == State::Joining || external(&record)) {
            return self.attempt(&group, |chat| chat.merge_own(record, entry.position));
        }
        match record.state {
            State::Joining | State::Removed | State::Closed => return Ok(Applied::Known),
            State::Member => {}
        }
        if entry.position <= record.position {
            return Ok(Applied::Known);
        }
        let next = record.position + 1;
        if entry.position != next {
            return Ok(Applied::Gap(next));
        }
        if own {
            return self.attempt(&group, |chat| chat.merge_own(record, entry.position));
        }
        self.attempt(&group, |chat| chat.handle(record, source, entry))
    }

    /// The fork tag of the current epoch, as [`Advance::tag`] had it.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotMember`].
    pub fn fork_tag(&mut self, group: &GroupId) -> Result<[u8; TAG_BYTES], ChatError> {
        self.record(group)?.member()?;
        let mls = self.take(group)?;
        let tag = self.tag(&mls)?;
        self.put_back(*group, mls);
        Ok(tag)
    }

    fn merge_own(&mut self, mut record: Record, position: u64) -> Result<Applied, ChatError> {
        let Some(pending) = record.pending.take() else {
            return Err(ChatError::NotProposed(position));
        };
        let group = record.group;
        let before = match record.state {
            State::Member => Some(Before::of(&self.take(&group)?)?),
            State::Joining | State::Removed | State::Closed => None,
        };
        let closed = pending.close;
        let rejoined = before.is_some() && pending.is_external();
        if let Some(seed) = pending.join_seed {
            record.join_seed = seed;
        }
        let mls = match pending.kind {
            PendingKind::Intent => {
                let mut mls = self.take_stored(&group)?;
                mls.merge_pending_commit(&self.provider)
                    .map_err(ChatError::mls("merge"))?;
                if !record.intents.is_empty() {
                    record.intents.remove(0);
                }
                // A plain member that removes the last admins may replace the join key only afterwards.
                if let Some(before) = &before
                    && before.left_join_key_to(&Before::of(&mls)?)
                {
                    record.intents.insert(0, Intent::AllowJoin);
                }
                mls
            }
            PendingKind::External(values) => {
                if let Some(mut old) = self.provider.group(&group)? {
                    old.delete(self.provider.store())?;
                }
                let values = values
                    .into_iter()
                    .map(|(key, value)| (key, value.into()))
                    .collect();
                self.provider.store().import(values);
                self.take_stored(&group)?
            }
        };
        record.position = position;
        record.settled = position;
        record.doubts = Doubts::default();
        record.state = if closed { State::Closed } else { State::Member };
        let author = record.own_handle();
        let advance = self.advance(&record, &mls, before.as_ref(), &author)?;
        record.save(self.provider.store())?;
        self.put_back(group, mls);
        Ok(Applied::Advanced(Box::new(Advance {
            own: true,
            rejoined,
            closed,
            ..advance
        })))
    }

    /// The group as the store has it, whatever the cache holds.
    fn take_stored(&mut self, group: &GroupId) -> Result<MlsGroup, ChatError> {
        self.groups.remove(group);
        self.take(group)
    }

    fn handle(
        &mut self,
        mut record: Record,
        source: Source,
        entry: &LogEntry,
    ) -> Result<Applied, ChatError> {
        let group = record.group;
        let mut mls = self.take(&group)?;
        let before = Before::of(&mls)?;
        let outcome = self.stage(&mut mls, &before, entry)?;
        if let (Source::Queue, Err(invalid)) = (source, &outcome) {
            return Err(ChatError::Copy(*invalid));
        }
        // Whatever the entry is, a commit of ours for this position has lost.
        if record
            .pending
            .take()
            .is_some_and(|lost| matches!(lost.kind, PendingKind::Intent))
        {
            mls.clear_pending_commit(self.provider.store())?;
        }
        record.position = entry.position;
        let staged = match outcome {
            Err(invalid) => {
                let author = before
                    .leaves
                    .iter()
                    .find(|leaf| leaf.handle == entry.author);
                let own = record.own_handle();
                record.doubts.note(invalid, author, &own);
                record.save(self.provider.store())?;
                self.put_back(group, mls);
                return Ok(Applied::Skipped(invalid));
            }
            Ok(staged) => staged,
        };
        record.settled = entry.position;
        record.doubts = Doubts::default();
        mls.merge_staged_commit(&self.provider, *staged)
            .map_err(ChatError::mls("merge"))?;
        record.state = match (mls.is_active(), entry.change.close) {
            (false, _) => State::Removed,
            (true, true) => State::Closed,
            (true, false) => State::Member,
        };
        if !mls.is_active() {
            record.intents.clear();
        }
        let advance = self.advance(&record, &mls, Some(&before), &entry.author)?;
        let advance = Box::new(Advance {
            closed: entry.change.close,
            ..advance
        });
        record.save(self.provider.store())?;
        self.put_back(group, mls);
        Ok(match record.state {
            State::Removed => Applied::Removed(advance),
            State::Joining | State::Member | State::Closed => Applied::Advanced(advance),
        })
    }

    /// Decrypts and checks a commit without merging it.
    fn stage(
        &self,
        mls: &mut MlsGroup,
        before: &Before,
        entry: &LogEntry,
    ) -> Result<Result<Box<openmls::group::StagedCommit>, Invalid>, ChatError> {
        let message = match unframe(&before.context, entry) {
            Ok(message) => message,
            Err(invalid) => return Ok(Err(invalid)),
        };
        if message.epoch() != mls.epoch() {
            return Ok(Err(Invalid::Epoch));
        }
        let processed = match mls.process_message(&self.provider, message) {
            Ok(processed) => processed,
            Err(ProcessMessageError::StorageError(error)) => return Err(error.into()),
            Err(_) => return Ok(Err(Invalid::Mls)),
        };
        Ok(judge(mls, processed, entry))
    }

    /// What a merge changed, and the fork tag of the new epoch.
    fn advance(
        &self,
        record: &Record,
        mls: &MlsGroup,
        before: Option<&Before>,
        author: &Handle,
    ) -> Result<Advance, ChatError> {
        let after = Before::of(mls)?;
        let known = before
            .map(|before| before.leaves.as_slice())
            .unwrap_or_default();
        let missing_in =
            |all: &[Leaf], leaf: &Leaf| !all.iter().any(|other| other.handle == leaf.handle);
        let member = |leaf: &Leaf| after.member(leaf);
        let mut everyone = after.leaves.iter().chain(known);
        let author = everyone.find(|leaf| leaf.handle == *author).map(member);
        let tag = match record.state {
            State::Removed => None,
            State::Joining | State::Member | State::Closed => Some(self.tag(mls)?),
        };
        let roles = before.map(|before| &before.context.roles);
        Ok(Advance {
            position: record.position,
            epoch: mls.epoch().as_u64(),
            author,
            own: false,
            rejoined: false,
            added: after
                .leaves
                .iter()
                .filter(|l| missing_in(known, l))
                .map(member)
                .collect(),
            removed: known
                .iter()
                .filter(|l| missing_in(&after.leaves, l))
                .map(member)
                .collect(),
            roles_changed: roles != Some(&after.context.roles),
            closed: false,
            tag,
        })
    }

    fn tag(&self, mls: &MlsGroup) -> Result<[u8; TAG_BYTES], ChatError> {
        let tag = mls
            .export_secret(self.provider.crypto(), TAG_LABEL, &[], TAG_BYTES)
            .map_err(ChatError::mls("fork tag"))?;
        tag.try_into().map_err(|_| ChatError::Encode("fork tag"))
    }
}

fn external(record: &Record) -> bool {
    record.pending.as_ref().is_some_and(Pending::is_external)
}

fn judge(
    mls: &MlsGroup,
    processed: ProcessedMessage,
    entry: &LogEntry,
) -> Result<Box<openmls::group::StagedCommit>, Invalid> {
    let (sender, aad) = (processed.sender().clone(), processed.aad().to_vec());
    match processed.into_content() {
        ProcessedMessageContent::StagedCommitMessage(staged) => {
            let case = Case {
                group: mls,
                staged: &staged,
                sender: &sender,
                aad: &aad,
                hash: entry.authenticated_hash(),
                change: &entry.change,
                author: &entry.author,
            };
            case.check().map(|()| staged)
        }
        ProcessedMessageContent::OwnPrivateMessage | ProcessedMessageContent::OwnPendingCommit => {
            Err(Invalid::NotOurs)
        }
        ProcessedMessageContent::ApplicationMessage(_)
        | ProcessedMessageContent::ProposalMessage(_)
        | ProcessedMessageContent::ExternalJoinProposalMessage(_) => Err(Invalid::Framing),
    }
}

/// The MLS message in an entry's `commit`.
fn unframe(context: &Context, entry: &LogEntry) -> Result<ProtocolMessage, Invalid> {
    let message = match entry.commit.split_first() {
        Some((0, message)) => match keys::mls_message(message) {
            Some(MlsMessageBodyIn::PrivateMessage(private)) => ProtocolMessage::from(private),
            _ => return Err(Invalid::Framing),
        },
        Some((1, sealed)) => {
            let message = keys::open_external(&context.group_key, &entry.group, sealed)
                .ok_or(Invalid::Sealed)?;
            match keys::mls_message(&message) {
                Some(MlsMessageBodyIn::PublicMessage(public)) => ProtocolMessage::from(public),
                _ => return Err(Invalid::Framing),
            }
        }
        _ => return Err(Invalid::Framing),
    };
    // Decrypting a message uses up its key, so nothing but a commit may come that far.
    let private = matches!(message, ProtocolMessage::PrivateMessage(_));
    let external = message.is_external();
    let commit = message.content_type() == ContentType::Commit && (private || external);
    if commit {
        Ok(message)
    } else {
        Err(Invalid::Framing)
    }
}

/// Members and context at one moment.
struct Before {
    leaves: Vec<Leaf>,
    context: Context,
}

impl Before {
    fn of(mls: &MlsGroup) -> Result<Self, ChatError> {
        let context = Context::of(mls.public_group().group_context()).ok_or(ChatError::Welcome(
            "the group's context is not of the profile",
        ))?;
        Ok(Self {
            leaves: device::leaves(mls)?,
            context,
        })
    }

    fn member(&self, leaf: &Leaf) -> Member {
        Member::of(leaf, &self.context.roles, &self.leaves)
    }

    /// Whether somebody was removed, and people still join with the key that was in force before.
    fn left_join_key_to(&self, after: &Self) -> bool {
        let stays = |leaf: &Leaf| after.leaves.iter().any(|other| other.handle == leaf.handle);
        let is_same = self.context.join_key == after.context.join_key;
        after.context.roles.join_allowed && is_same && !self.leaves.iter().all(stays)
    }
}
