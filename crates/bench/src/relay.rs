//! The floor: frames passed on over bare TLS 1.3, with one write for all that waits.
//!
//! No HTTP/2, no Noise, no acknowledgement, no custody, no limit: what no server that uses TLS and
//! this runtime can be cheaper than.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use crate::socket::Tls;
use crate::stream::Codec;
use crate::tally::Stamp;

/// Most bytes in one write: one TLS record.
const WRITE_MAX: usize = 16 * 1024;

#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<Bytes>>,
    filled: Notify,
}

/// Who waits in a room: those who listen, and its author, who waits for acknowledgements.
type Rooms = Arc<RwLock<HashMap<(u64, bool), Vec<Arc<Queue>>>>>;

/// Serves until it is killed; says its address on stdout.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let acceptor = acceptor()?;
    let (rooms, tasks) = (Rooms::default(), TaskTracker::new());
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let (acceptor, rooms, spawner) = (acceptor.clone(), Arc::clone(&rooms), tasks.clone());
        tasks.spawn(async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                // Its end is the client's.
                drop(connection(tls, rooms, &spawner).await);
            }
        });
    }
}

fn acceptor() -> Result<TlsAcceptor> {
    let made = certificate()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A certificate that nobody checks.
pub(crate) fn certificate() -> Result<rcgen::CertifiedKey<rcgen::KeyPair>> {
    Ok(rcgen::generate_simple_self_signed(vec![
        "localhost".to_owned(),
    ])?)
}

/// The first nine bytes of a connection name its room and whether it listens.
const INTRODUCTION_BYTES: usize = 9;

async fn connection(tls: TlsStream<TcpStream>, rooms: Rooms, tasks: &TaskTracker) -> Result<()> {
    let (mut reader, mut writer) = tokio::io::split(tls);
    let mut input = BytesMut::new();
    while input.len() < INTRODUCTION_BYTES {
        if reader.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
    let (room, listens) = (input.get_u64(), input.get_u8() == 1);
    let queue = Arc::new(Queue::default());
    {
        let mut all = rooms.write();
        all.entry((room, listens))
            .or_default()
            .push(Arc::clone(&queue));
    }
    tasks.spawn(async move {
        let mut out = BytesMut::new();
        loop {
            let waiting = std::mem::take(&mut *queue.waiting.lock());
            if waiting.is_empty() {
                queue.filled.notified().await;
                continue;
            }
            for frame in waiting {
                out.extend_from_slice(&frame);
                if out.len() >= WRITE_MAX && writer.write_all_buf(&mut out).await.is_err() {
                    return;
                }
            }
            if writer.write_all_buf(&mut out).await.is_err() {
                return;
            }
        }
    });
    loop {
        forward(&mut input, (room, !listens), &rooms)?;
        input.reserve(WRITE_MAX);
        if reader.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// Passes on the whole frames of `input`, each without a copy.
fn forward(input: &mut BytesMut, to: (u64, bool), rooms: &Rooms) -> Result<()> {
    let mut frames = Vec::new();
    while let Some(head) = input.first_chunk::<4>() {
        let len = 4 + usize::try_from(u32::from_be_bytes(*head))?;
        if input.len() < len {
            break;
        }
        frames.push(input.split_to(len).freeze());
    }
    if frames.is_empty() {
        return Ok(());
    }
    let rooms = rooms.read();
    for queue in rooms.get(&to).context("nobody listens")? {
        queue.waiting.lock().extend(frames.iter().cloned());
        queue.filled.notify_one();
    }
    Ok(())
}

/// How the generator speaks to the relay.
pub(crate) struct Bare;

impl Bare {
    /// Introduces a device.
    pub(crate) async fn enter(tls: &mut Tls, room: u32, listens: bool) -> Result<()> {
        let mut out = BytesMut::new();
        out.put_u64(room.into());
        out.put_u8(listens.into());
        tls.write_all_buf(&mut out).await?;
        Ok(())
    }
}

impl Codec for Bare {
    fn put(&mut self, stamp: Stamp, filler: &[u8], out: &mut BytesMut) {
        let at = out.len();
        out.put_u32(0);
        stamp.write(out);
        out.put_slice(filler);
        let len = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
        if let Some(head) = out.get_mut(at..at + 4) {
            head.copy_from_slice(&len.to_be_bytes());
        }
    }

    fn take(&mut self, input: &mut BytesMut) -> Result<Option<Stamp>> {
        let Some(head) = input.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = 4 + usize::try_from(u32::from_be_bytes(*head))?;
        if input.len() < len {
            return Ok(None);
        }
        let frame = input.split_to(len);
        let stamp = frame.get(4..).and_then(Stamp::read);
        Ok(Some(stamp.context("a frame of nobody")?))
    }
}
