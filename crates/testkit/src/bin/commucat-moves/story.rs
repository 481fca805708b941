//! Three people and their group: one writes, one is there, one is away.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use commucat_client::Client;
use commucat_testkit::people::{Circle, PREPARATION, Room, STEP_WAIT, told, until};
use commucat_testkit::server::Server;
use commucat_testkit::traffic::read_all;

/// The people.
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Messages that are looked at in one go.
const PAGE: u32 = 5_000;

/// Who is who, and where they talk.
pub(crate) struct Story {
    circle: Circle,
    pub(crate) room: Room,
    pub(crate) alice: Client,
    pub(crate) bob: Client,
}

impl Story {
    /// Makes the group; carol goes away.
    pub(crate) async fn begin(server: &Server, directory: &Path) -> Result<Self> {
        let circle = Circle::gather(server, directory, &NAMES, 1).await?;
        let room = circle.group().await?;
        circle.first(2)?.shutdown().await;
        Ok(Self {
            alice: circle.first(0)?.clone(),
            bob: circle.first(1)?.clone(),
            circle,
            room,
        })
    }

    /// Alice hands so many messages over.
    pub(crate) async fn say(&self, what: &str, messages: u64) -> Result<()> {
        for number in 1..=messages {
            let text = format!("{what} {number}");
            self.alice
                .send(&self.room.name, &text)
                .await
                .map_err(told)?;
        }
        Ok(())
    }

    /// Waits until the server has custody of all that alice said.
    pub(crate) async fn acknowledged(&self) -> Result<()> {
        until(&self.alice, "everything acknowledged", async |client| {
            let all = client.conversations().await?;
            Ok(all.iter().all(|one| one.unsent == 0).then_some(()))
        })
        .await
    }

    /// Waits until bob shows it.
    pub(crate) async fn bob_shows(&self, text: &str) -> Result<()> {
        shows(&self.bob, &self.room, text).await
    }

    /// Carol comes back and reads on until she has `last`; what she has then.
    pub(crate) async fn carol_returns(&self, last: &str) -> Result<(Client, Vec<String>)> {
        let seat = self.circle.seats.get(2).context("no third device")?;
        let carol = Client::open(seat.settings.clone()).await.map_err(told)?;
        carol.connected(STEP_WAIT).await.map_err(told)?;
        shows(&carol, &self.room, last).await?;
        let texts = texts(&carol, &self.room).await?;
        Ok((carol, texts))
    }
}

async fn shows(client: &Client, room: &Room, text: &str) -> Result<()> {
    let seen = Cell::new(0);
    let found = until(client, text, async |client| {
        let page = client.history(&room.name, seen.get(), PAGE).await?;
        seen.set(page.last().map_or(seen.get(), |last| last.number));
        Ok(page.iter().any(|one| one.text == text).then_some(()))
    });
    found.await
}

/// All that a device shows in the room, without the preparation.
pub(crate) async fn texts(client: &Client, room: &Room) -> Result<Vec<String>> {
    let all = read_all(client, &room.name).await?;
    let texts = all.into_iter().map(|(text, _)| text);
    Ok(texts.filter(|text| text != PREPARATION).collect())
}

/// Nothing is there twice, and everything of `what` is, in its order.
pub(crate) fn judge(who: &str, texts: &[String], what: &[(&str, u64)]) -> Result<()> {
    let mut seen = HashSet::new();
    for text in texts {
        ensure!(seen.insert(text), "{who} shows `{text}` twice");
    }
    for (what, messages) in what {
        let prefix = format!("{what} ");
        let found = texts.iter().filter(|text| text.starts_with(&prefix));
        let wanted = (1..=*messages).map(|number| format!("{what} {number}"));
        ensure!(
            found.eq(wanted.collect::<Vec<_>>().iter()),
            "{who} does not show all of `{what}` in its order"
        );
    }
    Ok(())
}
