//! How the world of two nodes changes with each event.

use std::time::Duration;

use super::lane_store::{Connection, Read};
use super::lane_world::send;
use super::link_events::{Event, NodeEvent};
use super::link_world::{Leg, LinkWorld, Message, Node, Session, queue};
use crate::lane::{Attachment, Position, Pumped, Spooled};
use crate::link::{Arrival, Moment};

/// Longer than any node has patience.
const LONG: Duration = Duration::from_secs(60);

impl LinkWorld {
    pub(super) fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::AuthorSends => match self.author.next() {
                Some(item) => self.accept(item),
                None => Ok(()),
            },
            Event::AuthorGetsAnswers => {
                for item in std::mem::take(&mut self.author.answers) {
                    if !self.author.acked.contains(&item) {
                        self.author.acked.push(item);
                    }
                }
                self.author.acked.sort_unstable();
                Ok(())
            }
            Event::AuthorMoves => {
                self.plan.author_moves -= 1;
                self.author_at = 1 - self.author_at;
                self.author.answers.clear();
                self.author.rebind();
                Ok(())
            }
            Event::Connects(at) => self.connect(at),
            Event::DeviceMoves => {
                self.plan.device_moves -= 1;
                self.old = self.session.take();
                let at = self.old.as_ref().map_or(0, |old| 1 - old.node);
                self.connect(at)
            }
            Event::Receives => self.receive(),
            Event::SessionGetsAck => self.session_gets_ack(),
            Event::SessionPumps => self.pump(),
            Event::PageArrives => self.page_arrives(),
            Event::OldSessionGetsAck => self.old_session_gets_ack(),
            Event::OldSessionEnds => self.old_session_ends(),
            Event::Deletes => {
                for item in self.rows.delete() {
                    if !self.shown.contains(&item) {
                        return Err(format!("the row of {item} is deleted unseen"));
                    }
                }
                Ok(())
            }
            Event::Crashes(at) => {
                self.crash(at);
                Ok(())
            }
            Event::Flushes => {
                self.plan.flushes -= 1;
                self.route = None;
                Ok(())
            }
            Event::At(at, event) => self.node_acts(at, event),
        }
    }

    fn node_acts(&mut self, at: usize, event: NodeEvent) -> Result<(), String> {
        let now = self.now;
        match event {
            NodeEvent::Hears => match self.nodes[at].wire.pop_front() {
                Some(message) => self.hear(at, message),
                None => Ok(()),
            },
            NodeEvent::HearsTwice => {
                self.plan.repeats -= 1;
                let message = self.nodes[at].wire.front().cloned();
                self.nodes[at].wire.extend(message);
                Ok(())
            }
            NodeEvent::Loses => {
                self.plan.drops -= 1;
                self.nodes[at].wire.pop_front();
                Ok(())
            }
            NodeEvent::SpoolCommits => {
                let Some(insert) = self.nodes[at].spool.take() else {
                    return Ok(());
                };
                let positions = self.rows.commit(&insert);
                self.with_lane(at, |lane, out| {
                    lane.spooled(positions.into_iter().map(Spooled::Stored), out);
                })?;
                if !self.nodes[at].local().attached {
                    self.broadcast(at, Message::Wake);
                }
                Ok(())
            }
            NodeEvent::HoldPasses => self.with_lane(at, |lane, out| lane.tick(now, out)),
            NodeEvent::RouteComes => {
                self.nodes[at].asking = false;
                let me = self.incarnation(at);
                let node = self.route.map(|(_, node)| node);
                let node = node.filter(|node| *node != me);
                self.with_dispatch(at, |dispatch, at, out| {
                    dispatch.routed(queue(), node, at, out);
                })
            }
            NodeEvent::Parts => {
                self.plan.partings -= 1;
                self.with_dispatch(at, |dispatch, at, out| dispatch.part(at, out))
            }
            NodeEvent::Joins => {
                self.nodes[at].dispatch.join();
                Ok(())
            }
            NodeEvent::Announces => self.announce(at),
            NodeEvent::Polls => {
                let head = Position::new(self.rows.last);
                self.with_lane(at, |lane, out| lane.poll(head, out))
            }
            NodeEvent::TimePasses => {
                if !self.nothing_is_under_way(at) {
                    self.plan.late -= 1;
                }
                self.with_dispatch(at, |dispatch, at, out| {
                    dispatch.tick(
                        Moment {
                            now: now + LONG,
                            ..at
                        },
                        out,
                    );
                })
            }
        }
    }

    fn hear(&mut self, at: usize, message: Message) -> Result<(), String> {
        match message {
            Message::Parcel(from, parcel) => {
                let incoming = self.nodes[at].incoming.entry(from).or_default();
                let mut arrival = incoming.arrives(parcel.attempt, parcel.number);
                if self.plan.bug == Some(super::bugs::Bug::GapTaken) && arrival == Arrival::Broken {
                    arrival = Arrival::Take;
                }
                match arrival {
                    Arrival::Old => Ok(()),
                    Arrival::Broken => {
                        let me = self.incarnation(at);
                        self.send(at, from, Message::Broken(me, parcel.attempt));
                        Ok(())
                    }
                    Arrival::Take => {
                        let leg = Leg::Far {
                            from,
                            attempt: parcel.attempt,
                            number: parcel.number,
                        };
                        self.append(at, parcel.envelope, leg, parcel.reading)
                    }
                }
            }
            Message::Answer(from, answer) => self.with_dispatch(at, |dispatch, at, out| {
                dispatch.answered(from, answer, at, out);
            }),
            Message::Broken(from, attempt) => self.with_dispatch(at, |dispatch, at, out| {
                dispatch.broken(from, attempt, at, out);
            }),
            Message::Wake if self.nodes[at].lane.is_some() => {
                self.with_lane(at, |lane, out| lane.poke(out))
            }
            Message::Wake => Ok(()),
            Message::Attached(node, stamp) => {
                self.replace_older(at, stamp)?;
                self.with_dispatch(at, |dispatch, at, out| {
                    dispatch.routed(queue(), Some(node), at, out);
                })
            }
        }
    }

    /// When the device whose session is at this node connected, if there is one.
    pub(super) fn attached_at(&self, at: usize) -> Option<u64> {
        [&self.session, &self.old]
            .into_iter()
            .flatten()
            .find(|session| session.node == at)
            .map(|session| session.stamp)
    }

    fn announce(&mut self, at: usize) -> Result<(), String> {
        let Some(stamp) = self.attached_at(at) else {
            return Ok(());
        };
        match self.route {
            Some((there, _)) if there > stamp => self.replace_older(at, there),
            Some(_) | None => {
                let me = self.incarnation(at);
                self.route = Some((stamp, me));
                self.broadcast(at, Message::Attached(me, stamp));
                Ok(())
            }
        }
    }

    /// A connection of the device on another node is newer.
    fn replace_older(&mut self, at: usize, stamp: u64) -> Result<(), String> {
        let is_older = |session: &Session| session.node == at && session.stamp < stamp;
        if self.session.as_ref().is_some_and(is_older) {
            return Err("the device's present connection is replaced".to_owned());
        }
        if self.old.as_ref().is_some_and(is_older) {
            return self.old_session_ends();
        }
        Ok(())
    }

    fn old_session_ends(&mut self) -> Result<(), String> {
        let Some(old) = self.old.take() else {
            return Ok(());
        };
        let attachment = Attachment::new(old.stamp);
        self.with_lane(old.node, |lane, out| lane.detach(attachment, out))
    }

    fn connect(&mut self, at: usize) -> Result<(), String> {
        self.stamps += 1;
        let stamp = self.stamps;
        self.session = Some(Session {
            node: at,
            stamp,
            connection: Connection::new(stamp),
        });
        self.with_lane(at, |lane, out| lane.attach(Attachment::new(stamp), out))
    }

    fn receive(&mut self) -> Result<(), String> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let item = session.connection.down.remove(0);
        session.connection.received += 1;
        if self.shown.contains(&item) {
            return Ok(());
        }
        let mut earlier = self.author.items.iter().take_while(|there| **there != item);
        if let Some(missing) = earlier.find(|there| !self.shown.contains(there)) {
            return Err(format!("{item} is shown before {missing}"));
        }
        self.shown.push(item);
        Ok(())
    }

    fn session_gets_ack(&mut self) -> Result<(), String> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let connection = &mut session.connection;
        connection.acked = connection.received;
        connection.runnable = true;
        let entries: Vec<_> = match connection.unacked.acked(connection.received) {
            Ok(entries) => entries.collect(),
            Err(error) => return Err(error.to_string()),
        };
        let at = session.node;
        self.with_lane(at, |lane, out| lane.acked(entries, out))
    }

    fn old_session_gets_ack(&mut self) -> Result<(), String> {
        let Some(old) = &mut self.old else {
            return Ok(());
        };
        let connection = &mut old.connection;
        connection.acked = connection.received;
        let entries: Vec<_> = match connection.unacked.acked(connection.received) {
            Ok(entries) => entries.collect(),
            Err(error) => return Err(error.to_string()),
        };
        let at = old.node;
        self.with_lane(at, |lane, out| lane.acked(entries, out))
    }

    fn pump(&mut self) -> Result<(), String> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let Some(lane) = &mut self.nodes[session.node].lane else {
            return Err("a session without a lane".to_owned());
        };
        let connection = &mut session.connection;
        let mut sends = Vec::new();
        let room = connection.unacked.room(8, 8);
        connection.runnable = false;
        match lane.pump(Attachment::new(session.stamp), room, &mut sends) {
            Pumped::ReadPage { after } => connection.read = Some(Read::Asked(after)),
            Pumped::Idle | Pumped::Full | Pumped::Reading => {}
            pumped @ (Pumped::More | Pumped::Emptied | Pumped::Detached) => {
                return Err(format!("the present session is told {pumped:?}"));
            }
        }
        send(connection, &sends);
        Ok(())
    }

    fn page_arrives(&mut self) -> Result<(), String> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let Some(lane) = &mut self.nodes[session.node].lane else {
            return Err("a session without a lane".to_owned());
        };
        let connection = &mut session.connection;
        let Some(Read::Asked(after)) = connection.read.take() else {
            return Ok(());
        };
        let mut sends = Vec::new();
        let page = self.rows.page(after, 2);
        let pumped = lane.page(Attachment::new(session.stamp), page, &mut sends);
        connection.runnable = matches!(pumped, Pumped::More | Pumped::Emptied);
        send(connection, &sends);
        Ok(())
    }

    /// A node dies: everything in its memory is gone, its connections break, another life begins.
    fn crash(&mut self, at: usize) {
        self.plan.crashes -= 1;
        let life = self.nodes[at].life + 1;
        self.nodes[at] = Node::new(life, self.plan.bug);
        if self.author_at == at {
            self.author.answers.clear();
            self.author.rebind();
        }
        // Tickets of the dead node; those at the other one are its author's no more.
        self.legs.retain(|_, custody| custody.node != at);
        for session in [&mut self.session, &mut self.old] {
            if session.as_ref().is_some_and(|session| session.node == at) {
                *session = None;
            }
        }
    }
}
