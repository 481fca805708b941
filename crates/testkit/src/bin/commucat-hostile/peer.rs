//! A domain that says whatever it likes: to the server, and when the server asks.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use commucat_crypto::noise::StaticKey;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::server_keys::DomainSecret;
use commucat_crypto::signing::Purpose;
use commucat_federation::batch::{Answer, Batch, BatchId, Parcel, RawEvent, Settled};
use commucat_federation::discovery::EVENTS_PATH;
use commucat_federation::event::{Body, Event, EventId};
use commucat_proto::id::Domain;
use commucat_proto::identity::{ServerKeys, ServerNoiseKey};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::well_known::{RegistrationPolicy, WellKnown};
use commucat_proto::wire::Cbor;
use commucat_testkit::server::{Server, http};
use h2::server::SendResponse;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::carrier::WAIT;
use crate::cbor::Value;
use crate::clock;

/// What it answers when its document is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Document {
    Good,
    Status(u16),
    Redirect,
    Nonsense,
    /// Longer than a document may be.
    Long,
    Endless,
    Silent,
    /// Of another domain.
    OtherDomain,
    /// Its statement is signed by another key than it names.
    OtherSigner,
}

/// What it answers to events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    Good,
    Status(u16),
    Redirect,
    Nonsense,
    /// Longer than an answer may be.
    Endless,
    Silent,
    /// Signed by a key that is not pinned.
    OtherKey,
    /// Signed as a request.
    OtherPurpose,
    /// With another value in this key of the answer.
    Bent(u64),
    /// The outcome of an event that was not asked about.
    OtherEvent,
}

/// What a domain needs to be one.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) domain: Domain,
    pub(crate) secret: Arc<DomainSecret>,
    _guard: Arc<DropGuard>,
}

impl Peer {
    /// A domain at a port of its own, with the certificate of another server of this machine.
    pub(crate) async fn appear(friend: &Server, document: Document, reply: Reply) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Self::at(listener, friend, document, reply)
    }

    /// Somebody with another key takes this domain's place.
    pub(crate) async fn replaced(self, friend: &Server) -> Result<Self> {
        let address = self.domain.as_str().replace("localhost", "127.0.0.1");
        drop(self);
        let bound = async {
            loop {
                match TcpListener::bind(&address).await {
                    Ok(listener) => return listener,
                    // The one before is about to close.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = timeout(WAIT, bound).await.context("the port is taken")?;
        Self::at(listener, friend, Document::Good, Reply::Good)
    }

    fn at(
        listener: TcpListener,
        friend: &Server,
        document: Document,
        reply: Reply,
    ) -> Result<Self> {
        let domain = format!("localhost:{}", listener.local_addr()?.port());
        let stop = CancellationToken::new();
        let peer = Self {
            domain: Domain::parse(&domain)?,
            secret: Arc::new(DomainSecret::generate()),
            _guard: Arc::new(stop.clone().drop_guard()),
        };
        let chain = CertificateDer::pem_file_iter(friend.certificate_file())?;
        let key = PrivateKeyDer::from_pem_file(friend.certificate_key_file())?;
        let acceptor = http::acceptor(chain.collect::<Result<_, _>>()?, key)?;
        let speaker = Arc::new(Speaker {
            domain: peer.domain.clone(),
            secret: Arc::clone(&peer.secret),
            document,
            reply,
        });
        let (tasks, all) = (TaskTracker::new(), TaskTracker::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, speaker) = (acceptor.clone(), Arc::clone(&speaker));
                all.spawn(stop.clone().run_until_cancelled_owned(async move {
                    // Whoever does not like it goes away.
                    let Ok(tls) = acceptor.accept(stream).await else {
                        return;
                    };
                    let Ok(mut connection) = h2::server::handshake(tls).await else {
                        return;
                    };
                    let answers = TaskTracker::new();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let speaker = Arc::clone(&speaker);
                        answers.spawn(async move { drop(speaker.answer(request, respond).await) });
                    }
                }));
            }
        }));
        Ok(peer)
    }

    /// A batch of these events for `to`, signed as it should be.
    pub(crate) fn batch(&self, to: &Domain, bodies: Vec<Body>) -> Vec<u8> {
        self.dated(to, bodies, clock::now())
    }

    /// The same with this date.
    pub(crate) fn dated(&self, to: &Domain, bodies: Vec<Body>, created: Timestamp) -> Vec<u8> {
        let mut parcel = Parcel::new();
        for body in bodies {
            let event = Event::new(EventId::new(random_bytes()), body);
            let is_in = parcel.push(RawEvent::from(&event));
            debug_assert!(is_in, "a few small events");
        }
        let id = BatchId::new(random_bytes());
        let sent = parcel.sign(id, (&self.domain, to), created, &self.secret);
        sent.request().to_vec()
    }

    /// An honest batch, changed and signed again.
    pub(crate) fn changed(
        &self,
        to: &Domain,
        change: impl FnOnce(&mut Vec<(u64, Value)>),
    ) -> Result<Vec<u8>> {
        let raw = self.batch(to, Vec::new());
        resign(&raw, Purpose::FederationRequest, &self.secret, change)
    }
}

/// Opens a signed map, changes it, and signs it.
pub(crate) fn resign(
    raw: &[u8],
    purpose: Purpose,
    secret: &DomainSecret,
    change: impl FnOnce(&mut Vec<(u64, Value)>),
) -> Result<Vec<u8>> {
    let signed = Signed::decode_shared(&Bytes::copy_from_slice(raw))?;
    let Some(Value::Map(mut map)) = Value::parse(&signed.body) else {
        anyhow::bail!("no map");
    };
    change(&mut map);
    Ok(secret.sign(purpose, Value::Map(map).encode()).encode())
}

/// Replaces the value of a key.
pub(crate) fn put(map: &mut [(u64, Value)], key: u64, value: Value) {
    if let Some((_, place)) = map.iter_mut().find(|(own, _)| *own == key) {
        *place = value;
    }
}

/// Posts a body to the server's events; status and answer.
pub(crate) async fn post(server: &Server, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    let asked = async {
        let tls = http::connect(server, b"h2").await?;
        let (sender, connection) = h2::client::handshake(tls).await?;
        let tasks = TaskTracker::new();
        tasks.spawn(async move {
            // How it ended is seen on the stream.
            drop(connection.await);
        });
        let mut sender = sender.ready().await?;
        let request = ::http::Request::post(format!("https://localhost{EVENTS_PATH}"))
            .header("content-type", "application/cbor")
            .body(())?;
        let (answer, mut stream) = sender.send_request(request, body.is_empty())?;
        let mut rest = Bytes::copy_from_slice(body);
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            // It may say no before it has read all.
            let Some(Ok(granted)) = granted else { break };
            let part = rest.split_to(granted.min(rest.len()));
            if stream.send_data(part, rest.is_empty()).is_err() {
                break;
            }
        }
        let (head, mut stream) = answer.await?.into_parts();
        let mut answer = Vec::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk?;
            stream.flow_control().release_capacity(chunk.len())?;
            answer.extend_from_slice(&chunk);
        }
        anyhow::Ok((head.status.as_u16(), answer))
    };
    timeout(WAIT, asked).await.context("no answer in time")?
}

struct Speaker {
    domain: Domain,
    secret: Arc<DomainSecret>,
    document: Document,
    reply: Reply,
}

impl Speaker {
    async fn answer(
        &self,
        request: ::http::Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<()> {
        let is_events = request.uri().path() == EVENTS_PATH;
        let mut body = request.into_body();
        let mut raw = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            raw.extend_from_slice(&chunk);
        }
        let (status, answer, is_endless) = if is_events {
            self.reply(&raw.freeze())?
        } else {
            self.document()?
        };
        let Some(answer) = answer else {
            // Nothing, until whoever waits gives up.
            std::future::pending::<()>().await;
            return Ok(());
        };
        let head = ::http::Response::builder()
            .status(status)
            .header("location", "https://localhost/elsewhere")
            .body(())?;
        let mut stream = respond.send_response(head, false)?;
        loop {
            let mut rest = answer.clone();
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                let granted = granted.context("the stream is over")??;
                let part = rest.split_to(granted.min(rest.len()));
                stream.send_data(part, false)?;
            }
            if !is_endless {
                stream.send_data(Bytes::new(), true)?;
                return Ok(());
            }
        }
    }

    fn statement(&self) -> Signed {
        let now = clock::now().as_millis();
        let at = Timestamp::from_millis;
        let keys = ServerKeys {
            domain: self.domain.clone(),
            domain_key: self.secret.key(),
            serial: 1,
            noise_keys: vec![ServerNoiseKey {
                key: *StaticKey::generate().public(),
                not_before: at(now - 60_000),
                not_after: at(now + 86_400_000),
            }],
            next_domain_key: None,
            issued: at(now),
        };
        if self.document == Document::OtherSigner {
            return DomainSecret::generate().state(&keys);
        }
        self.secret.state(&keys)
    }

    fn document(&self) -> Result<(u16, Option<Bytes>, bool)> {
        let domain = match self.document {
            Document::OtherDomain => Domain::parse("localhost:1")?,
            _ => self.domain.clone(),
        };
        let good = WellKnown {
            endpoint: format!("https://{}", self.domain.as_str()),
            domain,
            versions: vec![2],
            server_keys: self.statement(),
            chain: Vec::new(),
            registration: RegistrationPolicy::Closed,
            ledger: None,
        };
        let filler = Bytes::from(vec![b' '; 65_537]);
        Ok(match self.document {
            Document::Good | Document::OtherDomain | Document::OtherSigner => {
                (200, Some(good.encode().into()), false)
            }
            Document::Status(status) => (status, Some(good.encode().into()), false),
            Document::Redirect => (302, Some(good.encode().into()), false),
            Document::Nonsense => (200, Some(Bytes::from_static(b"{\"domain\":7}")), false),
            Document::Long => (200, Some(filler), false),
            Document::Endless => (200, Some(filler), true),
            Document::Silent => (200, None, false),
        })
    }

    fn reply(&self, raw: &Bytes) -> Result<(u16, Option<Bytes>, bool)> {
        let batch = Batch::decode(raw)?;
        let settled = match self.reply {
            Reply::OtherEvent => vec![Settled {
                event: EventId::new(random_bytes()),
                outcome: commucat_federation::Outcome::Later,
            }],
            _ => Vec::new(),
        };
        let answer = Answer { settled };
        let good = answer.sign(&batch, &self.domain, &self.secret);
        let resigned = |purpose, secret: &DomainSecret, key: Option<u64>| {
            let bent = resign(&good, purpose, secret, |map| {
                if let Some(key) = key {
                    let value = match map.iter().find(|(own, _)| *own == key) {
                        Some((_, Value::Text(_))) => Value::Text(b"localhost:1".to_vec()),
                        Some((_, Value::Bytes(bytes))) => Value::Bytes(vec![7; bytes.len()]),
                        _ => Value::Uint(7),
                    };
                    put(map, key, value);
                }
            });
            bent.map(|bent| (200, Some(Bytes::from(bent)), false))
        };
        Ok(match self.reply {
            Reply::Good | Reply::OtherEvent => (200, Some(good), false),
            Reply::Status(status) => (status, Some(good), false),
            Reply::Redirect => (307, Some(good), false),
            Reply::Nonsense => (200, Some(Bytes::from_static(b"well, well")), false),
            Reply::Endless => (200, Some(Bytes::from(vec![0; 1 << 20])), true),
            Reply::Silent => (200, None, false),
            Reply::OtherKey => {
                resigned(Purpose::FederationAnswer, &DomainSecret::generate(), None)?
            }
            Reply::OtherPurpose => resigned(Purpose::FederationRequest, &self.secret, None)?,
            Reply::Bent(key) => resigned(Purpose::FederationAnswer, &self.secret, Some(key))?,
        })
    }
}
