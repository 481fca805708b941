//! Commits: for what a client wants, and for what one that means harm does.

use bytes::Bytes;
use commucat_crypto::signing::Purpose;
use commucat_proto::frame::bundle::{Bundle, Welcome};
use commucat_proto::frame::fanout::{Change, JoinKeyChange};
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{GroupId, MessageId};
use commucat_proto::wire::Cbor as _;

use super::commit::{self, Commit, Content, Kind, bit};
use super::group::{Epoch, Member, next_epoch};
use super::model::{Intent, Model, Outgoing, Pending};
use crate::outside::Outside;

/// What nobody can read.
const RUBBISH: Bytes = Bytes::from_static(b"this leads nowhere");

/// A commit before it is signed.
struct Draft {
    change: Change,
    commit: Bytes,
    /// Where it leads those who can apply it.
    next: Option<Epoch>,
    info: Bytes,
}

impl Model {
    /// Builds the commit for the oldest intent that still makes sense.
    pub(super) fn propose(&mut self, out: &mut Outside) -> Option<Pending> {
        loop {
            let (group, intent) = self.disk.intents.front()?.clone();
            let member = self.disk.groups.get(&group);
            let Some(member) = member.filter(|one| one.is_in() && makes_sense(one, &intent)) else {
                self.disk.intents.pop_front();
                continue;
            };
            if member.is_busy() {
                return None;
            }
            let draft = self.draft(out, (group, member), &intent);
            // What waits in an outbox for another domain's hub would be overtaken: a commit takes no lane.
            let next = draft.next.as_ref().filter(|_| member.hub == self.domain);
            let first = self.first_message(out, group, next, &intent);
            let added = &draft.change.add;
            let handles: Vec<_> = added.iter().map(|entry| entry.handle).collect();
            let welcomed = draft.next.iter().filter(|_| !handles.is_empty());
            let welcomes = welcomed.map(|next| Welcome {
                handles: handles.clone(),
                welcome: commit::welcome(next),
            });
            let bundle = Bundle {
                group,
                expect: member.epoch.position,
                commit: draft.commit,
                welcomes: welcomes.collect(),
                change: draft.change,
                sealed_group_info: draft.info,
                author: member.handle(),
                first_message: first
                    .as_ref()
                    .and_then(|first| Some(first.sealed.as_ref()?.payload().clone())),
            };
            let expect = bundle.expect;
            let signed = member.key.sign(Purpose::Commit, bundle.encode());
            if matches!(intent, Intent::Lure) {
                self.disk.lies.insert((group, expect + 1));
            }
            return Some(Pending {
                group,
                entry: MessageId::of_body(&signed.body),
                bundle: signed,
                expect,
                first,
                external: None,
                base: expect,
            });
        }
    }

    fn draft(
        &self,
        out: &mut Outside,
        (group, member): (GroupId, &Member),
        intent: &Intent,
    ) -> Draft {
        let epoch = &member.epoch;
        let (mut change, mut clients) = (Change::default(), Vec::new());
        match intent {
            Intent::Add(entry, client) | Intent::Ghost(entry, client) => {
                change.add.push(entry.clone());
                clients.push(*client);
            }
            Intent::Remove(handle) | Intent::Unlist(handle) | Intent::Mutiny(handle) => {
                change.remove.push(*handle);
                // Links die with every removal.
                let has_link = epoch.link.is_some();
                change.join_key = has_link.then_some(JoinKeyChange::Remove);
            }
            Intent::Update | Intent::Rubbish | Intent::Spoiled | Intent::BadInfo | Intent::Lure => {
            }
        }
        // A group of its own making has the same members and the same key.
        let base = match intent {
            Intent::Lure | Intent::Ghost(..) => epoch.remade(out.random.next()),
            _ => epoch.clone(),
        };
        let mut commit = Commit {
            kind: Kind::Member,
            parent: base.state(),
            nonce: out.random.next(),
            spoiled: 0,
            link: 0,
            clients,
        };
        if matches!(intent, Intent::Spoiled) {
            for (client, _) in epoch.roster.values() {
                if *client != self.index && out.random.chance(500) {
                    commit.spoiled |= bit(*client);
                }
            }
        }
        let commit = match intent {
            Intent::Rubbish | Intent::Unlist(_) => RUBBISH,
            _ => commit.encode(),
        };
        let next = next_epoch(&base, (group, member.handle()), &commit, &change);
        let position = epoch.position + 1;
        let info = match (intent, &next) {
            (Intent::Ghost(..), _) | (_, None) => RUBBISH,
            (Intent::BadInfo, Some(next)) if out.random.chance(500) => {
                commit::group_info(&next.remade(out.random.next()), position)
            }
            (Intent::BadInfo, _) => RUBBISH,
            (_, Some(next)) => commit::group_info(next, position),
        };
        match intent {
            Intent::Spoiled | Intent::BadInfo | Intent::Ghost(..) | Intent::Unlist(_) => {
                out.judge.splits(group);
            }
            // Alone with its victim it is all others that there are.
            Intent::Lure if epoch.roster.len() < 4 => out.judge.splits(group),
            Intent::Lure => out.judge.alarms(group),
            Intent::Update
            | Intent::Add(..)
            | Intent::Remove(_)
            | Intent::Rubbish
            | Intent::Mutiny(_) => {}
        }
        Draft {
            change,
            commit,
            next: next.filter(|_| !matches!(intent, Intent::Lure)),
            info,
        }
    }

    /// Sometimes a commit carries the first message of its epoch: the oldest text, if none of the
    /// client's is on its way.
    fn first_message(
        &self,
        out: &mut Outside,
        group: GroupId,
        next: Option<&Epoch>,
        intent: &Intent,
    ) -> Option<Outgoing> {
        let mut outbox = self.disk.outbox.iter();
        let mut first = outbox.next().filter(|_| outbox.next().is_none())?.clone();
        let is_plain = matches!(
            intent,
            Intent::Update | Intent::Add(..) | Intent::Remove(_) | Intent::Spoiled
        );
        let next = next.filter(|_| is_plain)?;
        if first.group != group || first.was_sent || !out.random.chance(300) {
            return None;
        }
        let content = Content {
            state: next.state(),
            author: u64::try_from(self.index).unwrap_or(u64::MAX),
            nonce: out.random.next(),
            text: first.text,
        };
        let recipients = next.roster.keys().copied();
        out.judge.sealed(first.text, recipients);
        first.sealed = Some(Msg::new(next.position, first.message, &content.encode()));
        Some(first)
    }
}

/// Whether an intent can still be carried out.
fn makes_sense(member: &Member, intent: &Intent) -> bool {
    let roster = &member.epoch.roster;
    match intent {
        Intent::Update | Intent::Rubbish | Intent::Spoiled | Intent::BadInfo | Intent::Lure => true,
        Intent::Add(entry, client) | Intent::Ghost(entry, client) => {
            let mut people = roster.values();
            !roster.contains_key(&entry.handle) && !people.any(|(other, _)| other == client)
        }
        Intent::Remove(handle) | Intent::Unlist(handle) => {
            member.is_admin() && roster.contains_key(handle)
        }
        Intent::Mutiny(handle) => !member.is_admin() && roster.contains_key(handle),
    }
}
