//! TLS connections of the generator, with the records that arrive counted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use anyhow::Result;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tally::{Tally, add};

/// A TLS connection.
pub(crate) type Tls = TlsStream<Counted>;

/// Connects.
pub(crate) async fn connect(
    address: SocketAddr,
    connector: &TlsConnector,
    tally: &Arc<Tally>,
) -> Result<Tls> {
    secure(TcpStream::connect(address).await?, connector, tally).await
}

/// Puts TLS over a connection.
pub(crate) async fn secure(
    tcp: TcpStream,
    connector: &TlsConnector,
    tally: &Arc<Tally>,
) -> Result<Tls> {
    tcp.set_nodelay(true)?;
    let counted = Counted {
        inner: tcp,
        tally: Arc::clone(tally),
        header: 0,
        length: 0,
        skip: 0,
    };
    let name = ServerName::try_from("localhost")?;
    Ok(connector.connect(name, counted).await?)
}

/// A socket that counts the TLS records it receives. A server that hands one record at a time to
/// its socket writes as often as that.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: TcpStream,
    tally: Arc<Tally>,
    header: u8,
    length: usize,
    skip: usize,
}

/// Type, version, length.
const HEADER_BYTES: u8 = 5;

impl Counted {
    fn observe(&mut self, mut bytes: &[u8]) {
        let mut records = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            let Some((byte, rest)) = bytes.get(skipped..).and_then(<[u8]>::split_first) else {
                break;
            };
            bytes = rest;
            self.header += 1;
            if self.header > 3 {
                self.length = self.length << 8 | usize::from(*byte);
            }
            if self.header == HEADER_BYTES {
                self.skip = self.length;
                (self.header, self.length) = (0, 0);
                records += 1;
            }
        }
        add(&self.tally.records, records);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.observe(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
