//! The HTTP/2 connection under a session: small GETs and the `/connect` stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tls::Tls;
use crate::error::ClientError;

/// Each step of connecting ends within this time.
pub(crate) const STEP: Duration = Duration::from_secs(10);
/// Window of the `/connect` stream and of the connection: what a server may send ahead.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Unread small DATA frames that h2 tolerates; set with the windows (engine.md B4).
const DATA_FRAME_BUDGET: usize = 1024 * 1024;

/// `host:port` of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// The port of a link that names none.
    pub(crate) const DEFAULT_PORT: u16 = 443;

    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().ok()?)
            }
            _ => (text, Self::DEFAULT_PORT),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        ServerName::try_from(host.to_owned()).ok()?;
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// `host:port`, for people, URLs and the vault.
    pub(crate) fn text(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }
}

/// An HTTP/2 connection.
pub(crate) struct Http {
    requests: SendRequest<Bytes>,
    authority: String,
}

/// Both halves of a `/connect` stream.
pub(crate) struct Stream {
    pub(crate) out: SendStream<Bytes>,
    pub(crate) input: Input,
}

/// What the server sends on a `/connect` stream.
pub(crate) enum Input {
    /// Its answer is not here yet. Nobody waits for that: the first frame goes out with the request, and
    /// proxies exist that hand the answer on with the first bytes of its body only.
    Awaited(ResponseFuture),
    /// The answer was 200.
    Open(RecvStream),
}

impl Http {
    /// Connects; the driver of the connection runs on `tracker` until all handles are gone, or until
    /// `stop`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Tcp`], [`ClientError::Tls`], [`ClientError::Http`].
    pub(crate) async fn dial(
        endpoint: &Endpoint,
        tls: &Tls,
        (tracker, stop): (&TaskTracker, CancellationToken),
    ) -> Result<Self, ClientError> {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let tcp = within(tcp).await.map_err(ClientError::Tcp)?;
        tcp.set_nodelay(true).map_err(ClientError::Tcp)?;
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| ClientError::Invalid { what: "host name" })?;
        let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, tcp);
        let stream = within(stream).await.map_err(ClientError::Tls)?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ClientError::Http(
                "the server does not speak HTTP/2 here".to_owned(),
            ));
        }
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .enable_push(false)
            .handshake(Unvectored(stream));
        let (requests, connection) = handshake.await.map_err(|error| http_error(&error))?;
        tracker.spawn(async move {
            tokio::select! {
                // A server that does not read any more must not keep the client alive.
                () = stop.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "http connection ended");
                },
            }
        });
        Ok(Self {
            requests,
            authority: endpoint.text(),
        })
    }

    /// Fetches a small document.
    ///
    /// # Errors
    ///
    /// [`ClientError::Http`] unless it answers 200 with at most `bytes_max` bytes.
    pub(crate) async fn get(&mut self, path: &str, bytes_max: usize) -> Result<Bytes, ClientError> {
        let work = async {
            let (response, _) = self.send(&Method::GET, path, true).await?;
            let response = response.await.map_err(|error| http_error(&error))?;
            if response.status() != StatusCode::OK {
                let status = response.status().as_u16();
                return Err(ClientError::Http(format!("`{path}` answered {status}")));
            }
            let mut body = response.into_body();
            let mut out = BytesMut::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk.map_err(|error| http_error(&error))?;
                release(&mut body, chunk.len())?;
                if out.len() + chunk.len() > bytes_max {
                    return Err(ClientError::Http(format!("`{path}` is too large")));
                }
                out.extend_from_slice(&chunk);
            }
            Ok(out.freeze())
        };
        tokio::time::timeout(STEP, work)
            .await
            .map_err(|_| ClientError::Timeout)?
    }

    /// Opens the stream for a session. Whether the server takes it shows at the first read.
    ///
    /// # Errors
    ///
    /// [`ClientError::Http`] if the connection has ended.
    pub(crate) async fn connect(&mut self) -> Result<Stream, ClientError> {
        let work = self.send(&Method::POST, "/connect", false);
        let (response, out) = tokio::time::timeout(STEP, work)
            .await
            .map_err(|_| ClientError::Timeout)??;
        Ok(Stream {
            out,
            input: Input::Awaited(response),
        })
    }

    async fn send(
        &mut self,
        method: &Method,
        path: &str,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), ClientError> {
        let mut ready = self
            .requests
            .clone()
            .ready()
            .await
            .map_err(|error| http_error(&error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .version(http::Version::HTTP_2);
        if !ends {
            request = request.header("content-type", "application/octet-stream");
        }
        let request = request
            .body(())
            .map_err(|error| ClientError::Http(error.to_string()))?;
        ready
            .send_request(request, ends)
            .map_err(|error| http_error(&error))
    }
}

impl Stream {
    /// The next bytes from the server; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// [`ClientError::Http`] if the stream breaks, or was not answered by 200.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: nothing is taken before the future is ready.
    pub(crate) async fn read(input: &mut Input) -> Result<Option<Bytes>, ClientError> {
        loop {
            match input {
                Input::Awaited(response) => {
                    let response = response.await.map_err(|error| http_error(&error))?;
                    if response.status() != StatusCode::OK {
                        let status = response.status().as_u16();
                        return Err(ClientError::Http(format!("`/connect` answered {status}")));
                    }
                    *input = Input::Open(response.into_body());
                }
                Input::Open(body) => {
                    return match body.data().await {
                        None => Ok(None),
                        Some(Err(error)) => Err(http_error(&error)),
                        Some(Ok(chunk)) => {
                            release(body, chunk.len())?;
                            Ok(Some(chunk))
                        }
                    };
                }
            }
        }
    }

    /// Writes `bytes`, as the server's window allows.
    pub(crate) async fn write(
        out: &mut SendStream<Bytes>,
        mut bytes: Bytes,
    ) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            out.reserve_capacity(bytes.len());
            let capacity = std::future::poll_fn(|context| out.poll_capacity(context)).await;
            let capacity = match capacity {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => return Err(http_error(&error)),
                None => return Err(ClientError::Http("stream closed".to_owned())),
            };
            let part = bytes.split_to(capacity.min(bytes.len()));
            if !part.is_empty() {
                out.send_data(part, false)
                    .map_err(|error| http_error(&error))?;
            }
        }
        Ok(())
    }
}

fn release(body: &mut RecvStream, bytes: usize) -> Result<(), ClientError> {
    body.flow_control()
        .release_capacity(bytes)
        .map_err(|error| http_error(&error))
}

fn http_error(error: &h2::Error) -> ClientError {
    let is_end = |io: &std::io::Error| io.kind() == std::io::ErrorKind::UnexpectedEof;
    // The library's own words are for programmers, with a link.
    let words = if error.get_io().is_some_and(is_end) {
        "the server ended the connection".to_owned()
    } else {
        error.to_string()
    };
    ClientError::Http(words)
}

async fn within<T>(
    work: impl Future<Output = Result<T, std::io::Error>>,
) -> Result<T, std::io::Error> {
    match tokio::time::timeout(STEP, work).await {
        Ok(result) => result,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
    }
}

/// Hides that TLS can write several buffers at once: h2 then joins small DATA frames itself, which
/// costs a sixth (engine.md B3).
struct Unvectored<T>(T);

impl<T: AsyncRead + Unpin> AsyncRead for Unvectored<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Unvectored<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_with_an_optional_port() {
        for (text, good) in [
            ("localhost:8443", "localhost:8443"),
            ("chat.example.org", "chat.example.org:443"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:8443", "[::1]:8443"),
            ("[::1]", "[::1]:443"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().text(), good);
        }
        for bad in ["", "a b", "host:70000", "host:"] {
            assert!(Endpoint::parse(bad).is_none(), "{bad}");
        }
    }
}
