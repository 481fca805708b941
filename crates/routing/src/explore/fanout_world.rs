//! A group that changes while a node fans messages out with a cached list.

use std::hash::{Hash, Hasher};

use commucat_proto::id::{Domain, Handle, SealedRef};

use super::bugs::Bug;
use super::{Kind, World, explore};
use crate::hub::{
    Author, Committed, Entry, Fanout, Group, JoinKeyChange, Past, Proposal, Refusal, Signer,
    Source, commit,
};

pub(super) fn entry(number: u8, admin: bool) -> Entry {
    Entry {
        handle: Handle::new([number; 32]),
        domain: Domain::parse("hub.example").unwrap(),
        sealed_ref: SealedRef::new([number; 65]),
        admin,
    }
}

pub(super) fn proposal<'a>(author: &'a Entry, expect: u64) -> Proposal<'a> {
    Proposal {
        expect,
        author: &author.handle,
        sealed_ref: &author.sealed_ref,
        origin: &author.domain,
        add: &[],
        remove: &[],
        admins: &[],
        welcomes: &[],
        join_key: JoinKeyChange::Keep,
        close: false,
        first_message: None,
    }
}

const AUTHORS: [u8; 2] = [1, 2];

/// What each commit does: an author adds somebody, or removes one.
const COMMITS: [(u8, Option<u8>, Option<u8>); 4] = [
    (1, Some(3), None),
    (2, Some(4), None),
    (1, None, Some(3)),
    (1, Some(5), None),
];

#[derive(Clone)]
struct FanoutWorld {
    /// The group after each position.
    history: Vec<Group>,
    cache: Group,
    /// How many messages each author still sends.
    messages: [u8; 2],
    bug: Option<Bug>,
}

impl Hash for FanoutWorld {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.history.len(), self.cache.head, self.messages).hash(state);
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Commit,
    Refresh,
    /// An author, sealing at the position this far below the head.
    Send(usize, u64),
}

impl FanoutWorld {
    fn new(bug: Option<Bug>) -> Self {
        let list = vec![entry(1, true), entry(2, true)];
        let group = Group {
            list,
            ..Group::default()
        };
        Self {
            history: vec![group.clone()],
            cache: group,
            messages: [1; 2],
            bug,
        }
    }

    fn stored(&self) -> &Group {
        self.history.last().unwrap()
    }

    fn commit(&mut self) {
        let (author, add, remove) = COMMITS[self.history.len() - 1];
        let author = entry(author, true);
        let add: Vec<Entry> = add.iter().map(|number| entry(*number, false)).collect();
        let remove: Vec<Handle> = remove
            .iter()
            .map(|number| Handle::new([*number; 32]))
            .collect();
        let expect = self.stored().head;
        let proposal = Proposal {
            add: &add,
            remove: &remove,
            ..proposal(&author, expect)
        };
        match commit(self.stored(), &proposal, Signer::Member, Past::Other) {
            Ok(Committed::Apply(change)) => self.history.push(change.group),
            other => assert!(matches!(other, Ok(Committed::Repeat { .. })), "{other:?}"),
        }
    }

    fn send(&mut self, author: usize, below: u64) -> Result<(), String> {
        self.messages[author] -= 1;
        let author = entry(AUTHORS[author], true);
        let position = self.stored().head - below;
        let asks = Author {
            handle: &author.handle,
            sealed_ref: &author.sealed_ref,
            origin: &author.domain,
        };
        let reaches: Vec<Handle> = match self.fanout(asks, position) {
            Ok(reaches) => reaches,
            Err(Refusal::EpochOld) if below > 2 => return Ok(()),
            Err(refusal) => return Err(format!("refused: {refusal}")),
        };
        let sealed_for = usize::try_from(position)
            .ok()
            .and_then(|at| self.history.get(at));
        for member in sealed_for
            .map(|group| group.list.as_slice())
            .unwrap_or_default()
        {
            let is_member_still = self.stored().entry(&member.handle).is_some();
            if is_member_still
                && member.handle != author.handle
                && !reaches.contains(&member.handle)
            {
                return Err("a member of the sealing epoch does not get the message".to_owned());
            }
        }
        Ok(())
    }

    fn fanout(&self, author: Author<'_>, position: u64) -> Result<Vec<Handle>, Refusal> {
        let handles = |list: Vec<&Entry>| list.into_iter().map(|entry| entry.handle).collect();
        if self.bug == Some(Bug::StaleFanoutCache) {
            return Ok(handles(self.cache.all_but(author.handle)));
        }
        match self.cache.fanout(author, position, Source::Cache)? {
            Fanout::To(list) => Ok(handles(list)),
            Fanout::Reload => match self.stored().fanout(author, position, Source::Store)? {
                Fanout::To(list) => Ok(handles(list)),
                Fanout::Reload => Err(Refusal::NotFound),
            },
        }
    }
}

impl World for FanoutWorld {
    type Event = Event;

    fn events(&self) -> Vec<(Kind, Event)> {
        let mut events = Vec::new();
        if self.history.len() <= COMMITS.len() {
            events.push((Kind::Step, Event::Commit));
        }
        if self.cache.head < self.stored().head {
            events.push((Kind::Fault, Event::Refresh));
        }
        for (author, left) in self.messages.iter().enumerate() {
            if *left > 0 {
                let sends = (0..=self.stored().head).map(|below| Event::Send(author, below));
                events.extend(sends.map(|event| (Kind::Step, event)));
            }
        }
        events
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Commit => self.commit(),
            Event::Refresh => self.cache = self.stored().clone(),
            Event::Send(author, below) => return self.send(author, below),
        }
        Ok(())
    }

    fn at_rest(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_message_reaches_every_member_of_the_epoch_that_sealed_it() {
    let report = explore(FanoutWorld::new(None), 100_000);

    assert_eq!(report.broken, None);
}

#[test]
fn a_stale_fanout_cache_is_found() {
    let report = explore(FanoutWorld::new(Some(Bug::StaleFanoutCache)), 100_000);

    let what = report.broken.map(|(what, _)| what);
    assert_eq!(
        what.as_deref(),
        Some("a member of the sealing epoch does not get the message")
    );
}
