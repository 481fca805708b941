//! What can happen in the world of a peer, and what follows.

use super::bugs::Bug;
use super::peer_world::{PeerWorld, Taken};
use super::{Kind, World};
use crate::peer::PeerLane;

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    AuthorSends,
    AuthorGetsAnswers,
    AuthorBreaks,
    HoldPasses,
    SpoolCommits,
    SpoolFails,
    SpoolFailsThoughCommitted,
    CommitCommits,
    CommitPokes,
    Deletes,
    Connects,
    Works,
    PageArrives,
    Net(Net),
}

/// Events of the network, of the peer, and of whole servers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Net {
    RequestArrives,
    /// All but this many of its events are wanted later.
    RequestArrivesWanted(usize),
    RequestTimesOut,
    LateRequestArrives,
    PeerAnswers,
    OrphanEnds,
    AnswerArrives,
    PeerStores,
    DeviceTakes,
    Crashes,
    PeerCrashes,
}

impl World for PeerWorld {
    type Event = Event;

    fn events(&self) -> Vec<(Kind, Event)> {
        let mut events = Vec::new();
        let mut step = |enabled: bool, event| {
            if enabled {
                events.push((Kind::Step, event));
            }
        };
        let is_free = self.commit.is_none();
        step(self.author.next().is_some() && is_free, Event::AuthorSends);
        step(!self.author.answers.is_empty(), Event::AuthorGetsAnswers);
        step(self.spool.is_some(), Event::SpoolCommits);
        let committed = self.commit.as_ref().map(|(_, committed, ..)| *committed);
        step(committed == Some(false), Event::CommitCommits);
        step(committed == Some(true), Event::CommitPokes);
        step(!self.rows.deletes.is_empty(), Event::Deletes);
        let lane = self.lane.as_ref();
        let is_connected = lane.is_some_and(PeerLane::is_connected);
        let has_work = lane.is_some() || !self.rows.rows.is_empty();
        step(!is_connected && has_work, Event::Connects);
        step(is_connected && self.runnable, Event::Works);
        step(self.read.is_some(), Event::PageArrives);
        step(self.request.is_some(), Event::Net(Net::RequestArrives));
        step(self.late.is_some(), Event::Net(Net::LateRequestArrives));
        let done = |taken: &Option<Taken>| taken.as_ref().is_some_and(|taken| self.is_done(taken));
        step(done(&self.taken), Event::Net(Net::PeerAnswers));
        step(done(&self.orphan), Event::Net(Net::OrphanEnds));
        step(self.answer.is_some(), Event::Net(Net::AnswerArrives));
        step(
            self.queue.iter().any(|queued| !queued.on_disk),
            Event::Net(Net::PeerStores),
        );
        step(!self.queue.is_empty(), Event::Net(Net::DeviceTakes));
        let is_held = lane.is_some_and(|lane| lane.look().deadline().is_some());
        step(is_held, Event::HoldPasses);
        self.faults(&mut events);
        events
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        self.happen(event)?;
        self.nothing_is_lost()
    }

    fn at_rest(&self) -> Result<(), String> {
        if self.author.acked.len() != self.plan.items.len() {
            return Err(format!("the author waits: {:?}", self.author.acked));
        }
        let mut items = self.plan.items.iter();
        if let Some(missing) = items.find(|item| !self.shown.contains(item)) {
            return Err(format!("{missing} is not shown"));
        }
        if let Some((_, item)) = self.rows.rows.first() {
            return Err(format!("the row of {item} stays though the peer has it"));
        }
        match &self.lane {
            Some(lane) if !lane.look().is_empty() => Err("the window is not empty".to_owned()),
            _ => Ok(()),
        }
    }
}

impl PeerWorld {
    fn faults(&self, events: &mut Vec<(Kind, Event)>) {
        let mut fault = |enabled: bool, event| {
            if enabled {
                events.push((Kind::Fault, event));
            }
        };
        let plan = &self.plan;
        fault(
            plan.author_breaks > 0 && !self.author.sent.is_empty(),
            Event::AuthorBreaks,
        );
        let fails = plan.store_faults > 0 && self.spool.is_some();
        fault(fails, Event::SpoolFails);
        fault(fails, Event::SpoolFailsThoughCommitted);
        let is_out = self.request.is_some() || self.taken.is_some() || self.answer.is_some();
        let has_room = self.late.is_none() && self.orphan.is_none();
        fault(
            plan.losses > 0 && is_out && has_room,
            Event::Net(Net::RequestTimesOut),
        );
        if plan.laters > 0
            && let Some(request) = &self.request
        {
            for wanted in 0..request.items.len() {
                fault(true, Event::Net(Net::RequestArrivesWanted(wanted)));
            }
        }
        fault(plan.crashes > 0, Event::Net(Net::Crashes));
        fault(plan.peer_crashes > 0, Event::Net(Net::PeerCrashes));
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::AuthorSends => {
                if let Some(item) = self.author.next() {
                    return self.accept(item);
                }
            }
            Event::AuthorGetsAnswers => {
                for item in std::mem::take(&mut self.author.answers) {
                    if !self.author.acked.contains(&item) {
                        self.author.acked.push(item);
                    }
                }
                self.author.acked.sort_unstable();
            }
            Event::AuthorBreaks => {
                self.plan.author_breaks -= 1;
                self.author.answers.clear();
                self.author.rebind();
            }
            Event::HoldPasses => {
                let now = self.now;
                return self.with_lane(|lane, out| lane.lane().tick(now, out));
            }
            Event::SpoolCommits => return self.spooled(),
            Event::SpoolFails | Event::SpoolFailsThoughCommitted => {
                self.plan.store_faults -= 1;
                let insert = self.spool.take();
                if let (Event::SpoolFailsThoughCommitted, Some(insert)) = (event, insert) {
                    self.rows.commit(&insert);
                }
                return self.with_lane(|lane, out| lane.lane().spool_failed(out));
            }
            Event::CommitCommits => {
                if let Some((insert, committed, item, _)) = &mut self.commit {
                    *committed = true;
                    self.rows.commit(insert);
                    self.log.push(*item);
                }
            }
            Event::CommitPokes => return self.commit_pokes(),
            Event::Deletes => {
                for item in self.rows.delete() {
                    if !self.peer_has(item) {
                        return Err(format!("the row of {item} is deleted too early"));
                    }
                }
            }
            Event::Connects => {
                self.with_lane(PeerLane::connect)?;
                self.runnable = true;
            }
            Event::Works => return self.works(),
            Event::PageArrives => return self.page_arrives(),
            Event::Net(event) => return self.network(event),
        }
        Ok(())
    }

    fn commit_pokes(&mut self) -> Result<(), String> {
        let Some((_, _, item, channel)) = self.commit.take() else {
            return Ok(());
        };
        if self.lane.is_some() && self.plan.bug != Some(Bug::CommitWithoutPoke) {
            self.with_lane(|lane, out| lane.lane().poke(out))?;
        }
        if self.author.channel == channel {
            self.author.answers.push(item);
        }
        Ok(())
    }

    fn network(&mut self, event: Net) -> Result<(), String> {
        match event {
            Net::RequestArrives => self.request_arrives(usize::MAX),
            Net::RequestArrivesWanted(wanted) => {
                self.plan.laters -= 1;
                self.request_arrives(wanted);
            }
            Net::LateRequestArrives => {
                if let Some(request) = self.late.take() {
                    let wanted = request.items.len();
                    let taken = self.takes(request, wanted, false);
                    self.orphan = Some(taken);
                }
            }
            Net::RequestTimesOut => return self.times_out(),
            Net::PeerAnswers => {
                self.answer = self.taken.take().map(|taken| taken.wanted);
            }
            Net::OrphanEnds => self.orphan = None,
            Net::AnswerArrives => {
                if let Some(custody) = self.answer.take() {
                    return self.answered(custody);
                }
            }
            Net::PeerStores => {
                for queued in &mut self.queue {
                    queued.on_disk = true;
                }
            }
            Net::DeviceTakes => return self.shows(),
            Net::Crashes => self.crash(),
            Net::PeerCrashes => {
                self.plan.peer_crashes -= 1;
                self.queue.retain(|queued| queued.on_disk);
                (self.orphan, self.late) = (None, None);
                // Without an answer the request fails at its sender.
                if self.taken.take().is_some() || self.request.take().is_some() {
                    return self.with_lane(PeerLane::failed);
                }
            }
        }
        Ok(())
    }

    fn request_arrives(&mut self, wanted: usize) {
        if let Some(request) = self.request.take() {
            let wanted = wanted.min(request.items.len());
            let taken = self.takes(request, wanted, true);
            self.taken = Some(taken);
        }
    }

    fn times_out(&mut self) -> Result<(), String> {
        self.plan.losses -= 1;
        self.answer = None;
        self.late = self.request.take();
        self.orphan = self.taken.take().map(|taken| Taken {
            awaited: false,
            ..taken
        });
        if self.plan.bug == Some(Bug::SkipUnanswered) {
            return self.skip_unanswered();
        }
        self.with_lane(PeerLane::failed)
    }

    /// The planted bug: what was out counts as sent, and the lane goes on behind it.
    fn skip_unanswered(&mut self) -> Result<(), String> {
        self.with_lane(|lane, _| lane.skip_out())?;
        self.runnable = true;
        Ok(())
    }

    /// Everything in memory of the sending server is gone.
    fn crash(&mut self) {
        self.plan.crashes -= 1;
        self.lane = None;
        self.legs.clear();
        (self.spool, self.commit, self.read, self.answer) = (None, None, None, None);
        self.rows.deletes.clear();
        self.runnable = false;
        if self.late.is_none() {
            self.late = self.request.take();
        }
        self.request = None;
        if self.orphan.is_none() {
            self.orphan = self.taken.take();
        }
        self.taken = None;
        self.author.answers.clear();
        self.author.rebind();
    }
}
