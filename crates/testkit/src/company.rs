//! People who talk in rooms while things happen to their servers, and what their devices saw in the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_client::Client;
use tempfile::TempDir;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::checker::{self, Verdict};
use crate::history::{Act, Key};
use crate::people::{Circle, PREPARATION, Room};
use crate::random::Random;
use crate::recorder::Recorder;
use crate::server::Server;
use crate::traffic::{Manner, Phase, Player, STILL_WAIT, Way, read_all, settle};

/// Accounts of the group.
const GROUP_MAX: usize = 5;

/// People with their devices and rooms.
#[derive(Debug)]
pub struct Company {
    circle: Circle,
    rooms: Vec<Room>,
    recorder: Recorder,
    _profiles: TempDir,
}

/// How they behave.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// One device in so many comes and goes; the others are always there.
    pub comes_and_goes: usize,
    /// Longest rest of a device between two messages, in milliseconds.
    pub rests_ms: u64,
}

/// Tells those who talk what to do.
#[derive(Debug)]
pub struct Director<'a> {
    recorder: &'a Recorder,
    phase: watch::Sender<Phase>,
    drained: Arc<Barrier>,
}

impl Company {
    /// `accounts` (three or more) with `devices` each join by an invite of `server`. Each account
    /// has a room with the next one, and a few have one together.
    ///
    /// # Errors
    ///
    /// What the clients say.
    pub async fn gather(server: &Server, accounts: usize, devices: usize) -> Result<Self> {
        let profiles = tempfile::tempdir()?;
        let names: Vec<String> = (0..accounts).map(|one| format!("person{one}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let circle = Circle::gather(server, profiles.path(), &names, devices).await?;
        let group: Vec<usize> = (0..accounts.min(GROUP_MAX)).collect();
        let mut rooms = vec![circle.group_of(&group).await?];
        for one in 0..accounts {
            rooms.push(circle.pair(one, (one + 1) % accounts).await?);
        }
        let recorder = Recorder::new(rooms.iter().map(|room| room.seats.clone()).collect());
        Ok(Self {
            circle,
            rooms,
            recorder,
            _profiles: profiles,
        })
    }

    /// How many devices there are.
    #[must_use]
    pub const fn devices(&self) -> usize {
        self.circle.seats.len()
    }

    /// How many rooms there are.
    #[must_use]
    pub const fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Lets all devices talk while `happens` runs, which has to end with [`Director::listen`] and
    /// [`Director::last_words`]; then compares what they showed with what they keep.
    ///
    /// # Errors
    ///
    /// Those of `happens`; a device that ended or keeps something else than it showed.
    pub async fn play(
        &self,
        manners: Manners,
        random: &mut Random,
        happens: impl AsyncFnOnce(&Director<'_>, &mut Random) -> Result<()>,
    ) -> Result<()> {
        let (phase, told) = watch::channel(Phase::Talk);
        let director = Director {
            recorder: &self.recorder,
            phase,
            drained: Arc::new(Barrier::new(self.devices() + 1)),
        };
        let mut players = JoinSet::new();
        for (device, seat) in self.circle.seats.iter().enumerate() {
            let leaves = device % manners.comes_and_goes == manners.comes_and_goes - 1;
            let way = Way {
                manner: if leaves {
                    Manner::ComesAndGoes
                } else {
                    Manner::Stays
                },
                rests_ms: manners.rests_ms,
                phase: told.clone(),
                drained: Arc::clone(&director.drained),
            };
            let place = (self.rooms.as_slice(), &self.recorder);
            let player = Player::new(&self.circle, device, place, &way, random)?;
            let client = seat.client.clone();
            players.spawn(async move { anyhow::Ok((device, player.live(client).await?)) });
        }
        tokio::select! {
            done = happens(&director, random) => done?,
            Some(ended) = players.join_next() => {
                ended??;
                bail!("a device ended too early");
            }
        }
        director.phase.send_replace(Phase::End);
        let mut clients = Vec::new();
        while let Some(ended) = players.join_next().await {
            clients.push(ended??);
        }
        clients.sort_by_key(|(device, _)| *device);
        for (device, client) in clients {
            self.compare(device, &client).await?;
            client.shutdown().await;
        }
        Ok(())
    }

    /// Compares what a device showed with the history that it keeps.
    async fn compare(&self, device: usize, client: &Client) -> Result<()> {
        let history = self.recorder.history();
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
        Ok(())
    }

    /// Judges all that happened, and writes history, verdict and the servers' logs into a directory
    /// of that name below the one for temporary files.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn judge<'a>(
        &self,
        name: &str,
        servers: impl IntoIterator<Item = &'a Server>,
    ) -> Result<(Verdict, PathBuf)> {
        let history = self.recorder.history();
        let verdict = checker::check(&history);
        let kept = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&kept)?;
        history.write(&kept.join("history.jsonl"))?;
        std::fs::write(kept.join("verdict"), format!("{verdict:#?}\n"))?;
        for (number, server) in servers.into_iter().enumerate() {
            let log = kept.join(format!("server-{number}.log"));
            std::fs::copy(server.stderr_file(), log)?;
        }
        Ok((verdict, kept))
    }
}

impl Director<'_> {
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
        settle(self.recorder).await
    }
}

/// The line of figures of a verdict.
#[must_use]
pub fn figures(verdict: &Verdict) -> String {
    format!(
        "{} sent, {} acknowledged, {} lost, {} twice, {} out of order, {} from nowhere",
        verdict.sent,
        verdict.acknowledged,
        verdict.lost.len(),
        verdict.twice.len(),
        verdict.disordered.len(),
        verdict.alien.len(),
    )
}

/// A server's log must not tell of a panic.
///
/// # Errors
///
/// If it does.
pub fn no_panic(log: &Path) -> Result<()> {
    let text = std::fs::read_to_string(log)?;
    ensure!(!text.contains("panicked"), "a server panicked");
    Ok(())
}
