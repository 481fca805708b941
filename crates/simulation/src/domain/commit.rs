//! KEY_UPDATE: one transaction for everything that a commit does (CCP-1 section 5.2).

use bytes::Bytes;
use commucat_crypto::signing::{Purpose as SigningPurpose, verify};
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fanout;
use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::key_update::{KeyUpdate, KeyUpdateResult};
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, Handle, MessageId};
use commucat_proto::wire::Cbor as _;
use commucat_routing::hub::{
    self, Change, Committed, Entry, JoinKeyChange, Past, Proposal, Recipient, Refusal, Signer,
};
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::Reason;

use super::Domain;
use super::custody::{Frame, Purpose, deliver, group_event, named};
use super::hub::{not_found, refused};
use super::requests::Asker;
use crate::outside::{Index, Outside};
use crate::peer::{Named, ReturnTo};
use crate::plant::Plant;
use crate::store::{Commit, Place, Write};

/// Who commits, and through which node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committer {
    pub(super) asker: Asker,
    pub(super) origin: Index,
    pub(super) node: usize,
    pub(super) to: ReturnTo,
}

/// What follows from a commit's transaction.
#[derive(Debug)]
pub(super) struct AfterCommit {
    committer: Committer,
    update: KeyUpdate,
    places: Vec<Place>,
    refused: Vec<Handle>,
    position: u64,
    rate_key: Handle,
    missed: Vec<(Handle, Reason)>,
    /// Who gets the first message, and where.
    firsts: Vec<(Place, Handle)>,
    first: Option<Named>,
}

/// A bundle as the rules read it.
struct Submitted {
    bundle: Bundle,
    add: Vec<Entry>,
    admins: Vec<(Handle, bool)>,
    welcomed: Vec<Vec<Handle>>,
    first: Option<Msg>,
}

/// A transaction in the making.
#[derive(Default)]
struct Rows {
    rows: Vec<(Place, Envelope)>,
    refused: Vec<Handle>,
    missed: Vec<(Handle, Reason)>,
    firsts: Vec<(Place, Handle)>,
}

impl Domain {
    /// Decides on a KEY_UPDATE and begins its transaction, or answers at once.
    pub(super) fn key_update(
        &mut self,
        out: &mut Outside,
        committer: Committer,
        update: KeyUpdate,
    ) {
        let asker = committer.asker;
        match self.decide(out, committer, &update) {
            Ok(Decided::Begin(write, mut after)) => {
                after.update = update;
                self.begin_commit(out, write, *after);
            }
            Ok(Decided::Repeat(position)) => {
                let result = KeyUpdateResult {
                    position,
                    refused: Vec::new(),
                };
                self.answer(out, asker, Ok(result.encode().into()));
            }
            Err(problem) => self.answer(out, asker, Err(problem)),
        }
    }

    fn decide(
        &self,
        out: &mut Outside,
        committer: Committer,
        update: &KeyUpdate,
    ) -> Result<Decided, Problem> {
        let submitted = Submitted::read(update).ok_or_else(invalid)?;
        let bundle = &submitted.bundle;
        let kept = self.store.groups.get(&bundle.group).ok_or_else(not_found)?;
        let own = MessageId::of_body(&update.bundle.body);
        let mut rest = kept.entries_from(bundle.expect + 1);
        let same = rest
            .next()
            .is_some_and(|entry| entry.position == bundle.expect + 1 && entry.message == own);
        let past = if same && !out.has(Plant::OwnCommitInConflict) {
            Past::Same
        } else {
            Past::Other
        };
        let signer = match past {
            Past::Same => Signer::Member,
            Past::Other => check_signature(&kept.group, bundle, update)?,
        };
        let origin = self.names.get(committer.origin).ok_or_else(not_found)?;
        let proposal = submitted.proposal(update, origin);
        let mut group = kept.group.clone();
        if out.has(Plant::AnybodyRemoves) {
            for entry in &mut group.list {
                entry.admin |= entry.handle == bundle.author;
            }
        }
        let change = match hub::commit(&group, &proposal, signer, past) {
            Ok(Committed::Repeat { position }) => return Ok(Decided::Repeat(position)),
            Ok(Committed::Apply(change)) => change,
            Err(Refusal::Conflict { head }) => {
                let mut problem = refused(Refusal::Conflict { head });
                let missing = || kept.entries_from(bundle.expect + 1);
                problem.extra.missing = missing().take(8).cloned().collect();
                problem.extra.more = missing().nth(8).is_some();
                return Err(problem);
            }
            Err(refusal) => return Err(refused(refusal)),
        };
        let rate_key = match signer {
            Signer::Member => bundle.author,
            Signer::Joiner(key) => Handle::new(key),
        };
        let now = out.instant();
        if let Err(wait) = self.process.commits.check(&rate_key, now) {
            let problem = Problem::new(Title::RateLimited, "one commit a second");
            return Err(problem.retry_after(wait.as_secs() + 1));
        }
        let rows = self.rows(out, committer, (&submitted, update), &change);
        let entry = bundle.entry(&update.bundle.body).ok_or_else(invalid)?;
        let places = rows.rows.iter().map(|(place, _)| *place).collect();
        let commit = Commit {
            group: bundle.group,
            revision: kept.revision,
            after: change.group.clone(),
            entry,
            info: bundle.sealed_group_info.clone(),
            rows: rows.rows,
        };
        let after = AfterCommit {
            committer,
            update: update.clone(),
            places,
            refused: rows.refused,
            position: change.position,
            rate_key,
            missed: rows.missed,
            firsts: rows.firsts,
            first: submitted
                .first
                .as_ref()
                .map(|msg| named(&bundle.group, msg)),
        };
        let index = self.index;
        out.note(|| {
            let (add, remove) = (bundle.change.add.len(), bundle.change.remove.len());
            format!(
                "domain {index} takes a commit at {}: +{add} -{remove}",
                change.position
            )
        });
        Ok(Decided::Begin(
            Write::Commit(Box::new(commit)),
            Box::new(after),
        ))
    }

    /// Everything that the commit puts into queues and outboxes.
    fn rows(
        &self,
        out: &mut Outside,
        committer: Committer,
        (submitted, update): (&Submitted, &KeyUpdate),
        change: &Change,
    ) -> Rows {
        let bundle = &submitted.bundle;
        let message = MessageId::of_body(&update.bundle.body);
        let mut rows = Rows::default();
        let Some(entry) = bundle.entry(&update.bundle.body) else {
            return rows;
        };
        let payload = Bytes::from(entry.encode());
        let commit = frame(FrameType::KeyUpdate, bundle, (message, payload));
        let first = submitted.first.as_ref().map(|msg| Frame {
            group: bundle.group,
            kind: FrameType::Msg,
            key: DedupeKey::of(&bundle.group, &msg.message(), &msg.ciphertext()),
            payload: msg.payload().clone(),
            author: Some((named(&bundle.group, msg), committer.to)),
        });
        let closes = bundle.change.close;
        let closed = closes.then(|| group_event(bundle.group, &GroupEvent::closed(bundle.group)));
        for recipient in &change.recipients {
            let welcome = self.welcome(bundle, recipient, message);
            let mut frames: Vec<&Frame> = welcome.iter().collect();
            frames.push(&commit);
            frames.extend(first.iter().filter(|_| recipient.message));
            frames.extend(&closed);
            self.rows_of(&mut rows, recipient, &frames);
        }
        for domain in 0..self.names.len() {
            if domain == self.index {
                continue;
            }
            let of_domain = |one: &&Recipient| self.index_of(&one.entry.domain) == Some(domain);
            let there: Vec<_> = change.recipients.iter().filter(of_domain).collect();
            let mut put = |frame: &Frame, there: Vec<Entry>| {
                if !there.is_empty() {
                    let entry = deliver(out, domain, frame, &there);
                    rows.rows.push(entry);
                }
            };
            for recipient in &there {
                if let Some(welcome) = self.welcome(bundle, recipient, message) {
                    put(&welcome, vec![recipient.entry.clone()]);
                }
            }
            let entries = |filter: &dyn Fn(&Recipient) -> bool| {
                let chosen = there.iter().filter(|one| filter(one));
                chosen.map(|one| one.entry.clone()).collect::<Vec<_>>()
            };
            put(&commit, entries(&|_| true));
            if let Some(first) = &first {
                put(first, entries(&|one| one.message));
            }
            if let Some(closed) = &closed {
                put(closed, entries(&|_| true));
            }
        }
        rows
    }

    /// What one member of this domain gets.
    fn rows_of(&self, rows: &mut Rows, recipient: &Recipient, frames: &[&Frame]) {
        let entry = &recipient.entry;
        if self.index_of(&entry.domain) != Some(self.index) {
            return;
        }
        let Some(first) = frames.first() else { return };
        match self.open_reference(&entry.sealed_ref, &first.group, self.index) {
            Ok(queue) => {
                let place = Place::Device(queue);
                if recipient.message {
                    rows.firsts.push((place, entry.handle));
                }
                rows.rows
                    .extend(frames.iter().map(|frame| (place, frame.envelope())));
            }
            Err(reason) => {
                if recipient.welcome.is_some() {
                    rows.refused.push(entry.handle);
                }
                if recipient.message {
                    rows.missed.push((entry.handle, reason));
                }
            }
        }
    }

    fn welcome(&self, bundle: &Bundle, recipient: &Recipient, message: MessageId) -> Option<Frame> {
        let welcome = bundle.welcomes.get(recipient.welcome?)?;
        let invite = GroupInvite {
            group: bundle.group,
            hub: self.name()?.clone(),
            position: bundle.expect.saturating_add(1),
            handle: recipient.entry.handle,
            sealed_ref: recipient.entry.sealed_ref,
            welcome: welcome.welcome.clone(),
            message,
        };
        let payload = Bytes::from(invite.encode());
        Some(frame(FrameType::GroupInvite, bundle, (message, payload)))
    }

    /// The transaction has ended.
    pub(super) fn committed(
        &mut self,
        out: &mut Outside,
        after: AfterCommit,
        full: Option<Vec<Place>>,
    ) {
        let committer = after.committer;
        let Some(full) = full else {
            // Somebody was first: the same bundle once more, on the group as it is now.
            return self.key_update(out, committer, after.update);
        };
        let Ok(bundle) = Bundle::decode_shared(&after.update.bundle.body) else {
            return;
        };
        for place in after.places {
            self.poke(out, place);
        }
        self.process.commits.charge(after.rate_key, out.instant());
        self.refresh(out, committer.node, &bundle.group);
        if let (Some(message), ReturnTo::Here(queue)) = (after.first, committer.to) {
            let full = after
                .firsts
                .iter()
                .filter(|(place, _)| full.contains(place));
            let full = full.map(|(_, handle)| (*handle, Reason::Full));
            for (handle, reason) in after.missed.into_iter().chain(full) {
                let about = (bundle.group, message);
                let to = (Purpose::Nothing, queue);
                self.undelivered(out, to, about, (vec![handle], reason));
            }
        }
        let result = KeyUpdateResult {
            position: after.position,
            refused: after.refused,
        };
        self.answer(out, committer.asker, Ok(result.encode().into()));
    }
}

/// What became of a bundle.
enum Decided {
    Begin(Write, Box<AfterCommit>),
    Repeat(u64),
}

impl Submitted {
    fn read(update: &KeyUpdate) -> Option<Self> {
        let bundle = Bundle::decode_shared(&update.bundle.body).ok()?;
        let first = match &bundle.first_message {
            Some(payload) => Some(Msg::decode(payload).ok()?),
            None => None,
        };
        let change = &bundle.change;
        let flags = change.admins.iter();
        let welcomes = bundle.welcomes.iter();
        Some(Self {
            add: change.add.iter().map(entry).collect(),
            admins: flags.map(|flag| (flag.handle, flag.admin)).collect(),
            welcomed: welcomes.map(|welcome| welcome.handles.clone()).collect(),
            first,
            bundle,
        })
    }

    fn proposal<'a>(
        &'a self,
        update: &'a KeyUpdate,
        origin: &'a commucat_proto::id::Domain,
    ) -> Proposal<'a> {
        let change = &self.bundle.change;
        Proposal {
            expect: self.bundle.expect,
            author: &self.bundle.author,
            sealed_ref: &update.sealed_ref,
            origin,
            add: &self.add,
            remove: &change.remove,
            admins: &self.admins,
            welcomes: &self.welcomed,
            join_key: match change.join_key {
                None => JoinKeyChange::Keep,
                Some(fanout::JoinKeyChange::Remove) => JoinKeyChange::Clear,
                Some(fanout::JoinKeyChange::Set(key)) => JoinKeyChange::Set(*key.as_bytes()),
            },
            close: change.close,
            first_message: self.first.as_ref().map(Msg::position),
        }
    }
}

fn check_signature(
    group: &hub::Group,
    bundle: &Bundle,
    update: &KeyUpdate,
) -> Result<Signer, Problem> {
    let signer = hub::signer(group, &bundle.author).map_err(refused)?;
    let (purpose, key) = match &signer {
        Signer::Member => (SigningPurpose::Commit, bundle.author.as_bytes()),
        Signer::Joiner(key) => (SigningPurpose::JoinCommit, key),
    };
    verify(&update.bundle, purpose, key)
        .map_err(|_| Problem::new(Title::Forbidden, "the signature does not hold"))?;
    Ok(signer)
}

fn frame(kind: FrameType, bundle: &Bundle, (message, payload): (MessageId, Bytes)) -> Frame {
    Frame {
        group: bundle.group,
        kind,
        key: DedupeKey::of(&bundle.group, &message, &payload),
        payload,
        author: None,
    }
}

/// An entry of the wire as the rules see it.
pub(super) fn entry(entry: &fanout::FanoutEntry) -> Entry {
    Entry {
        handle: entry.handle,
        domain: entry.domain.clone(),
        sealed_ref: entry.sealed_ref,
        admin: entry.admin,
    }
}

/// An entry of the rules as the wire has it.
pub(super) fn wire_entry(entry: &Entry) -> fanout::FanoutEntry {
    fanout::FanoutEntry {
        handle: entry.handle,
        domain: entry.domain.clone(),
        sealed_ref: entry.sealed_ref,
        admin: entry.admin,
    }
}

fn invalid() -> Problem {
    Problem::new(Title::InvalidControlPayload, "")
}
