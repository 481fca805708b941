//! The cycles: traffic, death or succession, another life; and the verdict.

use std::slice;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_client::Client;
use commucat_testkit::checker::{self, Verdict};
use commucat_testkit::domain::Domain;
use commucat_testkit::people::Circle;
use commucat_testkit::program::say;
use commucat_testkit::random::Random;
use commucat_testkit::recorder::Recorder;
use commucat_testkit::report::{self, no_panic};
use commucat_testkit::server::{Backend, Options, START_WAIT, Server};
use commucat_testkit::stage::{Director, Stage};
use commucat_testkit::traffic::Manner;
use tokio::time::{sleep, timeout};

use crate::grouped;
use crate::prober::{self, Tally};

const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const DEVICES: usize = 2;
/// The second devices of the first two come and go.
const COMING_AND_GOING: [usize; 2] = [1, 3];
/// Longest that the traffic runs before a kill, once it runs, and that the server is away.
const RUNS_MS: u64 = 1_500;
const AWAY_MS: u64 = 250;
/// Longest from a kill while starting to the start.
const STARTS_MS: u64 = 300;

/// How the lives of the server end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ends {
    /// Killed; once of it by SIGTERM.
    Kill,
    /// Another process takes over.
    Upgrade,
}

/// What the devices are connected to.
pub(crate) enum Home {
    /// One server.
    One(Box<Server>),
    /// Several nodes of one domain.
    Several(Box<Domain>),
}

impl Home {
    /// A server on `backend`, or so many nodes on PostgreSQL and Redis.
    pub(crate) async fn start(backend: Backend, nodes: usize) -> Result<Self> {
        if nodes < 2 {
            let options = Options::default().for_load().on(backend);
            return Ok(Self::One(Box::new(Server::start(options).await?)));
        }
        ensure!(
            backend == Backend::Postgres,
            "several nodes need `--backend postgres`"
        );
        let names: Vec<String> = (0..nodes).map(|node| format!("node{node}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(Self::Several(Box::new(Domain::start(&names).await?)))
    }

    fn servers(&self) -> &[Server] {
        match self {
            Self::One(server) => slice::from_ref(server),
            Self::Several(domain) => &domain.servers,
        }
    }

    fn servers_mut(&mut self) -> &mut [Server] {
        match self {
            Self::One(server) => slice::from_mut(server),
            Self::Several(domain) => &mut domain.servers,
        }
    }

    fn first(&self) -> Result<&Server> {
        self.servers().first().context("no server")
    }

    /// Any of them.
    fn one(&mut self, random: &mut Random) -> Result<&mut Server> {
        let servers = self.servers_mut();
        let which = random.below(u64::try_from(servers.len())?);
        servers
            .get_mut(usize::try_from(which)?)
            .context("no server")
    }
}

/// Runs the suite; the line of figures.
pub(crate) async fn run((cycles, ends): (u32, Ends), seed: u64, mut home: Home) -> Result<String> {
    let mut random = Random::new(seed);
    let started = Instant::now();
    let directory = tempfile::tempdir()?;
    let circle = Circle::gather(home.first()?, directory.path(), &NAMES, DEVICES).await?;
    let rooms = [
        circle.group().await?,
        circle.pair(0, 1).await?,
        circle.pair(1, 2).await?,
        circle.pair(0, 2).await?,
    ];
    say(&format!(
        "{} devices in {} rooms after {:.1} s",
        circle.seats.len(),
        rooms.len(),
        started.elapsed().as_secs_f64()
    ));

    let recorder = Recorder::new(rooms.iter().map(|room| room.seats.clone()).collect());
    let stage = Stage {
        circle: &circle,
        rooms: &rooms,
        recorder: &recorder,
        rests_ms: 0,
    };
    let probes = Tally::default();
    let judged = async {
        let plan = (cycles, ends, &probes);
        let clients = live(&mut home, stage, plan, &mut random).await?;
        stage.compare(&clients).await?;
        for server in home.servers() {
            no_panic(&server.stderr_file())?;
        }
        anyhow::Ok(())
    };
    let judged = judged.await;
    let history = recorder.history();
    let verdict = checker::check(&history);
    let nodes = home.servers().len();
    let line = match ends {
        Ends::Kill => line(&format!("kills: {cycles} cycles, {nodes} nodes"), &verdict),
        Ends::Upgrade => line(&format!("upgrade: {cycles} hand-overs, {probes}"), &verdict),
    };
    if judged.is_ok() && verdict.is_good() && verdict.acknowledged > 0 {
        return Ok(line);
    }
    let name = format!("commucat-kills-{seed}");
    let kept = report::keep(&name, (&history, &verdict), home.servers())?;
    if let Err(error) = judged {
        say(&format!("{error:#}"));
    }
    say(&line);
    bail!("seed {seed}, history in {}", kept.display())
}

fn line(what: &str, verdict: &Verdict) -> String {
    let mut line = format!(
        "{what}, {} acknowledged, {} lost, {} twice",
        grouped(verdict.acknowledged),
        verdict.lost.len(),
        verdict.twice.len()
    );
    if !verdict.disordered.is_empty() || !verdict.alien.is_empty() {
        line.push_str(&format!(
            ", {} out of order, {} from nowhere",
            verdict.disordered.len(),
            verdict.alien.len()
        ));
    }
    line
}

/// Lets the devices talk while the server dies and comes back; returns when all is quiet.
async fn live(
    home: &mut Home,
    stage: Stage<'_>,
    (cycles, ends, probes): (u32, Ends, &Tally),
    random: &mut Random,
) -> Result<Vec<Client>> {
    let manner = |device| {
        if COMING_AND_GOING.contains(&device) {
            Manner::ComesAndGoes
        } else {
            Manner::Stays
        }
    };
    let (director, mut cast) = stage.begin(random, manner)?;
    let played = async {
        let port = home.first()?.port();
        let lives = async {
            for cycle in 0..cycles {
                let end = match ends {
                    Ends::Upgrade => End::Upgrade,
                    Ends::Kill if cycle == cycles / 2 => End::Term,
                    Ends::Kill => End::Kill,
                };
                let server = home.one(random)?;
                one_cycle(server, &director, random, end).await?;
            }
            anyhow::Ok(())
        };
        match ends {
            Ends::Kill => lives.await?,
            Ends::Upgrade => prober::during(lives, port, probes).await?,
        }
        director.listen().await?;
        // What the server held back or would send again shows itself before the last words.
        for server in home.servers_mut() {
            server.kill().await?;
            server.restart().await?;
        }
        director.last_words().await
    };
    cast.during(played).await?;
    director.end();
    cast.clients().await
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Kill,
    Term,
    Upgrade,
}

/// One life of the server, from its running to its running again.
async fn one_cycle(
    server: &mut Server,
    director: &Director,
    random: &mut Random,
    end: End,
) -> Result<()> {
    // Most lives are long enough for acknowledgements, some end while the devices come back.
    let is_long = end != End::Kill || random.below(4) > 0;
    if is_long {
        director.progress().await?;
    }
    sleep(random.wait(if is_long { RUNS_MS } else { STARTS_MS })).await;
    ensure!(server.is_running(), "the server ended by itself");
    match end {
        End::Term => {
            let status = server.terminate().await?;
            ensure!(status.success(), "SIGTERM ended with {status}");
        }
        End::Kill => server.kill().await?,
        End::Upgrade => {
            let status = server.upgrade().await?;
            ensure!(
                status.success(),
                "a server that handed over ended with {status}"
            );
            return Ok(());
        }
    }
    sleep(random.wait(AWAY_MS)).await;
    if random.below(6) == 0 {
        // Killed while it starts.
        server.launch()?;
        sleep(random.wait(STARTS_MS)).await;
        server.kill().await?;
    }
    timeout(START_WAIT, server.restart()).await?
}
