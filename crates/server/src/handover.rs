//! Hand-over: another process of this server takes its listening sockets, then this one drains and
//! ends.
//!
//! They meet at `handover.sock` in the data directory. The one that runs sends its sockets; the other one
//! makes ready whatever needs no store and says `TAKE`. From then on nobody accepts, and connections
//! wait in the sockets, until the one that runs has let go of store and ledger and says `LEFT`. Before
//! `TAKE` nothing has changed for anybody. The one that ends keeps the sockets until the other one says
//! `SERVES`; if that is gone before, it starts its own program once more, as that stands in memory.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::chain::chain;
use crate::service;

/// The name of the socket in the data directory.
const SOCKET_FILE: &str = "handover.sock";
/// The name under which it is made, before its mode is set.
const FRESH_FILE: &str = "handover.sock.new";
/// What comes with the sockets; another release may say something else.
const HELLO: &[u8] = b"commucat-handover 2\n";
/// The same of a release that does not want to hear whether its successor serves.
const HELLO_OF_OLD: &[u8] = b"commucat-handover 1\n";
/// The successor is ready for everything that the other one still holds.
const TAKE: u8 = b'T';
/// Store and ledger are closed.
const LEFT: u8 = b'L';
/// The successor serves.
const SERVES: u8 = b'S';
/// The service manager knows of it.
const KNOWN: u8 = b'K';
/// Sockets in one message; Linux takes 253.
const SOCKETS_MAX: usize = 64;
/// How long a successor may take to make ready: it reads keys and certificate.
const TAKE_WAIT: Duration = Duration::from_secs(30);
/// How long the sockets, and the last word, may take.
const SEND_WAIT: Duration = Duration::from_secs(5);
/// Longer than the longest `server.shutdown_grace` and closing the store.
const LEFT_WAIT: Duration = Duration::from_secs(6 * 60);
/// The program of this process on Linux, even if its file is another one by now, or gone.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Pause after an accept that failed, for want of file handles mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// There is nobody to take over from.
    #[error("no server runs on this data directory")]
    Nobody(#[source] io::Error),
    /// The socket between the two failed.
    #[error("the server that runs hands nothing over")]
    Broken(#[source] io::Error),
    /// It speaks differently.
    #[error("the server that runs is of a release that hands over differently")]
    Unknown,
}

/// The server that runs, as its successor sees it.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: net::UnixStream,
    /// Whether it wants to hear that the successor serves.
    listens: bool,
}

impl Predecessor {
    /// Asks the server that runs on `data` for its sockets. It goes on as before.
    pub(crate) fn ask(data: &Path) -> Result<(Self, Vec<TcpListener>), HandoverError> {
        let stream =
            net::UnixStream::connect(data.join(SOCKET_FILE)).map_err(HandoverError::Nobody)?;
        let (listens, sockets) = receive(&stream)?;
        Ok((Self { stream, listens }, sockets))
    }

    /// Tells it to end, and waits until it has let go of everything but connections. If it dies
    /// meanwhile, it has let go too.
    pub(crate) fn take(&mut self) -> Result<(), HandoverError> {
        let taken = (|| {
            self.stream.write_all(&[TAKE])?;
            self.stream.set_read_timeout(Some(LEFT_WAIT))?;
            self.stream.read(&mut [0; 1])
        })();
        match taken {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(HandoverError::Broken(error)),
        }
    }

    /// Tells it that this process serves, and waits until the service manager knows. Dropped without,
    /// this process is as good as gone, and the other one starts again.
    pub(crate) fn served(mut self) {
        if !self.listens {
            return;
        }
        let told = (|| {
            self.stream.write_all(&[SERVES])?;
            self.stream.set_read_timeout(Some(SEND_WAIT))?;
            self.stream.read(&mut [0; 1])
        })();
        if let Err(error) = told {
            tracing::debug!(%error, "the process before is gone");
        }
    }
}

/// Whether the process wants to hear more afterwards, and its sockets.
fn receive(stream: &net::UnixStream) -> Result<(bool, Vec<TcpListener>), HandoverError> {
    let mut hello = [0; HELLO.len()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = (|| {
        stream.set_read_timeout(Some(SEND_WAIT))?;
        let mut parts = [IoSliceMut::new(&mut hello)];
        Ok(recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes)
    })();
    let length = received.map_err(HandoverError::Broken)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            sockets.extend(files.map(TcpListener::from));
        }
    }
    let listens = hello == HELLO;
    let is_known = listens || hello == HELLO_OF_OLD;
    if length == HELLO.len() && is_known && !sockets.is_empty() {
        Ok((listens, sockets))
    } else {
        Err(HandoverError::Unknown)
    }
}

/// The process that has taken the sockets and waits for the rest.
#[derive(Debug)]
pub(crate) struct Successor {
    stream: UnixStream,
    /// Its id, for the service manager.
    process: Option<u32>,
    /// Nobody else takes over meanwhile.
    _turn: OwnedSemaphorePermit,
}

impl Successor {
    /// Tells it that store and ledger are closed, and waits until it serves; `false` if it is gone. It
    /// may take long: it brings the store up to date.
    pub(crate) async fn left(mut self) -> bool {
        let told = timeout(SEND_WAIT, self.stream.write_all(&[LEFT])).await;
        let serves =
            matches!(told, Ok(Ok(()))) && matches!(self.stream.read_u8().await, Ok(SERVES));
        if serves {
            service::succeeded_by(self.process);
            // Who asked for no answer does not need it.
            timeout(SEND_WAIT, self.stream.write_all(&[KNOWN]))
                .await
                .ok();
        }
        serves
    }
}

/// What can be handed over, to whoever asks.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) sockets: Vec<TcpListener>,
    pub(crate) to: mpsc::Sender<Successor>,
}

/// Where successors knock.
#[derive(Debug)]
pub(crate) struct Door(UnixListener);

impl Door {
    /// Makes the socket in `data`, in place of one that a process has left behind. Only whoever holds
    /// the store may do so. Needs a runtime.
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        let (path, fresh) = (data.join(SOCKET_FILE), data.join(FRESH_FILE));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        fs::rename(&fresh, &path)?;
        Ok(Self(listener))
    }

    /// Offers the sockets to one process after the other until `stop`; who has taken them is the only
    /// one as long as it lives.
    pub(crate) async fn offer(self, offer: Offer, stop: CancellationToken) {
        let own = rustix::process::geteuid().as_raw();
        let turns = Arc::new(Semaphore::new(1));
        loop {
            let turn = tokio::select! {
                () = stop.cancelled() => return,
                turn = Arc::clone(&turns).acquire_owned() => turn,
            };
            // It is never closed.
            let Ok(turn) = turn else {
                return;
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.0.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a successor was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(peer) = stream.peer_cred() else {
                continue;
            };
            if peer.uid() != own && peer.uid() != 0 {
                continue;
            }
            let process = peer.pid().and_then(|pid| u32::try_from(pid).ok());
            match hand_over(stream, &offer.sockets).await {
                Ok(stream) => {
                    let successor = Successor {
                        stream,
                        process,
                        _turn: turn,
                    };
                    if offer.to.send(successor).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "nobody took over; going on");
                }
            }
        }
    }
}

/// Sends the sockets and waits for [`TAKE`].
async fn hand_over(mut stream: UnixStream, sockets: &[TcpListener]) -> io::Result<UnixStream> {
    let sent = stream.async_io(Interest::WRITABLE, || send(&stream, sockets));
    timeout(SEND_WAIT, sent).await??;
    let taken = timeout(TAKE_WAIT, stream.read_u8()).await??;
    if taken == TAKE {
        Ok(stream)
    } else {
        Err(ErrorKind::InvalidData.into())
    }
}

fn send(stream: &UnixStream, sockets: &[TcpListener]) -> io::Result<()> {
    let files: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    sendmsg(
        stream,
        &[IoSlice::new(HELLO)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Takes SIGUSR2 from now on: each starts the program again, to take over from this process, until
/// `stop`.
pub(crate) fn renew(stop: CancellationToken) -> impl Future<Output = ()> {
    let asked = signal(SignalKind::user_defined2());
    async move {
        match asked {
            Ok(asked) => start_successors(asked, stop).await,
            Err(error) => tracing::error!(%error, "no signals: SIGUSR2 starts no successor"),
        }
    }
}

async fn start_successors(mut asked: Signal, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = asked.recv() => {}
        }
        let child = match successor(None).spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(%error, "the program cannot be started again");
                continue;
            }
        };
        tracing::info!("started a successor");
        let ended = async {
            let mut child = child;
            child.wait().await
        };
        // While it runs it is the successor; it is left alone when this process ends.
        tokio::select! {
            () = stop.cancelled() => return,
            ended = ended => if let Ok(status) = ended {
                tracing::error!(code = status.code(), "the successor ended; going on");
            }
        }
    }
}

/// Starts the program of this very process, whatever is in its file by now, to take over from it.
pub(crate) fn stand_in() -> io::Result<Child> {
    successor(Some(OWN_PROGRAM)).spawn()
}

/// A program with the words of this process: that of the file that this one was started from, where an
/// upgrade puts another one, or `other`.
fn successor(other: Option<&str>) -> Command {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_else(|| "commucat-server".into());
    let flag = OsString::from("--upgrade");
    let mut command = Command::new(other.map_or_else(|| program.clone(), OsString::from));
    command
        .arg0(program)
        .args(words.filter(|word| *word != flag))
        .arg(&flag);
    // They speak of this process only.
    for name in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
    command
}
