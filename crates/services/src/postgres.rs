//! A PostgreSQL cluster of a test's own, with fsync on.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::keeper::Keeper;
use crate::port;
use crate::process::Run;

mod install;
mod owner;

use install::Install;
use owner::Owner;

/// How a cluster is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Lines of `postgresql.conf`, over the defaults.
    pub settings: Vec<(String, String)>,
    /// Certificate chain and key in PEM: connections may use TLS then.
    pub tls: Option<(String, String)>,
    /// Lines of `pg_hba.conf` in place of `trust` for everybody on this machine.
    pub access: Option<String>,
}

/// A private cluster. Dropped, it is ended and its directory removed.
#[derive(Debug)]
pub struct Postgres {
    keeper: Keeper,
    install: Install,
    owner: Owner,
    port: u16,
    run: Mutex<Option<Run>>,
}

/// How a cluster is stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Connections are cut, then everything is written: `pg_ctl stop -m fast`.
    Fast,
    /// As in a crash of the machine that leaves the disk: `pg_ctl stop -m immediate`.
    Immediate,
}

impl Postgres {
    /// Makes a cluster on a port of 127.0.0.1, starts it and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is not installed, or the end of its log.
    pub fn start(options: &Options) -> Result<Self> {
        let mut tried = 0;
        loop {
            let postgres = Self {
                keeper: Keeper::new("cc-pg-", PID_FILE)?,
                install: Install::find()?,
                owner: Owner::find()?,
                port: port::free()?,
                run: Mutex::new(None),
            };
            postgres.initialise(options)?;
            tried += 1;
            match postgres.resurrect() {
                Ok(()) => return Ok(postgres),
                // Somebody may have taken the port in between.
                Err(error) if tried == port::STARTS_MAX || !port::is_taken(postgres.port) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }

    /// The one that all tests of this process share, each with a [`Database`] of its own.
    ///
    /// # Errors
    ///
    /// Those of its start, whoever caused that.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Postgres, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start(&Options::default()).map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    fn initialise(&self, options: &Options) -> Result<()> {
        self.owner.give(self.keeper.directory())?;
        let mut command = self.program("initdb");
        // Its own files need no sync: no test survives the machine.
        command
            .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"])
            .args(["--locale", "C", "--no-sync", "--pgdata"])
            .arg(self.data());
        output(self.owner.as_owner(&mut command))?;
        let mut settings = DEFAULTS.to_owned();
        writeln!(settings, "port = {}", self.port)?;
        writeln!(
            settings,
            "unix_socket_directories = '{}'",
            self.keeper.directory().display()
        )?;
        if let Some((chain, key)) = &options.tls {
            self.write("server.crt", chain)?;
            self.write("server.key", key)?;
            writeln!(settings, "ssl = on")?;
        }
        if let Some(access) = &options.access {
            self.write("pg_hba.conf", access)?;
        }
        for (name, value) in &options.settings {
            writeln!(settings, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        self.write("postgresql.auto.conf", &settings)
    }

    /// Writes a file that only the cluster's owner may read.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.data().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        self.owner.give(&path)
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], on the same port, and waits until it
    /// has recovered.
    ///
    /// # Errors
    ///
    /// The end of its log, if it did not start.
    pub fn resurrect(&self) -> Result<()> {
        let mut run = self.run.lock();
        ensure!(run.is_none(), "the cluster runs already");
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data());
        self.owner.as_owner(&mut command);
        let started = Run::start(command, "ready to accept connections", &self.log_file());
        *run = Some(started.context("no PostgreSQL cluster of our own")?);
        Ok(())
    }

    /// Ends it and waits until it is gone.
    ///
    /// # Errors
    ///
    /// If it does not run or does not end.
    pub fn stop(&self, how: Stop) -> Result<()> {
        self.end(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        })
    }

    /// Ends it by SIGKILL of its first process, upon which the others end by themselves.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Stops it fast and starts it.
    ///
    /// # Errors
    ///
    /// As [`Self::stop`] and [`Self::resurrect`].
    pub fn restart(&self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.resurrect()
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let run = self.run.lock().take();
        run.context("the cluster does not run")?.end(signal)?;
        // A stale one would name somebody else's process one day.
        fs::remove_file(self.keeper.directory().join(PID_FILE)).ok();
        Ok(())
    }

    /// Stops all its processes where they are (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn pause(&self) -> Result<()> {
        let run = self.run.lock();
        run.as_ref().context("the cluster does not run")?.pause()
    }

    /// Lets them go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn resume(&self) -> Result<()> {
        let run = self.run.lock();
        run.as_ref().context("the cluster does not run")?.resume()
    }

    /// A new, empty database.
    ///
    /// # Errors
    ///
    /// PostgreSQL's.
    pub fn database(&self) -> Result<Database<'_>> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let name = format!("test_{:016x}", u64::from_le_bytes(random));
        // From the empty template, which nobody is ever connected to.
        self.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        )?;
        Ok(Database {
            cluster: self,
            name,
        })
    }

    /// Runs SQL by `psql` in a database; returns the rows, fields separated by `|`.
    ///
    /// # Errors
    ///
    /// PostgreSQL's.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String> {
        let mut command = self.program("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d"]);
        command.args([&self.url(database), "-c", statements]);
        output(&mut command)
    }

    /// Cuts all connections of clients (`pg_terminate_backend`); returns how many there were.
    ///
    /// # Errors
    ///
    /// PostgreSQL's.
    pub fn cut_connections(&self) -> Result<u64> {
        let cut = self.sql(
            "postgres",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )?;
        Ok(cut.trim().parse()?)
    }

    /// Where a database is: `postgres://USER@127.0.0.1:PORT/NAME`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// One of PostgreSQL's programs (`pg_dump`), to be run as the caller.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.install.path(name));
        command.current_dir(self.keeper.directory());
        command
    }

    /// Its port on 127.0.0.1, the same over restarts.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory: tables, WAL, everything.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.keeper.directory().join(DATA)
    }

    /// What it wrote to its log, over all its starts.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.keeper.directory().join("log")
    }

    /// Id of its first process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.run.lock().as_ref().map(Run::id)
    }

    /// Processor time that all its processes used since it was started last.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn cpu(&self) -> Result<Duration> {
        let run = self.run.lock();
        run.as_ref().context("the cluster does not run")?.cpu()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It may be down already; the keeper removes what is left.
        self.end(Signal::QUIT).ok();
    }
}

/// A database of one test, removed when this is dropped.
#[derive(Debug)]
pub struct Database<'a> {
    cluster: &'a Postgres,
    name: String,
}

impl Database<'_> {
    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs SQL in it, as [`Postgres::sql`].
    ///
    /// # Errors
    ///
    /// PostgreSQL's.
    pub fn sql(&self, statements: &str) -> Result<String> {
        self.cluster.sql(&self.name, statements)
    }

    /// All that it holds, as SQL (`pg_dump`).
    ///
    /// # Errors
    ///
    /// PostgreSQL's.
    pub fn dump(&self) -> Result<String> {
        let mut command = self.cluster.program("pg_dump");
        output(command.arg("--dbname").arg(self.url()))
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // The cluster may be down, and takes the database along in the end.
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        self.cluster.sql("postgres", &statement).ok();
    }
}

fn output(command: &mut Command) -> Result<String> {
    let name = Path::new(command.get_program()).display().to_string();
    let done = command
        .output()
        .with_context(|| format!("{name} does not run"))?;
    ensure!(
        done.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(String::from_utf8(done.stdout)?)
}

const USER: &str = "commucat";
const DATA: &str = "data";
const PID_FILE: &str = "data/postmaster.pid";

/// Small, for many tests at once; safety as in production.
const DEFAULTS: &str = "listen_addresses = '127.0.0.1'
max_connections = 300
shared_buffers = '64MB'
fsync = on
synchronous_commit = on
full_page_writes = on
logging_collector = off
log_min_messages = warning
";
