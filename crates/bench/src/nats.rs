//! NATS core, for comparison: publish and subscribe over TLS, no acknowledgement, no store.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use crate::host::Host;
use crate::relay::certificate;
use crate::socket::{self, Tls};
use crate::stream::Codec;
use crate::tally::{STAMP_BYTES, Stamp, Tally};

/// Longest that it may take to start.
const START_TRIES: u32 = 100;

/// Starts `nats-server`.
pub(crate) async fn start() -> Result<Host> {
    let home = tempfile::TempDir::new()?;
    let made = certificate()?;
    let (certificate, key) = (home.path().join("certificate"), home.path().join("key"));
    fs::write(&certificate, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let child = Command::new("nats-server")
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "--tls"])
        .arg("--tlscert")
        .arg(&certificate)
        .arg("--tlskey")
        .arg(&key)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("nats-server (Debian: nats-server) does not run")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..START_TRIES {
        if TcpStream::connect(address).await.is_ok() {
            return Host::other(address, child, Some(home));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("nats-server does not listen")
}

/// Connects and subscribes to a room.
pub(crate) async fn connect(
    address: SocketAddr,
    connector: &TlsConnector,
    tally: &Arc<Tally>,
    room: u32,
    listens: bool,
) -> Result<(Tls, Nats)> {
    let mut tcp = TcpStream::connect(address).await?;
    // INFO, one line, comes before TLS.
    while tcp.read_u8().await? != b'\n' {}
    let mut tls = socket::secure(tcp, connector, tally).await?;
    let mut hello =
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true}\r\n".to_owned();
    if listens {
        hello.push_str(&format!("SUB r{room} 1\r\n"));
    }
    hello.push_str("PING\r\n");
    tls.write_all(hello.as_bytes()).await?;
    let mut input = BytesMut::new();
    while !input.ends_with(b"PONG\r\n") {
        if tls.read_buf(&mut input).await? == 0 {
            bail!("NATS closed");
        }
    }
    Ok((tls, Nats { room }))
}

pub(crate) struct Nats {
    room: u32,
}

impl Codec for Nats {
    fn put(&mut self, stamp: Stamp, filler: &[u8], out: &mut BytesMut) {
        let len = STAMP_BYTES + filler.len();
        out.put_slice(format!("PUB r{} {len}\r\n", self.room).as_bytes());
        stamp.write(out);
        out.put_slice(filler);
        out.put_slice(b"\r\n");
    }

    fn take(&mut self, input: &mut BytesMut) -> Result<Option<Stamp>> {
        loop {
            let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
                return Ok(None);
            };
            let line = std::str::from_utf8(input.get(..end).unwrap_or_default())?;
            let Some(message) = line.strip_prefix("MSG ") else {
                if line.starts_with("-ERR") {
                    bail!("NATS says {line}");
                }
                input.advance(end + 1);
                continue;
            };
            let len = message.trim_end().rsplit(' ').next().context("no length")?;
            let len: usize = len.parse()?;
            if input.len() < end + 1 + len + 2 {
                return Ok(None);
            }
            input.advance(end + 1);
            let stamp = Stamp::read(input).context("a message of nobody")?;
            input.advance(len + 2);
            return Ok(Some(stamp));
        }
    }
}
