//! Two members that commit against each other over a network that loses requests and answers.

use std::hash::{Hash, Hasher};

use super::bugs::Bug;
use super::fanout_world::{entry, proposal};
use super::{Kind, World, explore};
use crate::hub::{Committed, Group, Past, Refusal, Signer, commit};

/// One bundle: its author and the author's count.
type Body = (u8, u8);

#[derive(Clone, Hash)]
enum Answer {
    Position(u64),
    Conflict(Vec<(u64, Body)>),
}

#[derive(Clone, Hash)]
struct Member {
    number: u8,
    /// Entries handled.
    position: u64,
    /// The bundle that is persisted and not answered.
    pending: Option<(u64, Body)>,
    made: u8,
    /// Commits of its own that it still wants to get through.
    wanted: u8,
    request: Option<(u64, Body)>,
    answer: Option<Answer>,
}

#[derive(Clone)]
struct CommitWorld {
    group: Group,
    log: Vec<Body>,
    members: [Member; 2],
    losses: u8,
    bug: Option<Bug>,
}

impl Hash for CommitWorld {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.group.head, &self.log, &self.members, self.losses).hash(state);
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Sends(usize),
    HubTakes(usize),
    AnswerArrives(usize),
    RequestIsLost(usize),
    AnswerIsLost(usize),
}

impl CommitWorld {
    fn new(bug: Option<Bug>) -> Self {
        let member = |number| Member {
            number,
            position: 0,
            pending: None,
            made: 0,
            wanted: 2,
            request: None,
            answer: None,
        };
        let group = Group {
            list: vec![entry(1, true), entry(2, true)],
            ..Group::default()
        };
        Self {
            group,
            log: Vec::new(),
            members: [member(1), member(2)],
            losses: 2,
            bug,
        }
    }

    fn hub_takes(&mut self, index: usize) -> Result<(), String> {
        let Some((expect, body)) = self.members[index].request.take() else {
            return Ok(());
        };
        let at = |position: u64| {
            usize::try_from(position)
                .ok()
                .and_then(|at| self.log.get(at))
                .copied()
        };
        let forgets = self.bug == Some(Bug::OwnCommitInConflict);
        let past = if at(expect) == Some(body) && !forgets {
            Past::Same
        } else {
            Past::Other
        };
        let author = entry(self.members[index].number, true);
        let answer = match commit(
            &self.group,
            &proposal(&author, expect),
            Signer::Member,
            past,
        ) {
            Ok(Committed::Apply(change)) => {
                self.log.push(body);
                self.group = change.group;
                Answer::Position(change.position)
            }
            Ok(Committed::Repeat { position }) => Answer::Position(position),
            Err(Refusal::Conflict { head }) => {
                let missing = (expect..head).filter_map(|before| Some((before + 1, at(before)?)));
                Answer::Conflict(missing.collect())
            }
            Err(refusal) => return Err(format!("refused: {refusal}")),
        };
        self.members[index].answer = Some(answer);
        Ok(())
    }
}

impl Member {
    fn sends(&mut self) {
        let position = self.position;
        let (number, made) = (self.number, &mut self.made);
        let pending = self.pending.get_or_insert_with(|| {
            *made += 1;
            (position, (number, *made))
        });
        self.request = Some(*pending);
    }

    fn hears(&mut self, answer: Answer, bug: Option<Bug>) -> Result<(), String> {
        match answer {
            Answer::Position(position) => self.merges(position),
            Answer::Conflict(missing) => {
                for (position, body) in missing {
                    let is_own = self.pending.is_some_and(|(_, pending)| pending == body);
                    if is_own && bug != Some(Bug::OwnCommitInConflict) {
                        self.merges(position)?;
                        continue;
                    }
                    self.follows(position, body)?;
                }
                Ok(())
            }
        }
    }

    fn merges(&mut self, position: u64) -> Result<(), String> {
        if position != self.position + 1 {
            return Err("a member merges its commit at another position".to_owned());
        }
        self.position = position;
        self.pending = None;
        self.wanted -= 1;
        Ok(())
    }

    /// Another's commit: what is pending has lost and is built again.
    fn follows(&mut self, position: u64, body: Body) -> Result<(), String> {
        if body.0 == self.number {
            return Err("a member threw away a commit that the group has".to_owned());
        }
        if position == self.position + 1 {
            self.position = position;
            self.pending = None;
        }
        Ok(())
    }
}

impl World for CommitWorld {
    type Event = Event;

    fn events(&self) -> Vec<(Kind, Event)> {
        let mut events = Vec::new();
        for (index, member) in self.members.iter().enumerate() {
            let waits = member.request.is_some() || member.answer.is_some();
            if member.wanted > 0 && !waits {
                events.push((Kind::Step, Event::Sends(index)));
            }
            if member.request.is_some() {
                events.push((Kind::Step, Event::HubTakes(index)));
            }
            if member.answer.is_some() {
                events.push((Kind::Step, Event::AnswerArrives(index)));
            }
            if member.request.is_some() && self.losses > 0 {
                events.push((Kind::Fault, Event::RequestIsLost(index)));
            }
            if member.answer.is_some() && self.losses > 0 {
                events.push((Kind::Fault, Event::AnswerIsLost(index)));
            }
        }
        events
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Sends(index) => self.members[index].sends(),
            Event::HubTakes(index) => return self.hub_takes(index),
            Event::AnswerArrives(index) => {
                let member = &mut self.members[index];
                if let Some(answer) = member.answer.take() {
                    return member.hears(answer, self.bug);
                }
            }
            Event::RequestIsLost(index) => {
                self.losses -= 1;
                self.members[index].request = None;
            }
            Event::AnswerIsLost(index) => {
                self.losses -= 1;
                self.members[index].answer = None;
            }
        }
        Ok(())
    }

    fn at_rest(&self) -> Result<(), String> {
        if self.members.iter().any(|member| member.wanted > 0) {
            return Err("a commit is never accepted".to_owned());
        }
        let wanted = 2 * self.members.len();
        if self.log.len() == wanted {
            Ok(())
        } else {
            Err("a commit is there twice".to_owned())
        }
    }
}

#[test]
fn members_that_race_and_repeat_never_fork_themselves_out() {
    let report = explore(CommitWorld::new(None), 300_000);

    assert_eq!(report.broken, None);
}

#[test]
fn an_own_commit_taken_for_a_lost_one_is_found() {
    let report = explore(CommitWorld::new(Some(Bug::OwnCommitInConflict)), 300_000);

    let what = report.broken.map(|(what, _)| what);
    assert_eq!(
        what.as_deref(),
        Some("a member threw away a commit that the group has")
    );
}
