//! A play: devices talk while somebody does things to their servers, until everything is quiet; then
//! what they keep is compared with what they showed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_client::Client;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::history::{Act, Key};
use crate::people::{Circle, PREPARATION, Room};
use crate::random::Random;
use crate::recorder::Recorder;
use crate::traffic::{Manner, Phase, Player, STILL_WAIT, Way, read_all, settle};

/// Who plays, where, and who takes notes.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// The devices.
    pub circle: &'a Circle,
    /// Their conversations.
    pub rooms: &'a [Room],
    /// The notes.
    pub recorder: &'a Recorder,
    /// Longest that a device rests after a message, in milliseconds.
    pub rests_ms: u64,
}

/// The devices at play.
#[derive(Debug)]
pub struct Cast(JoinSet<Result<(usize, Client)>>);

/// Tells the devices what to do.
#[derive(Debug)]
pub struct Director {
    phase: watch::Sender<Phase>,
    drained: Arc<Barrier>,
    recorder: Recorder,
}

impl Stage<'_> {
    /// Lets the devices begin to talk, each in its manner.
    ///
    /// # Errors
    ///
    /// If a room's name is no group id.
    pub fn begin(
        &self,
        random: &mut Random,
        manner: impl Fn(usize) -> Manner,
    ) -> Result<(Director, Cast)> {
        let (phase, told) = watch::channel(Phase::Talk);
        let drained = Arc::new(Barrier::new(self.circle.seats.len() + 1));
        let mut players = JoinSet::new();
        for (device, seat) in self.circle.seats.iter().enumerate() {
            let way = Way {
                manner: manner(device),
                rests_ms: self.rests_ms,
                phase: told.clone(),
                drained: Arc::clone(&drained),
            };
            let place = (self.rooms, self.recorder);
            let player = Player::new(self.circle, device, place, &way, random)?;
            let client = seat.client.clone();
            players.spawn(async move { anyhow::Ok((device, player.live(client).await?)) });
        }
        let director = Director {
            phase,
            drained,
            recorder: self.recorder.clone(),
        };
        Ok((director, Cast(players)))
    }

    /// Compares what the devices showed with the histories that they keep, and ends them.
    ///
    /// # Errors
    ///
    /// If they differ.
    pub async fn compare(&self, clients: &[Client]) -> Result<()> {
        let history = self.recorder.history();
        for (device, client) in clients.iter().enumerate() {
            for (room, one) in self.rooms.iter().enumerate() {
                if !one.seats.contains(&device) {
                    continue;
                }
                let kept = read_all(client, &one.name).await?;
                let kept = kept.iter().filter(|(text, _)| text != PREPARATION);
                let kept: Vec<_> = kept.map(|(text, _)| Key::parse(text)).collect();
                let shown = history.entries.iter().filter_map(|entry| match entry.act {
                    Act::Show(key) if entry.device == device && key.room == room => Some(Some(key)),
                    Act::Send(_) | Act::Ack(_) | Act::Show(_) | Act::ShowUnknown => None,
                });
                ensure!(
                    shown.eq(kept),
                    "device {device} keeps another history of room {room} than it showed"
                );
            }
            client.shutdown().await;
        }
        Ok(())
    }
}

impl Director {
    /// Messages that are acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.recorder.progress().borrow().acknowledged
    }

    /// Waits until another message is acknowledged; how long that took.
    ///
    /// # Errors
    ///
    /// If it takes longer than [`STILL_WAIT`].
    pub async fn progress(&self) -> Result<Duration> {
        let (mut progress, begun) = (self.recorder.progress(), Instant::now());
        let before = progress.borrow().acknowledged;
        let more = progress.wait_for(|progress| progress.acknowledged > before);
        let seen = timeout(STILL_WAIT, more).await;
        drop(seen.context("nothing is acknowledged any more")??);
        Ok(begun.elapsed())
    }

    /// Nobody says anything more: waits until the servers have custody of everything, then until
    /// all devices have it.
    ///
    /// # Errors
    ///
    /// If something does not arrive.
    pub async fn listen(&self) -> Result<()> {
        self.all_quiet(Phase::Listen).await
    }

    /// Everybody says one last thing in every room, which brings out what a server held back or
    /// would send again.
    ///
    /// # Errors
    ///
    /// If something does not arrive.
    pub async fn last_words(&self) -> Result<()> {
        self.all_quiet(Phase::Last).await
    }

    async fn all_quiet(&self, phase: Phase) -> Result<()> {
        self.phase.send_replace(phase);
        // Whoever has an outbox that does not empty gives up before.
        self.drained.wait().await;
        settle(&self.recorder).await
    }

    /// Lets the devices end.
    pub fn end(&self) {
        self.phase.send_replace(Phase::End);
    }
}

impl Cast {
    /// Awaits what is done to the servers; an end of a device before is an error.
    ///
    /// # Errors
    ///
    /// Those of `done`, and of a device that ended.
    pub async fn during<T>(&mut self, done: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = done => done,
            Some(ended) = self.0.join_next() => {
                ended??;
                bail!("a device ended too early")
            }
        }
    }

    /// The clients, after [`Director::end`].
    ///
    /// # Errors
    ///
    /// What they say.
    pub async fn clients(mut self) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        while let Some(ended) = self.0.join_next().await {
            clients.push(ended??);
        }
        clients.sort_by_key(|(device, _)| *device);
        Ok(clients.into_iter().map(|(_, client)| client).collect())
    }
}
