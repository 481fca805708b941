//! A Redis server of a test's own. It keeps nothing on disk.

mod several;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::keeper::Keeper;
use crate::port;
use crate::process::Run;

pub use self::several::{Clustered, Watched};

/// A private Redis server. Dropped, it is ended and its directory removed.
#[derive(Debug)]
pub struct Redis {
    keeper: Keeper,
    port: u16,
    mode: Mode,
    run: Mutex<Option<Run>>,
}

/// What the program is.
#[derive(Clone, Debug)]
enum Mode {
    /// A server, with more arguments.
    Server(Vec<String>),
    /// A Sentinel, with these lines of configuration, to which it adds what it learns.
    Sentinel(String),
}

impl Redis {
    /// Starts one on a port of 127.0.0.1, with more arguments for `redis-server` (`--maxmemory`,
    /// `10mb`), and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it is not installed, or the end of its log.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|&text| text.to_owned());
        Self::start_as(&Mode::Server(arguments.collect()))
    }

    fn start_as(mode: &Mode) -> Result<Self> {
        let mut tried = 0;
        loop {
            let redis = Self {
                keeper: Keeper::new("cc-rd-", PID_FILE)?,
                port: port::free()?,
                mode: mode.clone(),
                run: Mutex::new(None),
            };
            tried += 1;
            match redis.resurrect() {
                Ok(()) => return Ok(redis),
                // Somebody may have taken the port in between.
                Err(error) if tried == port::STARTS_MAX || !port::is_taken(redis.port) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }

    /// The one that all tests of this process share, each with a [`prefix`] of its own.
    ///
    /// # Errors
    ///
    /// Those of its start, whoever caused that.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Redis, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start(&[]).map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], empty and on the same port.
    ///
    /// # Errors
    ///
    /// The end of its log, if it did not start.
    pub fn resurrect(&self) -> Result<()> {
        let mut run = self.run.lock();
        anyhow::ensure!(run.is_none(), "the Redis server runs already");
        let directory = self.keeper.directory();
        let mut command = Command::new("redis-server");
        command.current_dir(directory);
        let ready = match &self.mode {
            Mode::Server(arguments) => {
                command
                    .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                    .args(["--daemonize", "no", "--port", &self.port.to_string()])
                    .args(["--pidfile", PID_FILE])
                    .args(arguments);
                "eady to accept connections"
            }
            Mode::Sentinel(lines) => {
                let (port, file) = (self.port, directory.join(SENTINEL_FILE));
                let own = format!("bind 127.0.0.1\nport {port}\npidfile {PID_FILE}\n{lines}");
                fs::write(file, own)?;
                command.args([SENTINEL_FILE, "--sentinel"]);
                "+monitor"
            }
        };
        let started = Run::start(command, ready, &directory.join("log"));
        *run = Some(
            started.context("no Redis server of our own (Debian: apt-get install redis-server)")?,
        );
        Ok(())
    }

    /// Ends it in order, by SIGTERM.
    ///
    /// # Errors
    ///
    /// If it does not run or does not end.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Stops and starts it; all keys are gone.
    ///
    /// # Errors
    ///
    /// As [`Self::stop`] and [`Self::resurrect`].
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.resurrect()
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let run = self.run.lock().take();
        run.context("the Redis server does not run")?.end(signal)?;
        // A stale one would name somebody else's process one day.
        fs::remove_file(self.keeper.directory().join(PID_FILE)).ok();
        Ok(())
    }

    /// Stops it where it is (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn pause(&self) -> Result<()> {
        let run = self.run.lock();
        run.as_ref()
            .context("the Redis server does not run")?
            .pause()
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn resume(&self) -> Result<()> {
        let run = self.run.lock();
        run.as_ref()
            .context("the Redis server does not run")?
            .resume()
    }

    /// Sends one command, words without blanks in them (`FLUSHALL`), and returns the first line of
    /// the answer, without what only says how long it is.
    ///
    /// # Errors
    ///
    /// If it does not answer within seconds.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(ASK_WAIT))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let (mut line, mut answer) = (String::new(), BufReader::new(stream));
        answer.read_line(&mut line)?;
        // `$-1` is the whole answer: there is nothing.
        if line.starts_with('$') && line.trim_end() != "$-1" {
            line.clear();
            answer.read_line(&mut line)?;
        }
        Ok(line.trim_end().to_owned())
    }

    /// Where it is: `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1, the same over restarts.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Id of its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.run.lock().as_ref().map(Run::id)
    }

    /// Processor time that it used since it was started last.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn cpu(&self) -> Result<Duration> {
        let run = self.run.lock();
        run.as_ref().context("the Redis server does not run")?.cpu()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may be down already; the keeper removes what is left.
        self.end(Signal::KILL).ok();
    }
}

/// A prefix for keys that nobody else uses, with a colon at its end.
///
/// # Errors
///
/// If the system has no random bytes.
pub fn prefix() -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    Ok(format!("test-{:016x}:", u64::from_le_bytes(random)))
}

const PID_FILE: &str = "redis.pid";
const SENTINEL_FILE: &str = "sentinel.conf";
const ASK_WAIT: Duration = Duration::from_secs(10);
