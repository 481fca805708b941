//! What can happen in the world of two nodes.

use super::lane_store::Read;
use super::link_world::LinkWorld;
use super::{Kind, World};
use crate::lane::{Lane, Position};

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    AuthorSends,
    AuthorGetsAnswers,
    AuthorMoves,
    Connects(usize),
    DeviceMoves,
    Receives,
    SessionGetsAck,
    SessionPumps,
    PageArrives,
    OldSessionGetsAck,
    OldSessionEnds,
    Deletes,
    Crashes(usize),
    Flushes,
    At(usize, NodeEvent),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum NodeEvent {
    Hears,
    Loses,
    HearsTwice,
    SpoolCommits,
    HoldPasses,
    RouteComes,
    Announces,
    Polls,
    TimePasses,
    Parts,
    Joins,
}

impl World for LinkWorld {
    type Event = Event;

    fn events(&self) -> Vec<(Kind, Event)> {
        let mut events = Vec::new();
        let mut step = |enabled: bool, event| {
            if enabled {
                events.push((Kind::Step, event));
            }
        };
        step(!self.author.answers.is_empty(), Event::AuthorGetsAnswers);
        step(self.author.next().is_some(), Event::AuthorSends);
        step(!self.rows.deletes.is_empty(), Event::Deletes);
        match &self.session {
            None => {
                step(true, Event::Connects(0));
                step(true, Event::Connects(1));
            }
            Some(session) => {
                let connection = &session.connection;
                let asked = matches!(connection.read, Some(Read::Asked(_)));
                step(!connection.down.is_empty(), Event::Receives);
                step(
                    connection.received > connection.acked,
                    Event::SessionGetsAck,
                );
                step(connection.runnable, Event::SessionPumps);
                step(asked, Event::PageArrives);
            }
        }
        if let Some(old) = &self.old {
            let connection = &old.connection;
            step(
                connection.received > connection.acked,
                Event::OldSessionGetsAck,
            );
            step(true, Event::OldSessionEnds);
        }
        for at in 0..2 {
            self.node_steps(at, &mut step);
        }
        self.faults(&mut events);
        events
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        self.happen(event)?;
        let answered = self.author.acked.iter().chain(&self.author.answers);
        for item in answered {
            if !self.shown.contains(item) && !self.rows.holds(*item) {
                return Err(format!("{item} is acknowledged and lost"));
            }
        }
        Ok(())
    }

    fn at_rest(&self) -> Result<(), String> {
        if self.author.acked.len() != self.author.items.len() {
            return Err(format!("the author waits: {:?}", self.author.acked));
        }
        if let Some(missing) = self
            .author
            .items
            .iter()
            .find(|item| !self.shown.contains(item))
        {
            return Err(format!("{missing} is not shown"));
        }
        if let Some((_, item)) = self.rows.rows.first() {
            return Err(format!("the row of {item} stays though the device has it"));
        }
        let is_idle = |node: &super::link_world::Node| {
            node.dispatch.is_idle() && node.lane.as_ref().is_none_or(Lane::is_empty)
        };
        if !self.legs.is_empty() || !self.nodes.iter().all(is_idle) {
            return Err("something is held for nobody".to_owned());
        }
        Ok(())
    }
}

impl LinkWorld {
    fn node_steps(&self, at: usize, step: &mut impl FnMut(bool, Event)) {
        let node = &self.nodes[at];
        let lane = node.lane.as_ref();
        step(!node.wire.is_empty(), Event::At(at, NodeEvent::Hears));
        step(node.spool.is_some(), Event::At(at, NodeEvent::SpoolCommits));
        step(
            lane.is_some_and(|lane| lane.deadline().is_some()),
            Event::At(at, NodeEvent::HoldPasses),
        );
        step(node.asking, Event::At(at, NodeEvent::RouteComes));
        step(
            self.attached_at(at)
                .is_some_and(|stamp| self.route.is_none_or(|(there, _)| there != stamp)),
            Event::At(at, NodeEvent::Announces),
        );
        // Every two seconds, which is long after the session has done what it does.
        let is_quiet = |session: &super::link_world::Session| {
            session.node == at && !session.connection.runnable && session.connection.read.is_none()
        };
        step(
            lane.is_some_and(|lane| lane.is_behind(Position::new(self.rows.last)))
                && self.session.as_ref().is_some_and(is_quiet),
            Event::At(at, NodeEvent::Polls),
        );
        step(node.dispatch.is_alone(), Event::At(at, NodeEvent::Joins));
        step(
            self.nothing_is_under_way(at),
            Event::At(at, NodeEvent::TimePasses),
        );
    }

    /// Whether the node would wait in vain: then time passes.
    pub(super) fn nothing_is_under_way(&self, at: usize) -> bool {
        let (node, other) = (&self.nodes[at], &self.nodes[1 - at]);
        let is_still = |node: &super::link_world::Node| {
            node.wire.is_empty()
                && node.spool.is_none()
                && !node.asking
                && node.lane.as_ref().is_none_or(Lane::is_settled)
        };
        !node.dispatch.is_idle() && is_still(node) && is_still(other)
    }

    fn faults(&self, events: &mut Vec<(Kind, Event)>) {
        let mut fault = |enabled: bool, event| {
            if enabled {
                events.push((Kind::Fault, event));
            }
        };
        let plan = &self.plan;
        fault(
            plan.author_moves > 0 && !self.author.sent.is_empty(),
            Event::AuthorMoves,
        );
        fault(
            plan.device_moves > 0 && self.session.is_some() && self.old.is_none(),
            Event::DeviceMoves,
        );
        fault(plan.flushes > 0 && self.route.is_some(), Event::Flushes);
        for at in 0..2 {
            let node = &self.nodes[at];
            let hears = !node.wire.is_empty();
            fault(plan.drops > 0 && hears, Event::At(at, NodeEvent::Loses));
            fault(
                plan.repeats > 0 && hears,
                Event::At(at, NodeEvent::HearsTwice),
            );
            fault(plan.crashes > 0, Event::Crashes(at));
            fault(
                plan.partings > 0 && !node.dispatch.is_alone(),
                Event::At(at, NodeEvent::Parts),
            );
            fault(
                plan.late > 0 && !node.dispatch.is_idle(),
                Event::At(at, NodeEvent::TimePasses),
            );
        }
    }
}
