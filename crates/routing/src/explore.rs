//! Exhaustive runs of the machines in small worlds: breadth first over all states that any order of
//! events, faults included, can reach.

pub(crate) mod bugs;
mod commit_world;
mod fanout_world;
mod lane_events;
mod lane_steps;
mod lane_store;
mod lane_tests;
mod lane_world;
mod link_events;
mod link_steps;
mod link_tests;
mod link_world;
mod peer_events;
mod peer_tests;
mod peer_world;
mod ticket_world;

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// What an exploration runs.
pub(crate) trait World: Clone + Hash {
    type Event: Copy + Debug;

    /// What can happen next. Faults are bounded by budgets in the state.
    fn events(&self) -> Vec<(Kind, Self::Event)>;

    /// Lets it happen; an error is a broken promise.
    fn apply(&mut self, event: Self::Event) -> Result<(), String>;

    /// Promises that hold when nothing but faults can happen any more.
    fn at_rest(&self) -> Result<(), String>;
}

/// Whether an event must happen sooner or later.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Step,
    Fault,
}

/// What an exploration found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) states: usize,
    /// The broken promise and the events that led to it.
    pub(crate) broken: Option<(String, Vec<String>)>,
}

/// More than this many steps without rest is a world that goes round in circles.
const STEPS_MAX: usize = 300;

/// How many of its steps are shown then.
const SHOWN: usize = 8;

/// Visits every state; stops at the first broken promise.
///
/// From one state in 16 it also lets the world run on without faults: it must come to rest.
pub(crate) fn explore<W: World>(initial: W, states_max: usize) -> Report {
    let mut parents: HashMap<u64, (u64, W::Event)> = HashMap::new();
    let root = digest(&initial);
    let mut frontier = VecDeque::from([(root, initial)]);
    while let Some((id, world)) = frontier.pop_front() {
        let broken = |what: String, last: Option<W::Event>| Report {
            states: parents.len() + 1,
            broken: Some((what, trace(&parents, id, root, last))),
        };
        let events = world.events();
        if events.iter().all(|(kind, _)| *kind == Kind::Fault)
            && let Err(what) = world.at_rest()
        {
            return broken(format!("at rest: {what}"), None);
        }
        if id.is_multiple_of(16)
            && let Err(what) = settle(world.clone())
        {
            return broken(what, None);
        }
        let mut next = Vec::new();
        for (_, event) in events {
            let mut after = world.clone();
            if let Err(what) = after.apply(event) {
                return broken(what, Some(event));
            }
            next.push((event, after));
        }
        for (event, after) in next {
            let after_id = digest(&after);
            if after_id != root && !parents.contains_key(&after_id) {
                parents.insert(after_id, (id, event));
                frontier.push_back((after_id, after));
            }
        }
        assert!(
            parents.len() < states_max,
            "the world is larger than {states_max} states"
        );
    }
    Report {
        states: parents.len() + 1,
        broken: None,
    }
}

/// Runs on without faults until nothing is left to happen, or too long.
fn settle<W: World>(mut world: W) -> Result<(), String> {
    let mut last = VecDeque::new();
    for round in 0..STEPS_MAX {
        let mut steps = world.events();
        steps.retain(|(kind, _)| *kind == Kind::Step);
        // Not always the first one, or one busy part would starve the others.
        let Some((_, event)) = steps.get(round % steps.len().max(1)) else {
            return world
                .at_rest()
                .map_err(|what| format!("after settling: {what}"));
        };
        last.push_back(*event);
        if last.len() > SHOWN {
            last.pop_front();
        }
        world.apply(*event)?;
    }
    Err(format!(
        "does not come to rest within {STEPS_MAX} steps: {last:?}"
    ))
}

fn digest(world: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn trace<E: Copy + Debug>(
    parents: &HashMap<u64, (u64, E)>,
    mut id: u64,
    root: u64,
    last: Option<E>,
) -> Vec<String> {
    let mut events: Vec<String> = last.iter().map(|event| format!("{event:?}")).collect();
    while id != root
        && let Some((parent, event)) = parents.get(&id)
    {
        events.push(format!("{event:?}"));
        id = *parent;
    }
    events.reverse();
    events
}
