//! The socket: one JSON object a line, both ways.
//!
//! `admin.sock` in the data directory, mode 0600. Only the user of the server and root are answered.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::request::Request;
use crate::response::{Failure, FailureKind, Response};

/// Longest line; a page of a listing stays below it.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The name of the socket in the data directory.
pub const SOCKET_FILE: &str = "admin.sock";

/// The name under which it is made, before its mode is set.
const FRESH_FILE: &str = "admin.sock.new";

/// Longest that one line is written or, once begun, read.
const LINE_WAIT: Duration = Duration::from_secs(10);

/// Longest wait for an answer: a check of the whole store takes its time.
const ANSWER_WAIT: Duration = Duration::from_secs(120);

const ROOT: u32 = 0;

/// Why the socket does not work.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It cannot be made.
    #[error("cannot make the socket `{}`", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be connected to although it is there.
    #[error("cannot connect to the server's socket `{}`", path.display())]
    Connect {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("the other side of the admin socket went away")]
    Broken(#[source] io::Error),
    /// The other side closed it before it answered.
    #[error("the other side of the admin socket closed it")]
    Closed,
    /// Nothing came in time.
    #[error("no answer from the other side of the admin socket in time")]
    Slow,
    /// A line longer than [`LINE_BYTES_MAX`].
    #[error("a line of the admin socket is longer than 64 KiB")]
    TooLong,
    /// A line that this release does not know.
    #[error("a line of the admin socket is of another release")]
    Unknown,
}

/// The server's end.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    path: PathBuf,
    /// Whose socket it is, and which file: another process may have put its own in that place.
    owner: u32,
    file: (u64, u64),
}

impl Listener {
    /// Makes the socket in `data`, in place of one that a process has left behind. Only whoever
    /// holds the store's lock may do so. Needs a runtime.
    ///
    /// # Errors
    ///
    /// [`SocketError::Bind`].
    pub fn bind(data: &Path) -> Result<Self, SocketError> {
        let (path, fresh) = (data.join(SOCKET_FILE), data.join(FRESH_FILE));
        let bound = || -> io::Result<_> {
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let inner = UnixListener::bind(&fresh)?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
            let metadata = fs::symlink_metadata(&fresh)?;
            fs::rename(&fresh, &path)?;
            Ok((inner, metadata))
        };
        match bound() {
            Ok((inner, metadata)) => {
                let (owner, file) = (metadata.uid(), (metadata.dev(), metadata.ino()));
                Ok(Self {
                    inner,
                    path,
                    owner,
                    file,
                })
            }
            Err(source) => Err(SocketError::Bind { path, source }),
        }
    }

    /// The next connection of somebody who may ask; others are closed.
    ///
    /// # Errors
    ///
    /// What the system says; the caller may try again.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: no connection is lost but in the queue of the system.
    pub async fn accept(&self) -> io::Result<Connection> {
        loop {
            let (stream, _) = self.inner.accept().await?;
            let peer = stream.peer_cred()?.uid();
            if peer == self.owner || peer == ROOT {
                return Ok(Connection(BufReader::new(stream)));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if is_ours {
            // If it stays, the next server replaces it.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// A connection at the server.
#[derive(Debug)]
pub struct Connection(BufReader<UnixStream>);

impl Connection {
    /// The next request; `None` when the other side is done. A line that is no request of this
    /// release is answered here.
    ///
    /// # Errors
    ///
    /// [`SocketError`]; the connection is of no use any more.
    pub async fn receive(&mut self) -> Result<Option<Request>, SocketError> {
        loop {
            match read_line(&mut self.0, LINE_WAIT).await {
                Err(SocketError::Unknown) => {
                    let failure = Failure {
                        kind: FailureKind::UnknownRequest,
                        message: "the server does not know this request".to_owned(),
                        causes: Vec::new(),
                    };
                    self.answer(&Response::Failed(failure)).await?;
                }
                other => return other,
            }
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    ///
    /// [`SocketError`]; the connection is of no use any more.
    pub async fn answer(&mut self, response: &Response) -> Result<(), SocketError> {
        write_line(self.0.get_mut(), response).await
    }
}

/// The operator's end.
#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects to the server that works on `data`; `None` if none listens there.
    ///
    /// # Errors
    ///
    /// [`SocketError::Connect`], for want of the right to.
    pub async fn connect(data: &Path) -> Result<Option<Self>, SocketError> {
        let path = data.join(SOCKET_FILE);
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Some(Self(BufReader::new(stream)))),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(SocketError::Connect { path, source }),
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`SocketError`]; the request may have been carried out.
    pub async fn ask(&mut self, request: &Request) -> Result<Response, SocketError> {
        write_line(self.0.get_mut(), request).await?;
        read_line(&mut self.0, ANSWER_WAIT)
            .await?
            .ok_or(SocketError::Closed)
    }
}

async fn read_line<T: DeserializeOwned>(
    from: &mut BufReader<UnixStream>,
    wait: Duration,
) -> Result<Option<T>, SocketError> {
    let mut line = Vec::new();
    let bytes_max = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bounded = from.take(bytes_max);
    let reading = bounded.read_until(b'\n', &mut line);
    let bytes = timeout(wait, reading)
        .await
        .map_err(|_| SocketError::Slow)?;
    let bytes = bytes.map_err(SocketError::Broken)?;
    if bytes == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let is_cut = bytes < LINE_BYTES_MAX;
        return Err(if is_cut {
            SocketError::Closed
        } else {
            SocketError::TooLong
        });
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|_| SocketError::Unknown)
}

async fn write_line(to: &mut UnixStream, value: &impl Serialize) -> Result<(), SocketError> {
    let mut line = serde_json::to_vec(value).map_err(|error| SocketError::Broken(error.into()))?;
    line.push(b'\n');
    if line.len() > LINE_BYTES_MAX {
        return Err(SocketError::TooLong);
    }
    let writing = timeout(LINE_WAIT, to.write_all(&line)).await;
    writing
        .map_err(|_| SocketError::Slow)?
        .map_err(SocketError::Broken)
}

#[cfg(test)]
mod tests;
