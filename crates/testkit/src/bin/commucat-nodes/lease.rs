//! The right to send to another domain, which one node has at a time: it dies, or stands still, while
//! events wait. The other one takes over, and all arrives, once and in order.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commucat_client::{Client, Tick};
use commucat_testkit::domain::Domain;
use commucat_testkit::people::{Circle, Room, invite, told};
use commucat_testkit::server::{Options, Server};
use tokio::time::{sleep, timeout};

/// Messages of each step.
const SOME: usize = 30;

/// Requests with events that a node sent to other domains and that were answered.
const BATCHES: &str = "commucat_peer_batches_total";

/// Longer than the right lasts, and what a machine that is busy adds.
const TAKEOVER_WAIT: Duration = Duration::from_secs(180);

/// Runs it; a line of figures.
pub(crate) async fn run() -> Result<String> {
    let place = tempfile::Builder::new().prefix("cc-").tempdir()?;
    let (mut domain, other) = start(place.path()).await?;
    let home = domain.servers.first().context("no node")?;
    let invites = [invite(home, 1).await?, invite(&other, 1).await?];
    let [ours, theirs] = &invites;
    let names = [("alice", ours.as_str()), ("bob", theirs.as_str())];
    let circle = Circle::gather_by(place.path(), &names, 1).await?;
    let room = circle.pair(0, 1).await?;
    let mut talk = Talk {
        alice: circle.first(0)?,
        bob: circle.first(1)?,
        room: &room,
        said: Vec::new(),
    };

    let before = sent(&domain).await?;
    talk.say(SOME).await?;
    talk.arrives().await?;
    let holder = who(&before, &sent(&domain).await?).context("no node sends")?;

    dies(&mut talk, (&mut domain, holder), &other).await?;
    stands_still(&mut talk, (&mut domain, 1 - holder), &other).await?;
    Ok(format!(
        "lease: {} messages to another domain while the node that sends dies and another one stands still: all \
         there, once, in order",
        talk.said.len()
    ))
}

/// The node that sends dies with events that wait in the outbox, and a request under way.
async fn dies(
    talk: &mut Talk<'_>,
    (domain, holder): (&mut Domain, usize),
    other: &Server,
) -> Result<()> {
    other.signal("STOP").await?;
    talk.say(SOME).await?;
    talk.is_safe().await?;
    node(domain, holder)?.kill().await?;
    talk.say(SOME).await?;
    talk.is_safe().await?;
    other.signal("CONT").await?;
    talk.arrives().await?;
    node(domain, holder)?.restart().await
}

/// It stands still with a request under way, and goes on when it has the right no more.
async fn stands_still(
    talk: &mut Talk<'_>,
    (domain, holder): (&mut Domain, usize),
    other: &Server,
) -> Result<()> {
    other.signal("STOP").await?;
    talk.say(SOME).await?;
    node(domain, holder)?.signal("STOP").await?;
    other.signal("CONT").await?;
    talk.say(SOME).await?;
    talk.arrives().await?;
    node(domain, holder)?.signal("CONT").await?;
    talk.say(SOME).await?;
    talk.arrives().await
}

/// One who talks to one of another domain.
struct Talk<'a> {
    alice: &'a Client,
    bob: &'a Client,
    room: &'a Room,
    said: Vec<String>,
}

impl Talk<'_> {
    async fn say(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let text = format!("message {}", self.said.len());
            self.alice
                .send(&self.room.name, &text)
                .await
                .map_err(told)?;
            self.said.push(text);
        }
        Ok(())
    }

    /// Waits until a further message is in somebody's custody, and with it all before it.
    async fn is_safe(&mut self) -> Result<()> {
        let text = format!("message {}", self.said.len());
        let sent = self.alice.send(&self.room.name, &text).await;
        self.said.push(text);
        let waited = self
            .alice
            .wait(sent.map_err(told)?, Tick::Stored, TAKEOVER_WAIT);
        waited
            .await
            .map_err(told)
            .context("nobody takes messages")?;
        Ok(())
    }

    /// Waits until all that was said is shown, each once, in this order.
    async fn arrives(&self) -> Result<()> {
        let shown = async {
            loop {
                let shown = self.bob.history(&self.room.name, 0, 10_000).await;
                let shown = shown.map_err(told)?;
                let shown: Vec<String> = shown
                    .into_iter()
                    .map(|message| message.text)
                    .filter(|text| text.starts_with("message "))
                    .collect();
                ensure!(
                    self.said.starts_with(&shown),
                    "something is shown twice, out of order or from nowhere"
                );
                if shown.len() == self.said.len() {
                    return Ok(());
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        let shown = timeout(TAKEOVER_WAIT, shown).await;
        shown.context("messages do not arrive")?
    }
}

/// Two nodes of a domain and a server of another one, which vouch for each other.
async fn start(place: &Path) -> Result<(Domain, Server)> {
    let ca = place.join("ca.pem");
    fs::write(&ca, "")?;
    let trusts = |options: Options| {
        options
            .set("federation.policy", "open")
            .set("federation.allow_private", "true")
            .set("federation.ca", &ca.display().to_string())
            // A client notices soon that its node stands still.
            .set("limits.keepalive", "2s")
    };
    let mut domain = Domain::start_with(&["one", "two"], |options, port| {
        let name = format!("localhost:{port}");
        trusts(options)
            .set("server.domain", &name)
            .set("server.endpoint", &name)
    })
    .await?;
    let mut options = trusts(Options::default().for_load());
    options.own_domain = true;
    let mut other = Server::start(options).await?;
    let mut all = String::new();
    let servers = || domain.servers.iter().chain([&other]);
    for server in servers() {
        all.push_str(&fs::read_to_string(server.certificate_file())?);
    }
    fs::write(&ca, all)?;
    for server in domain.servers.iter_mut().chain([&mut other]) {
        server.terminate().await?;
        server.restart().await?;
    }
    Ok((domain, other))
}

fn node(domain: &mut Domain, index: usize) -> Result<&mut Server> {
    domain.servers.get_mut(index).context("no such node")
}

async fn sent(domain: &Domain) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for server in &domain.servers {
        all.push(server.metrics().await?.sum(BATCHES, ""));
    }
    Ok(all)
}

/// The node that has sent most in between.
fn who(before: &[u64], after: &[u64]) -> Option<usize> {
    let grown = before.iter().zip(after).map(|(old, new)| new - old);
    let most = grown.enumerate().max_by_key(|(_, grown)| *grown)?;
    (most.1 > 0).then_some(most.0)
}
