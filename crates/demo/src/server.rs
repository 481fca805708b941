//! A server process, seen from outside: started, killed, started again. And the two of the story, who
//! trust each other's certificates.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::serve;

/// Longest that a start may take.
const START_WAIT: Duration = Duration::from_secs(30);
/// Longest that an end in order may take.
const END_WAIT: Duration = Duration::from_secs(30);

/// Alice's server and Bob's.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) alice: Server,
    pub(crate) bob: Server,
    /// The certificates of both.
    ca: PathBuf,
}

impl Servers {
    /// Two servers that do not run yet, with directories below `home` and free ports.
    pub(crate) fn new(home: &Path) -> Result<Self> {
        let ca = home.join("certificates.pem");
        fs::write(&ca, "")?;
        Ok(Self {
            alice: Server::new(home, "alices-server", &ca)?,
            bob: Server::new(home, "bobs-server", &ca)?,
            ca,
        })
    }

    /// Starts both for the first time, and again when each has the other's certificate; returns the
    /// invites that they print.
    pub(crate) async fn start(&mut self) -> Result<[String; 2]> {
        let mut invites = Vec::new();
        let mut certificates = String::new();
        for server in [&mut self.alice, &mut self.bob] {
            let invite = server.start().await?;
            invites.push(invite.context("a server printed no invite")?);
            certificates.push_str(&fs::read_to_string(server.certificate_file())?);
            server.stop().await?;
        }
        fs::write(&self.ca, certificates)?;
        for server in [&mut self.alice, &mut self.bob] {
            server.start().await?;
        }
        invites.try_into().ok().context("two servers")
    }

    /// `kill -9` for both.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.alice.kill().await?;
        self.bob.kill().await
    }

    /// The certificates of both, which they made themselves.
    pub(crate) fn certificates(&self) -> &Path {
        &self.ca
    }
}

/// A server and where it keeps everything.
#[derive(Debug)]
pub(crate) struct Server {
    home: PathBuf,
    port: u16,
    ca: PathBuf,
    child: Option<Child>,
    /// Its stdout, kept open: the server may write more.
    output: Option<Lines<BufReader<ChildStdout>>>,
}

impl Server {
    /// A server that does not run yet, with a directory below `home` and a free port.
    fn new(home: &Path, name: &str, ca: &Path) -> Result<Self> {
        let home = home.join(name);
        fs::create_dir(&home)?;
        Ok(Self {
            home,
            port: free_port().context("no free port on 127.0.0.1")?,
            ca: ca.to_owned(),
            child: None,
            output: None,
        })
    }

    /// Starts it and waits until it serves; returns the invite that it prints on its first start.
    pub(crate) async fn start(&mut self) -> Result<Option<String>> {
        let mut child = self.command()?.spawn()?;
        let stdout = child.stdout.take().context("the server has no stdout")?;
        self.child = Some(child);
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            let mut invite = None;
            while let Some(line) = lines.next_line().await? {
                if let Some(link) = invite_in(&line) {
                    invite = Some(link.to_owned());
                }
                if line.starts_with("ready ") {
                    return Ok(Some(invite));
                }
            }
            io::Result::Ok(None)
        };
        let Ok(Ok(Some(invite))) = timeout(START_WAIT, ready).await else {
            bail!("the server did not start:\n{}", self.last_words());
        };
        self.output = Some(lines);
        Ok(invite)
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(serve::FLAG)
            .arg("--data")
            .arg(self.data())
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            // A domain of this machine alone, and another one that it finds there.
            .args(["--set", &format!("server.domain={}", self.domain())])
            .args(["--set", "federation.policy=open"])
            .args(["--set", "federation.allow_private=true"])
            .args(["--set", &format!("federation.ca={}", self.ca.display())])
            // Neither settings of this shell nor a commucat.toml of this directory count.
            .env_clear()
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(append(&self.log_file())?)
            // Ctrl-C is for the demonstration, which ends the server.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    /// `kill -9`; returns when it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM); returns when it has ended in order.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw);
        kill_process(pid.context("the server has ended by itself")?, Signal::TERM)?;
        let ended = timeout(END_WAIT, child.wait()).await;
        let status = ended.context("the server does not end after SIGTERM")??;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    /// Id of the process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The domain that it serves.
    pub(crate) fn domain(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Everything that it writes is below.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// Its database.
    pub(crate) fn store_file(&self) -> PathBuf {
        self.data().join("store.sqlite3")
    }

    /// Its TLS certificate, which it made itself.
    fn certificate_file(&self) -> PathBuf {
        self.data().join("tls").join("certificate.pem")
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let first = log.lines().count().saturating_sub(8);
        log.lines().skip(first).collect::<Vec<_>>().join("\n")
    }
}

fn invite_in(line: &str) -> Option<&str> {
    line.split_once("commucat join '")?.1.split('\'').next()
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
