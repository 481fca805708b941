//! People who talk in rooms while things happen to their servers, and what their devices saw in the end.

use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;

use crate::checker::{self, Verdict};
use crate::people::{Circle, Room};
use crate::random::Random;
use crate::recorder::Recorder;
use crate::report;
use crate::server::Server;
use crate::stage::{Director, Stage};
use crate::traffic::Manner;

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
        happens: impl AsyncFnOnce(&Director, &mut Random) -> Result<()>,
    ) -> Result<()> {
        let stage = Stage {
            circle: &self.circle,
            rooms: &self.rooms,
            recorder: &self.recorder,
            rests_ms: manners.rests_ms,
        };
        let manner = |device| {
            if device % manners.comes_and_goes == manners.comes_and_goes - 1 {
                Manner::ComesAndGoes
            } else {
                Manner::Stays
            }
        };
        let (director, mut cast) = stage.begin(random, manner)?;
        cast.during(happens(&director, random)).await?;
        director.end();
        stage.compare(&cast.clients().await?).await
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
        let kept = report::keep(name, (&history, &verdict), servers)?;
        Ok((verdict, kept))
    }
}
