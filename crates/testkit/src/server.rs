//! `commucat-server` as a real process: started, killed, restarted on the same port and data.

pub mod http;
pub mod metrics;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use commucat_admin::{Answer, Request, Response};
use commucat_services::{Database, Postgres, port};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::metrics::Metrics;

/// Longest that a start may take, on a machine that is busy with other things.
pub const START_WAIT: Duration = Duration::from_secs(60);
/// Longest that an end in order may take: the server's grace and the closing of its store.
const END_WAIT: Duration = Duration::from_secs(30);

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keys of the configuration with their values, over the defaults.
    pub settings: Vec<(String, String)>,
    /// Its domain is `localhost` with its port, so that other servers find it.
    pub own_domain: bool,
    /// Run it under `strace`, which writes the system calls that reach disks to a file
    /// ([`Server::trace_file`]).
    pub traced: bool,
    /// What keeps its durable state.
    pub backend: Backend,
    /// Where its directory is made; none: where temporary files are.
    pub place: Option<PathBuf>,
}

/// What keeps a server's durable state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Backend {
    /// The embedded store.
    #[default]
    Sqlite,
    /// A database of the cluster that this process has ([`Postgres::shared`]).
    Postgres,
}

impl Options {
    /// On that backend.
    #[must_use]
    pub const fn on(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// With one more setting.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// As a domain that talks to others on this machine, whose certificates are in `ca`.
    #[must_use]
    pub fn federated(mut self, ca: &Path) -> Self {
        self.own_domain = true;
        self.trusting(ca)
    }

    /// As a node of a domain that talks to others on this machine, whose certificates are in `ca`.
    #[must_use]
    pub fn trusting(self, ca: &Path) -> Self {
        self.set("federation.policy", "open")
            .set("federation.allow_private", "true")
            .set("federation.ca", &ca.display().to_string())
    }

    /// Without the limits that slow down many devices of one address: for load from one machine.
    #[must_use]
    pub fn for_load(self) -> Self {
        self.set("limits.submit_rate", "100000")
            .set("limits.submit_burst", "1000000")
            .set("limits.handshakes_per_address", "100000")
            .set("limits.handshakes_burst", "1000000")
            .set("limits.registrations_per_address", "1000000")
    }
}

/// A server and everything that it keeps. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Server {
    home: TempDir,
    port: u16,
    options: Options,
    child: Option<Child>,
    tasks: TaskTracker,
    /// Dropped after the process that uses it.
    database: Option<Database<'static>>,
}

impl Server {
    /// Starts a new server on a port of 127.0.0.1 and waits until it is ready.
    ///
    /// # Errors
    ///
    /// The end of its log, if it did not start.
    pub async fn start(mut options: Options) -> Result<Self> {
        let mut database = match options.backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(make_database().await?),
        };
        if let Some(database) = &database {
            options = options.set("storage.url", &database.url());
        }
        let mut tried = 0;
        loop {
            let mut server = Self {
                // Short, for the path of the admin socket has a limit.
                home: match &options.place {
                    Some(place) => tempfile::Builder::new().prefix("cc-").tempdir_in(place)?,
                    None => tempfile::Builder::new().prefix("cc-").tempdir()?,
                },
                port: port::free()?,
                options: options.clone(),
                child: None,
                tasks: TaskTracker::new(),
                database: database.take(),
            };
            tried += 1;
            match server.spawn().await {
                Ok(()) => return Ok(server),
                // Somebody may have taken the port in between.
                Err(error) if tried == port::STARTS_MAX || !port::is_taken(server.port) => {
                    return Err(error);
                }
                Err(_) => database = server.database.take(),
            }
        }
    }

    /// Starts it again after [`Self::kill`] or [`Self::terminate`], and waits until it is ready.
    ///
    /// # Errors
    ///
    /// The end of its log, if it did not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.spawn().await
    }

    /// Lets another process take over (`--upgrade`), waits until it is ready and the one before has
    /// ended; returns how that ended.
    ///
    /// # Errors
    ///
    /// The end of the log, if the new one did not start; or if the old one does not end.
    pub async fn upgrade(&mut self) -> Result<ExitStatus> {
        let mut before = self.child.take().context("the server does not run")?;
        let ready = self.launch_with(&["--upgrade"])?;
        self.become_ready(ready).await?;
        let ended = tokio::time::timeout(END_WAIT, before.wait()).await;
        Ok(ended.context("the server does not end after it handed over")??)
    }

    async fn spawn(&mut self) -> Result<()> {
        let ready = self.launch()?;
        self.become_ready(ready).await
    }

    async fn become_ready(&mut self, mut ready: watch::Receiver<bool>) -> Result<()> {
        let child = self.child.as_mut().context("the server was not launched")?;
        let became_ready = tokio::select! {
            seen = ready.wait_for(|ready| *ready) => seen.is_ok(),
            _ended = child.wait() => false,
            () = tokio::time::sleep(START_WAIT) => false,
        };
        if became_ready {
            return Ok(());
        }
        let log = fs::read_to_string(self.stderr_file()).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(8).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!("the server did not start:\n{}", tail.join("\n"))
    }

    /// Starts the process without waiting: for a kill while it starts. Tells when it is ready.
    ///
    /// # Errors
    ///
    /// The system's, if there is no such program.
    pub fn launch(&mut self) -> Result<watch::Receiver<bool>> {
        self.launch_with(&[])
    }

    fn launch_with(&mut self, flags: &[&str]) -> Result<watch::Receiver<bool>> {
        let program = binary("commucat-server")?;
        let mut command = if self.options.traced {
            let mut tracer = Command::new("strace");
            // `-D`: the server, not strace, is our child.
            tracer.args(["-D", "-f", "-y", "-e", TRACED, "-o"]);
            tracer.arg(self.trace_file()).arg(program);
            tracer
        } else {
            Command::new(program)
        };
        command
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .arg("--data")
            .arg(self.data())
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(append(&self.stderr_file())?)
            .kill_on_drop(true);
        if self.options.own_domain {
            let domain = format!("server.domain={}", self.domain());
            command.arg("--set").arg(domain);
        }
        for (key, value) in &self.options.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let mut child = command.spawn().context("commucat-server does not run")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (ready, told) = watch::channel(false);
        let file = append(&self.stdout_file())?;
        self.tasks.spawn(copy(stdout, file, ready));
        self.child = Some(child);
        Ok(told)
    }

    /// Ends it by SIGKILL; returns when it is gone.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends it by SIGTERM; returns when it is gone.
    ///
    /// # Errors
    ///
    /// If it does not end, or not well.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the server does not run")?;
        self.signal_child(&child, "TERM").await?;
        let status = tokio::time::timeout(END_WAIT, child.wait())
            .await
            .context("the server does not end after SIGTERM")??;
        Ok(status)
    }

    /// Changes a setting for its next start.
    pub fn set(&mut self, key: &str, value: &str) {
        let setting = (key.to_owned(), value.to_owned());
        self.options.settings.push(setting);
    }

    async fn signal_child(&self, child: &Child, signal: &str) -> Result<()> {
        let pid = child.id().context("the server has ended")?;
        let script = format!("kill -{signal} {pid}");
        let sent = Command::new("sh").args(["-c", &script]).status().await?;
        anyhow::ensure!(sent.success(), "no signal to the server");
        Ok(())
    }

    /// Sends a signal by its name (`HUP`).
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub async fn signal(&self, signal: &str) -> Result<()> {
        let child = self.child.as_ref().context("the server does not run")?;
        self.signal_child(child, signal).await
    }

    /// Whether the process runs: `false` too if it ended by itself.
    pub fn is_running(&mut self) -> bool {
        let Some(child) = self.child.as_mut() else {
            return false;
        };
        matches!(child.try_wait(), Ok(None))
    }

    /// Id of the process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The port on 127.0.0.1, the same over restarts.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its domain with [`Options::own_domain`].
    #[must_use]
    pub fn domain(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Its working directory: everything of it is below.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its database, with [`Backend::Postgres`].
    #[must_use]
    pub const fn database(&self) -> Option<&Database<'static>> {
        self.database.as_ref()
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What it wrote to stdout, over all its starts.
    #[must_use]
    pub fn stdout_file(&self) -> PathBuf {
        self.home.path().join("stdout")
    }

    /// What it wrote to stderr, over all its starts.
    #[must_use]
    pub fn stderr_file(&self) -> PathBuf {
        self.home.path().join("stderr")
    }

    /// What `strace` saw, with [`Options::traced`].
    #[must_use]
    pub fn trace_file(&self) -> PathBuf {
        self.home.path().join("strace")
    }

    /// Its TLS certificate, which is its own authority.
    #[must_use]
    pub fn certificate_file(&self) -> PathBuf {
        self.data().join("tls").join("certificate.pem")
    }

    /// The private key of that certificate.
    #[must_use]
    pub fn certificate_key_file(&self) -> PathBuf {
        self.data().join("tls").join("key.pem")
    }

    /// The invite of the first start.
    ///
    /// # Errors
    ///
    /// If none was printed.
    pub fn first_invite(&self) -> Result<String> {
        let text = fs::read_to_string(self.stdout_file())?;
        let link = text.split("commucat join '").nth(1);
        let link = link.and_then(|rest| rest.split('\'').next());
        Ok(link.context("no invite on stdout")?.to_owned())
    }

    /// Asks over the admin socket.
    ///
    /// # Errors
    ///
    /// What the server answers, if it did not do it.
    pub async fn ask(&self, request: &Request) -> Result<Answer> {
        let client = commucat_admin::Client::connect(&self.data()).await?;
        let mut client = client.context("nobody listens on the admin socket")?;
        match client.ask(request).await? {
            Response::Done(answer) => Ok(answer),
            Response::Failed(failure) => bail!("{}: {:?}", failure.message, failure.causes),
        }
    }

    /// A new invite link for so many accounts.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub async fn invite(&self, uses: u32) -> Result<String> {
        let lasts_seconds = 86_400;
        let request = Request::CreateInvite {
            uses,
            lasts_seconds,
        };
        let answer = self.ask(&request).await?;
        let Answer::Created(invite) = answer else {
            bail!("an invite was answered by {answer:?}");
        };
        Ok(invite.link.as_str().to_owned())
    }

    /// Runs `commucat-cli` on this server's data; returns what it wrote.
    ///
    /// # Errors
    ///
    /// The system's. Its exit code is in the answer.
    pub async fn cli(&self, args: &[&str]) -> Result<std::process::Output> {
        Ok(self.cli_command(args)?.output().await?)
    }

    /// The command that [`Self::cli`] runs.
    ///
    /// # Errors
    ///
    /// If there is no such program.
    pub fn cli_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("commucat-cli")?);
        command
            .current_dir(self.home.path())
            .env_clear()
            .env("COMMUCAT_SERVER_DATA", self.data())
            .env("COMMUCAT_SERVER_LISTEN", format!("127.0.0.1:{}", self.port))
            .args(args)
            .stdin(Stdio::null());
        for (key, value) in &self.options.settings {
            let name = format!("COMMUCAT_{}", key.replace('.', "_").to_uppercase());
            command.env(name, value);
        }
        Ok(command)
    }

    /// What `/readyz` says: `None` if it is ready, else the cause.
    ///
    /// # Errors
    ///
    /// If it does not answer, or something else.
    pub async fn hindrance(&self) -> Result<Option<String>> {
        let answer = http::get(self, "/readyz").await?;
        if answer.status == 200 {
            return Ok(None);
        }
        anyhow::ensure!(answer.status == 503, "/readyz answers {}", answer.status);
        let cause = answer.body.split("\"cause\":\"").nth(1);
        let cause = cause.and_then(|rest| rest.split('"').next());
        Ok(Some(cause.context("/readyz names no cause")?.to_owned()))
    }

    /// Its counters now.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        let answer = http::get(self, "/metrics").await?;
        anyhow::ensure!(answer.status == 200, "/metrics answers {}", answer.status);
        Ok(Metrics::new(answer.body))
    }
}

/// System calls by which a server reaches a disk.
const TRACED: &str = "trace=fsync,fdatasync,sync_file_range,pwrite64,pwritev,write,writev";

/// Where a program of this workspace was built: beside the one that runs.
///
/// # Errors
///
/// If it is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests run one directory further down.
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("`{name}` is not built: cargo build --workspace --bins"))
}

async fn make_database() -> Result<Database<'static>> {
    // The first one makes the cluster.
    tokio::task::spawn_blocking(|| Postgres::shared()?.database()).await?
}

fn append(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().create(true).append(true).open(path)?)
}

/// Copies lines to a file and tells of the one that says that the server is ready.
async fn copy(stdout: ChildStdout, mut file: File, ready: watch::Sender<bool>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if writeln!(file, "{line}").is_err() {
            return;
        }
        if line.starts_with("ready ") {
            ready.send_replace(true);
        }
    }
}
