//! A connection to the running server: TLS, HTTP/2, and a Noise handshake that must be refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commucat_crypto::noise::{StaticKey, XkInitiator};
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::encoder;
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::handshake::{AuthDown, AuthUp, Hello, Pattern};
use commucat_proto::frame::{Direction, Frame, FrameType, Header};
use commucat_proto::id::{DeviceId, Domain, NoiseKey};
use commucat_proto::identity::Identification;
use commucat_proto::limits::WELL_KNOWN_MAX;
use commucat_proto::version::{SUPPORTED, VERSION};
use commucat_proto::well_known::WellKnown;
use commucat_proto::wire::Cbor as _;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

/// Why a step did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("no answer in time")]
    Slow,
    #[error("{0} is no name for a certificate")]
    Name(String),
    #[error("tls connect failed: {0}")]
    Tls(std::io::Error),
    #[error("tls cannot be set up: {0}")]
    Setup(rustls::Error),
    #[error("http/2 failed: {0}")]
    Http(#[from] h2::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("`{0}` answered with status {1}")]
    Status(&'static str, u16),
    #[error("`{0}` is not what it must be")]
    Form(&'static str),
    #[error("the server answered `{0}` before it proved its key")]
    Refused(&'static str),
    #[error("the server does not hold the Noise key that it announces")]
    Unproven,
}

/// What a server that proved its key said to a stranger.
pub(super) enum Proof {
    /// `Handshake Rejected`, as it must.
    Rejected,
    /// Something else.
    Other(&'static str),
}

/// What the TLS handshake showed.
pub(super) struct Seen {
    pub(super) is_trusted: bool,
    pub(super) group: String,
}

/// A connection.
pub(super) struct Server {
    requests: SendRequest<Bytes>,
    authority: String,
    seen: Seen,
    // Ends with the runtime.
    _driver: TaskTracker,
}

impl Server {
    /// Connects by TLS 1.3 and HTTP/2. Any certificate will do; whether it verifies is remembered.
    pub(super) async fn dial(
        address: SocketAddr,
        host: &str,
        wait: Duration,
    ) -> Result<Self, ProbeError> {
        timeout(wait, Self::connect(address, host))
            .await
            .map_err(|_| ProbeError::Slow)?
    }

    async fn connect(address: SocketAddr, host: &str) -> Result<Self, ProbeError> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| ProbeError::Name(host.to_owned()))?;
        let witness = Arc::new(Witness::new());
        let config = witness.config().map_err(ProbeError::Setup)?;
        let stream = TcpStream::connect(address).await.map_err(ProbeError::Tls)?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(ProbeError::Tls)?;
        let group = stream.get_ref().1.negotiated_key_exchange_group();
        let seen = Seen {
            is_trusted: witness.is_trusted.load(Ordering::Relaxed),
            group: group.map_or_else(String::new, |group| format!("{:?}", group.name())),
        };
        let (requests, connection) = h2::client::handshake(stream).await?;
        let driver = TaskTracker::new();
        driver.spawn(async move {
            // The streams on it tell why it ended.
            connection.await.ok();
        });
        let authority = match host.contains(':') {
            true => format!("[{host}]:{}", address.port()),
            false => format!("{host}:{}", address.port()),
        };
        Ok(Self {
            requests,
            authority,
            seen,
            _driver: driver,
        })
    }

    pub(super) const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Fetches `/.well-known/commucat`.
    pub(super) async fn well_known(&mut self) -> Result<WellKnown, ProbeError> {
        const PATH: &str = "/.well-known/commucat";
        let (_, mut body) = self.request(&Method::GET, PATH).await?;
        let mut document = BytesMut::new();
        while let Some(chunk) = read(&mut body).await? {
            document.extend_from_slice(&chunk);
            if document.len() > WELL_KNOWN_MAX {
                return Err(ProbeError::Form(PATH));
            }
        }
        WellKnown::decode(&document).map_err(|_| ProbeError::Form(PATH))
    }

    /// Begins a session as a device that nobody knows. Only the holder of `key` can refuse it in a
    /// sealed record.
    pub(super) async fn prove(
        &mut self,
        domain: &Domain,
        key: &NoiseKey,
    ) -> Result<Proof, ProbeError> {
        let (mut out, mut input) = self.request(&Method::POST, "/connect").await?;
        let stranger = StaticKey::generate();
        let start = XkInitiator::start(domain, &stranger, key);
        let (initiator, handshake) = start.map_err(|_| ProbeError::Unproven)?;
        let hello = Hello {
            version: VERSION,
            supported_versions: SUPPORTED.to_vec(),
            pattern: Pattern::Xk,
            key: Hello::key_name(key),
            handshake,
        };
        send(&mut out, FrameType::Hello, 1, &hello.encode())?;

        let mut decoder = Decoder::clear(Direction::Down);
        let frame = next_frame(&mut decoder, &mut input).await?;
        if frame.header.kind != FrameType::Auth {
            return Err(refused(&frame));
        }
        let auth = AuthDown::decode(&frame.payload).map_err(|_| ProbeError::Form("AUTH"))?;
        let identification = Identification {
            device: DeviceId::of_key(stranger.public()),
            registration: None,
            capabilities: Vec::new(),
            versions: SUPPORTED.to_vec(),
        };
        let finished = initiator.finish(&auth.handshake, &identification.encode());
        let (established, handshake) = finished.map_err(|_| ProbeError::Unproven)?;
        send(&mut out, FrameType::Auth, 2, &AuthUp { handshake }.encode())?;

        let (_, mut opener) = established.into_tunnel();
        let (mut sealed, mut tunnel) = (decoder.into_rest(), Decoder::tunnel(Direction::Down));
        loop {
            let mut plain = BytesMut::new();
            opener
                .open(&sealed, &mut plain)
                .map_err(|_| ProbeError::Unproven)?;
            tunnel.push(&plain);
            match tunnel
                .next_frame()
                .map_err(|_| ProbeError::Form("a sealed frame"))?
            {
                Some(Incoming::Frame(frame)) => return Ok(proof(&frame)),
                Some(Incoming::Skipped(_)) | None => {}
            }
            sealed = match read(&mut input).await? {
                Some(chunk) => BytesMut::from(&chunk[..]),
                None => return Err(ProbeError::Unproven),
            };
        }
    }

    async fn request(
        &mut self,
        method: &Method,
        path: &'static str,
    ) -> Result<(SendStream<Bytes>, RecvStream), ProbeError> {
        let mut requests = self.requests.clone().ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header("content-type", "application/octet-stream")
            .body(())?;
        let (response, out) = requests.send_request(request, *method == Method::GET)?;
        let response = response.await?;
        if response.status() != StatusCode::OK {
            return Err(ProbeError::Status(path, response.status().as_u16()));
        }
        Ok((out, response.into_body()))
    }
}

/// What the sealed frame says. That it opened is the proof.
fn proof(frame: &Frame) -> Proof {
    if frame.header.kind != FrameType::Error {
        return Proof::Other(frame.header.kind.name());
    }
    match Problem::decode(&frame.payload) {
        Ok(problem) if problem.title == Title::HandshakeRejected => Proof::Rejected,
        Ok(problem) => Proof::Other(problem.title.as_str()),
        Err(_) => Proof::Other("an ERROR that cannot be read"),
    }
}

fn refused(frame: &Frame) -> ProbeError {
    if frame.header.kind != FrameType::Error {
        return ProbeError::Form("AUTH");
    }
    match Problem::of_json(&frame.payload) {
        Ok(problem) => ProbeError::Refused(problem.title.as_str()),
        Err(_) => ProbeError::Form("ERROR"),
    }
}

/// Frames of a handshake are far below the window that every server grants.
fn send(
    out: &mut SendStream<Bytes>,
    kind: FrameType,
    sequence: u32,
    payload: &[u8],
) -> Result<(), ProbeError> {
    let mut bytes = BytesMut::new();
    encoder::raw(Header::new(kind, sequence), payload, &mut bytes);
    Ok(out.send_data(bytes.freeze(), false)?)
}

async fn next_frame(decoder: &mut Decoder, input: &mut RecvStream) -> Result<Frame, ProbeError> {
    loop {
        match decoder
            .next_frame()
            .map_err(|_| ProbeError::Form("a frame"))?
        {
            Some(Incoming::Frame(frame)) => return Ok(frame),
            Some(Incoming::Skipped(_)) => {}
            None => match read(input).await? {
                Some(chunk) => decoder.push(&chunk),
                None => return Err(ProbeError::Unproven),
            },
        }
    }
}

async fn read(input: &mut RecvStream) -> Result<Option<Bytes>, ProbeError> {
    let Some(chunk) = input.data().await.transpose()? else {
        return Ok(None);
    };
    input.flow_control().release_capacity(chunk.len())?;
    Ok(Some(chunk))
}

/// Lets every certificate pass and remembers whether it verified; signatures are always checked.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    inner: Option<Arc<WebPkiServerVerifier>>,
    is_trusted: AtomicBool,
}

impl Witness {
    fn new() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        // Fails without any root; then no certificate verifies.
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .ok();
        Self {
            provider,
            inner,
            is_trusted: AtomicBool::new(false),
        }
    }

    fn config(self: &Arc<Self>) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Self>::clone(self))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_trusted = self.inner.as_ref().is_some_and(|inner| {
            let verified = inner.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
            verified.is_ok()
        });
        self.is_trusted.store(is_trusted, Ordering::Relaxed);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
