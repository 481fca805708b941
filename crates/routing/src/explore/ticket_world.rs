//! Every way in which the legs of one frame can end, some of them while others are still added.

use super::bugs::Bug;
use super::{Kind, World, explore};
use crate::ticket::{Leg, Missed, Outcome, Reason, Status, Ticket, Verdict};

const OUTCOMES: [Outcome; 6] = [
    Outcome::Delivered,
    Outcome::Relayed,
    Outcome::Stored,
    Outcome::Gone,
    Outcome::Refused(Reason::Full),
    Outcome::Failed,
];

#[derive(Clone, Hash)]
struct TicketWorld {
    recipients: u16,
    added: u16,
    ticket: Ticket,
    guard: Option<Leg>,
    open: Vec<(u16, Leg)>,
    ended: Vec<Option<Outcome>>,
    returning: bool,
    expired: bool,
    verdict: Option<Verdict>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Add,
    DropGuard,
    Settle(usize, Outcome),
    Returned(Outcome),
    Expire,
}

impl TicketWorld {
    fn new(recipients: u16, bug: Option<Bug>) -> Self {
        let (ticket, guard) = if bug == Some(Bug::NoGuardLeg) {
            (Ticket::without_guard(), None)
        } else {
            let (ticket, guard) = Ticket::new();
            (ticket, Some(guard))
        };
        Self {
            recipients,
            added: 0,
            ticket,
            guard,
            open: Vec::new(),
            ended: vec![None; recipients.into()],
            returning: false,
            expired: false,
            verdict: None,
        }
    }

    fn judge(&mut self, verdict: Option<Verdict>) -> Result<(), String> {
        let Some(verdict) = verdict else {
            return Ok(());
        };
        if self.verdict.is_some() {
            return Err("a second verdict".to_owned());
        }
        if let Verdict::Return(missed) = &verdict {
            self.returning = true;
            return self.check_missed(missed);
        }
        if let Verdict::Done(status) = verdict {
            self.check_status(status)?;
        }
        self.verdict = Some(verdict);
        Ok(())
    }

    fn check_missed(&self, missed: &[Missed]) -> Result<(), String> {
        for (recipient, ended) in (0..).zip(&self.ended) {
            let reason = match ended {
                Some(Outcome::Gone) => Some(Reason::Gone),
                Some(Outcome::Refused(reason)) => Some(*reason),
                Some(_) | None => None,
            };
            let named = missed.iter().find(|missed| missed.recipient == recipient);
            if named.map(|missed| missed.reason) != reason {
                return Err(format!("recipient {recipient} is named wrongly"));
            }
        }
        Ok(())
    }

    /// The order of CCP-1 section 4.
    fn check_status(&self, status: Status) -> Result<(), String> {
        let any = |wanted: fn(&Outcome) -> bool| self.ended.iter().flatten().any(wanted);
        if self.ended.iter().any(Option::is_none) {
            return Err("done before every recipient's leg has ended".to_owned());
        }
        if any(|outcome| *outcome == Outcome::Failed) {
            return Err("done without custody for a recipient".to_owned());
        }
        let expected = if any(|outcome| matches!(outcome, Outcome::Refused(_))) {
            Status::Refused
        } else if any(|outcome| matches!(outcome, Outcome::Stored | Outcome::Gone)) {
            Status::Stored
        } else if any(|outcome| *outcome == Outcome::Relayed) {
            Status::Relayed
        } else {
            Status::Delivered
        };
        if status == expected {
            Ok(())
        } else {
            Err(format!("{status:?}, not {expected:?}"))
        }
    }
}

impl World for TicketWorld {
    type Event = Event;

    fn events(&self) -> Vec<(Kind, Event)> {
        let mut events = Vec::new();
        if self.added < self.recipients {
            events.push((Kind::Step, Event::Add));
        } else if self.guard.is_some() {
            events.push((Kind::Step, Event::DropGuard));
        }
        for leg in 0..self.open.len() {
            events.extend(OUTCOMES.map(|outcome| (Kind::Step, Event::Settle(leg, outcome))));
        }
        if self.returning && self.verdict.is_none() {
            for outcome in [Outcome::Stored, Outcome::Delivered, Outcome::Failed] {
                events.push((Kind::Step, Event::Returned(outcome)));
            }
        }
        if !self.expired {
            events.push((Kind::Fault, Event::Expire));
        }
        events
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        let verdict = match event {
            Event::Add => {
                self.open.push((self.added, self.ticket.add(self.added)));
                self.added += 1;
                None
            }
            Event::DropGuard => match self.guard.take() {
                Some(guard) => self.ticket.settle(guard, Outcome::Delivered),
                None => None,
            },
            Event::Settle(index, outcome) => {
                let (recipient, leg) = self.open.remove(index);
                self.ended[usize::from(recipient)] = Some(outcome);
                self.ticket.settle(leg, outcome)
            }
            Event::Returned(outcome) => self.ticket.returned(outcome),
            Event::Expire => {
                self.expired = true;
                self.ticket.expire()
            }
        };
        self.judge(verdict)
    }

    fn at_rest(&self) -> Result<(), String> {
        if self.verdict.is_none() {
            return Err("the frame is never answered".to_owned());
        }
        Ok(())
    }
}

#[test]
fn a_ticket_is_done_once_and_only_when_every_recipient_is_in_custody() {
    for recipients in 0..=3 {
        let report = explore(TicketWorld::new(recipients, None), 100_000);

        assert_eq!(report.broken, None, "{recipients} recipients");
    }
}

#[test]
fn a_ticket_without_its_guard_is_found_to_be_done_too_early() {
    let report = explore(TicketWorld::new(2, Some(Bug::NoGuardLeg)), 100_000);

    let what = report.broken.map(|(what, _)| what);
    assert_eq!(
        what.as_deref(),
        Some("done before every recipient's leg has ended")
    );
}
