//! KEY_UPDATE: one transaction for everything that a commit does (CCP-1 section 5.2).

mod relay;

use std::time::Instant;

use bytes::Bytes;
use commucat_crypto::signing::{Purpose, verify};
use commucat_proto::error::Title;
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fanout;
use commucat_proto::frame::key_update::{KeyUpdate, KeyUpdateResult, LogEntry};
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, Domain, GroupId, Handle, MessageId, QueueId};
use commucat_proto::limits::ENTRIES_PAGE_MAX;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::CborError;
use commucat_routing::hub::{
    self, Change, Committed, Entry, Group, JoinKeyChange, Past, Proposal, Recipient, Signer,
};
use commucat_routing::ticket::Reason;
use commucat_storage::{
    Commit, CommitOutcome, EntryKind, GroupDelivery, NewEntry, Outboxed, QueueSpooled, Refusal,
    Spooled,
};

use super::fetch::damaged;
use super::view::{entry, routing_group, stored_entry};
use super::{Asker, Hub, not_found, refused};
use crate::accounts::storage;
use crate::clock;
use crate::custody::{Home, Returned};
use crate::events;
use crate::limit::{Kind, Tag};
use crate::peers::{AuthorOf, ReturnTo};
use crate::router::{Member, Place};

/// What a commit writes, and who does not get its first message.
struct Transaction {
    commit: Commit,
    missed: Vec<(Handle, Reason)>,
    /// Of each relay, whom its first message is for.
    relayed: Vec<Vec<Handle>>,
}

/// A bundle as it came, decoded, with what the rules read of it.
struct Submitted<'a> {
    update: &'a KeyUpdate,
    bundle: Bundle,
    add: Vec<Entry>,
    admins: Vec<(Handle, bool)>,
    welcomed: Vec<Vec<Handle>>,
    first_message: Option<Msg>,
    author: CommitAuthor,
}

/// Who commits, as those have to know who tell it something later.
struct CommitAuthor {
    /// The domain that the bundle came from, authenticated.
    origin: Domain,
    home: Home,
}

impl<'a> Submitted<'a> {
    fn read(update: &'a KeyUpdate, author: CommitAuthor) -> Result<Self, Problem> {
        let invalid =
            |error: CborError| Problem::new(error.into(), "the bundle is not what it must be");
        let bundle = Bundle::decode_shared(&update.bundle.body).map_err(invalid)?;
        let first_message = bundle
            .first_message
            .as_ref()
            .map(Msg::decode)
            .transpose()
            .map_err(invalid)?;
        Ok(Self {
            update,
            add: bundle.change.add.iter().map(entry).collect(),
            admins: bundle
                .change
                .admins
                .iter()
                .map(|flag| (flag.handle, flag.admin))
                .collect(),
            welcomed: bundle
                .welcomes
                .iter()
                .map(|welcome| welcome.handles.clone())
                .collect(),
            first_message,
            bundle,
            author,
        })
    }

    fn signed(&self) -> &Signed {
        &self.update.bundle
    }

    /// Whom a refused Welcome or first message goes back to, of these members.
    fn return_to(&self, (message, key): (MessageId, DedupeKey), members: &[Member]) -> ReturnTo {
        let (origin, reference) = (self.author.origin.clone(), self.update.sealed_ref);
        ReturnTo {
            author: Some(AuthorOf {
                home: origin,
                reference,
                message,
                key,
            }),
            handles: members.iter().map(|member| member.handle).collect(),
        }
    }

    fn proposal(&self) -> Proposal<'_> {
        Proposal {
            expect: self.bundle.expect,
            author: &self.bundle.author,
            sealed_ref: &self.update.sealed_ref,
            origin: &self.author.origin,
            add: &self.add,
            remove: &self.bundle.change.remove,
            admins: &self.admins,
            welcomes: &self.welcomed,
            join_key: match self.bundle.change.join_key {
                None => JoinKeyChange::Keep,
                Some(fanout::JoinKeyChange::Remove) => JoinKeyChange::Clear,
                Some(fanout::JoinKeyChange::Set(key)) => JoinKeyChange::Set(*key.as_bytes()),
            },
            close: self.bundle.change.close,
            first_message: self.first_message.as_ref().map(Msg::position),
        }
    }
}

impl Hub {
    fn author(&self, asker: Asker<'_>, update: &KeyUpdate) -> CommitAuthor {
        match asker {
            Asker::Device(queue) => CommitAuthor {
                origin: self.domain().clone(),
                home: Home::Here(*queue),
            },
            Asker::Abroad(origin) => CommitAuthor {
                origin: origin.clone(),
                home: Home::Abroad(origin.clone(), update.sealed_ref),
            },
        }
    }

    /// Answers a KEY_UPDATE of the device with this queue.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the author; `Conflict` carries the entries that it has not seen.
    pub(crate) async fn key_update(
        &self,
        queue: &QueueId,
        update: &KeyUpdate,
    ) -> Result<KeyUpdateResult, Problem> {
        self.commits(Asker::Device(queue), update).await
    }

    /// Answers a KEY_UPDATE of a device of `origin`.
    ///
    /// # Errors
    ///
    /// As [`Hub::key_update`].
    pub(crate) async fn key_update_from(
        &self,
        origin: &Domain,
        update: &KeyUpdate,
    ) -> Result<KeyUpdateResult, Problem> {
        self.commits(Asker::Abroad(origin), update).await
    }

    async fn commits(
        &self,
        asker: Asker<'_>,
        update: &KeyUpdate,
    ) -> Result<KeyUpdateResult, Problem> {
        self.check_hub(&update.hub)?;
        let submitted = Submitted::read(update, self.author(asker, update))?;
        let bundle = &submitted.bundle;
        if let Asker::Device(queue) = asker
            && !self.is_own(&update.sealed_ref, &bundle.group, &update.hub, queue)
        {
            return Err(not_found());
        }
        let stored = self.0.store.group(&bundle.group).await.map_err(storage)?;
        let group = stored.map(routing_group).ok_or_else(not_found)?;
        let past = self.past(&submitted).await?;
        let signer = match past {
            // Who signed it was checked when it was accepted; since then the list has changed.
            Past::Same => Signer::Member,
            Past::Other => self.check_signature(&group, &submitted)?,
        };
        match hub::commit(&group, &submitted.proposal(), signer, past) {
            Ok(Committed::Repeat { .. }) => {
                let transaction = Transaction {
                    commit: self.unchanged(&submitted),
                    missed: Vec::new(),
                    relayed: Vec::new(),
                };
                self.apply(&submitted, signer, transaction).await
            }
            Ok(Committed::Apply(change)) => {
                if change.group.list.len() > self.0.handles_max {
                    let detail = "the group would have more handles than this server allows";
                    return Err(Problem::new(Title::Forbidden, detail));
                }
                self.check_rate(&submitted, signer)?;
                let transaction = self.transaction(&group, &submitted, &change).await?;
                self.apply(&submitted, signer, transaction).await
            }
            Err(hub::Refusal::Conflict { head }) => {
                Err(self.conflict(&bundle.group, bundle.expect, head).await?)
            }
            Err(refusal) => Err(refused(refusal)),
        }
    }

    /// What the log holds at the position that the bundle asks for.
    async fn past(&self, submitted: &Submitted<'_>) -> Result<Past, Problem> {
        let bundle = &submitted.bundle;
        let position = bundle.expect.saturating_add(1);
        let page = self
            .0
            .store
            .log_page(&bundle.group, position, 1)
            .await
            .map_err(storage)?;
        let page = page.ok_or_else(not_found)?;
        let same = page
            .entries
            .first()
            .filter(|kept| kept.position == position);
        let Some(kept) = same else {
            return Ok(Past::Other);
        };
        let kept = LogEntry::decode_shared(&kept.entry).map_err(|_| damaged())?;
        let own = MessageId::of_body(&submitted.signed().body);
        Ok(if kept.message == own {
            Past::Same
        } else {
            Past::Other
        })
    }

    fn check_signature(&self, group: &Group, submitted: &Submitted<'_>) -> Result<Signer, Problem> {
        let author = &submitted.bundle.author;
        let signer = hub::signer(group, author).map_err(refused)?;
        let (purpose, key) = match &signer {
            Signer::Member => (Purpose::Commit, author.as_bytes()),
            Signer::Joiner(key) => (Purpose::JoinCommit, key),
        };
        verify(submitted.signed(), purpose, key).map_err(|_| {
            // Only a member learns more than that there is nothing for it here.
            let entry = group.entry(author);
            if entry.is_some_and(|entry| entry.sealed_ref == submitted.update.sealed_ref) {
                Problem::new(Title::Forbidden, "the bundle's signature does not hold")
            } else {
                not_found()
            }
        })?;
        Ok(signer)
    }

    /// One accepted commit a second for each handle; all who join by one key count as one.
    fn check_rate(&self, submitted: &Submitted<'_>, signer: Signer) -> Result<(), Problem> {
        let who = self.rate_tag(submitted, signer);
        let checked = self.0.buckets.check(Kind::Commit, who, Instant::now());
        checked.map_err(|wait| {
            let problem = Problem::new(Title::RateLimited, "one commit a second");
            problem.retry_after(wait.as_secs().saturating_add(1))
        })
    }

    /// What counts together for the rate of commits.
    fn rate_tag(&self, submitted: &Submitted<'_>, signer: Signer) -> Tag {
        let who = match signer {
            Signer::Member => submitted.bundle.author,
            Signer::Joiner(key) => Handle::new(key),
        };
        self.0.buckets.tag(who.as_bytes())
    }

    /// Everything that the commit writes, with the queue rows of this domain's members.
    async fn transaction(
        &self,
        group: &Group,
        submitted: &Submitted<'_>,
        change: &Change,
    ) -> Result<Transaction, Problem> {
        let bundle = &submitted.bundle;
        let log_entry = bundle
            .entry(&submitted.signed().body)
            .ok_or_else(not_found)?;
        let mut commit = self.unchanged(submitted);
        commit.entry = Bytes::from(log_entry.encode());
        let entries: Vec<Entry> = change
            .recipients
            .iter()
            .map(|recipient| recipient.entry.clone())
            .collect();
        let placement = self
            .0
            .router
            .place(&bundle.group, &entries)
            .await
            .map_err(storage)?;
        let was_open = !group.closed && change.group.closed;
        let mut missed = Vec::new();
        for (recipient, place) in change.recipients.iter().zip(&placement.places) {
            let handle = recipient.entry.handle;
            let reason = match place {
                Place::Here(queue) | Place::Again(queue) => {
                    let entries = self.rows(submitted, &commit, recipient, was_open);
                    commit.deliveries.push(GroupDelivery {
                        handle,
                        queue: *queue,
                        entries,
                    });
                    continue;
                }
                Place::Abroad => continue,
                Place::Gone => Reason::Gone,
                Place::Refused => Reason::Forbidden,
            };
            // Where there is no queue, nothing is taken: the author hears it as of a full one.
            if recipient.welcome.is_some() {
                commit.refused.push(handle);
            }
            if recipient.message {
                missed.push((handle, reason));
            }
        }
        let relayed = self.relay(submitted, &mut commit, (change, was_open), &placement);
        Ok(Transaction {
            commit,
            missed,
            relayed,
        })
    }

    /// The commit without rows: enough to find a repeat.
    fn unchanged(&self, submitted: &Submitted<'_>) -> Commit {
        let bundle = &submitted.bundle;
        let join_key = match submitted.proposal().join_key {
            JoinKeyChange::Keep => commucat_storage::JoinKeyChange::Keep,
            JoinKeyChange::Clear => commucat_storage::JoinKeyChange::Clear,
            JoinKeyChange::Set(key) => commucat_storage::JoinKeyChange::Set(key),
        };
        Commit {
            group: bundle.group,
            expect: bundle.expect,
            body_hash: *blake3::hash(&submitted.signed().body).as_bytes(),
            entry: Bytes::new(),
            group_info: bundle.sealed_group_info.clone(),
            add: bundle.change.add.iter().map(stored_entry).collect(),
            remove: bundle.change.remove.clone(),
            admins: submitted.admins.clone(),
            join_key,
            close: bundle.change.close,
            deliveries: Vec::new(),
            relays: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// What one member gets: its Welcome, the entry, the first message, the closing.
    fn rows(
        &self,
        submitted: &Submitted<'_>,
        commit: &Commit,
        recipient: &Recipient,
        closes: bool,
    ) -> Vec<NewEntry> {
        let bundle = &submitted.bundle;
        let (group, message) = (bundle.group, MessageId::of_body(&submitted.signed().body));
        let row = |kind, message: &MessageId, content: &[u8], body: Bytes| NewEntry {
            key: DedupeKey::of(&group, message, content),
            kind,
            group,
            body,
        };
        let mut rows = Vec::new();
        if let Some(invite) = self.invite(submitted, recipient) {
            let body = Bytes::from(invite.encode());
            rows.push(row(EntryKind::GroupInvite, &message, &body.clone(), body));
        }
        rows.push(row(
            EntryKind::KeyUpdate,
            &message,
            &commit.entry,
            commit.entry.clone(),
        ));
        if let Some(first) = submitted
            .first_message
            .as_ref()
            .filter(|_| recipient.message)
        {
            let body = first.payload().clone();
            rows.push(row(
                EntryKind::Message,
                &first.message(),
                &first.ciphertext(),
                body,
            ));
        }
        if closes {
            let closed = events::closed(&group);
            let (key, body) = (closed.key, closed.body);
            rows.push(NewEntry {
                key,
                kind: EntryKind::GroupEvent,
                group,
                body,
            });
        }
        rows
    }

    async fn apply(
        &self,
        submitted: &Submitted<'_>,
        signer: Signer,
        transaction: Transaction,
    ) -> Result<KeyUpdateResult, Problem> {
        let group = submitted.bundle.group;
        let Transaction {
            commit,
            missed,
            relayed: messages,
        } = transaction;
        let domains: Vec<Domain> = commit
            .relays
            .iter()
            .map(|relay| relay.entry.lane.peer.clone())
            .collect();
        let first_messages: Vec<(Handle, Option<usize>)> = commit
            .deliveries
            .iter()
            .map(|delivery| (delivery.handle, place_of_message(&delivery.entries)))
            .collect();
        match self
            .0
            .store
            .commit(commit, clock::now())
            .await
            .map_err(storage)?
        {
            CommitOutcome::Committed {
                position,
                spooled,
                relayed,
                refused,
            } => {
                // Whoever reads one of these queues turns to the store before the author hears, and
                // so do the lanes to other domains.
                for queue in &spooled {
                    self.0.router.mailboxes().poke(&queue.queue);
                }
                for domain in &domains {
                    self.0.router.peers().poke(domain, &group);
                }
                let who = self.rate_tag(submitted, signer);
                self.0.buckets.charge(Kind::Commit, who, Instant::now());
                self.refresh(&group).await;
                if let Some(first) = &submitted.first_message {
                    let missed = missed
                        .into_iter()
                        .chain(not_taken(&first_messages, &spooled))
                        .chain(not_relayed(messages, &relayed));
                    let home = &submitted.author.home;
                    let returned = Returned {
                        group,
                        message: first.message(),
                        key: DedupeKey::of(&group, &first.message(), &first.ciphertext()),
                    };
                    self.return_first_message(home, returned, missed.collect())
                        .await;
                }
                Ok(KeyUpdateResult { position, refused })
            }
            CommitOutcome::Repeat { position, refused } => {
                Ok(KeyUpdateResult { position, refused })
            }
            CommitOutcome::Conflict { head } => {
                Err(self.conflict(&group, submitted.bundle.expect, head).await?)
            }
            CommitOutcome::NotFound => Err(not_found()),
        }
    }

    /// `Conflict` with the entries after `expect`, as many as fit.
    async fn conflict(&self, group: &GroupId, expect: u64, head: u64) -> Result<Problem, Problem> {
        let mut problem = Problem::new(Title::Conflict, "the position is taken");
        problem.extra.head = Some(head);
        if expect >= head {
            return Ok(problem);
        }
        let from = expect.saturating_add(1);
        let page = self
            .0
            .store
            .log_page(group, from, ENTRIES_PAGE_MAX)
            .await
            .map_err(storage)?;
        let page = page.ok_or_else(not_found)?;
        let entries = page
            .entries
            .iter()
            .map(|kept| LogEntry::decode_shared(&kept.entry));
        problem.extra.missing = entries.collect::<Result<_, _>>().map_err(|_| damaged())?;
        problem.extra.more = page.more;
        Ok(problem)
    }
}

/// Where the first message is among a member's rows; who is removed gets none.
fn place_of_message(rows: &[NewEntry]) -> Option<usize> {
    rows.iter().position(|row| row.kind == EntryKind::Message)
}

/// Whose queues did not take the first message.
fn not_taken(
    first_messages: &[(Handle, Option<usize>)],
    spooled: &[QueueSpooled],
) -> Vec<(Handle, Reason)> {
    let reason = |place: Option<usize>, queue: &QueueSpooled| match queue.outcomes.get(place?)? {
        Spooled::Refused(Refusal::Full) => Some(Reason::Full),
        Spooled::Refused(Refusal::Gone) => Some(Reason::Gone),
        Spooled::Stored(_) | Spooled::Repeat(_) => None,
    };
    let queues = first_messages.iter().zip(spooled);
    queues
        .filter_map(|((handle, place), queue)| Some((*handle, reason(*place, queue)?)))
        .collect()
}

/// Who does not get the first message because too much waits for its domain.
fn not_relayed(messages: Vec<Vec<Handle>>, relayed: &[Outboxed]) -> Vec<(Handle, Reason)> {
    let relays = messages.into_iter().zip(relayed);
    relays
        .filter(|(_, outboxed)| **outboxed == Outboxed::Full)
        .flat_map(|(handles, _)| handles)
        .map(|handle| (handle, Reason::Full))
        .collect()
}
