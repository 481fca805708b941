//! How a device comes to its tunnel: TLS, HTTP/2, `/connect`, Noise XK.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::{Bytes, BytesMut};
use commucat_crypto::certificate::{AccountSecret, DeviceKeys, Validity};
use commucat_crypto::noise::{Established, StaticKey, XkInitiator};
use commucat_crypto::secret::{Secret, random_bytes};
use commucat_crypto::signing::SigningKey;
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::encoder;
use commucat_proto::frame::ack::FirstAck;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::handshake::{AuthDown, AuthUp, Hello, Pattern};
use commucat_proto::frame::{Direction, FrameType, Header};
use commucat_proto::id::{DeviceId, Domain, NoiseKey};
use commucat_proto::identity::{Identification, Registration};
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;
use tokio_rustls::TlsConnector;

use super::{Device, Stream};
use crate::clock;
use crate::socket;
use crate::tally::Tally;

/// Wide enough that flow control never waits: what is measured is the server.
const WINDOW: u32 = 16 << 20;
const YEAR_MS: u64 = 365 * 86_400_000;

/// Where the server is and what it is known by.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) domain: Domain,
    pub(crate) key: NoiseKey,
    pub(crate) connector: TlsConnector,
    pub(crate) tally: Arc<Tally>,
}

/// An account with one device.
pub(crate) struct Keys {
    account: AccountSecret,
    noise: StaticKey,
    device: DeviceId,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let noise = StaticKey::generate();
        Self {
            account: AccountSecret::from_seed(&Secret::random()),
            device: DeviceId::of_key(noise.public()),
            noise,
        }
    }

    fn registration(&self, domain: &Domain) -> Registration {
        let now = clock::now().as_millis();
        let validity = Validity {
            not_before: Timestamp::from_millis(now - 3_600_000),
            not_after: Timestamp::from_millis(now + YEAR_MS),
        };
        let keys = DeviceKeys {
            device: self.device.clone(),
            noise_key: *self.noise.public(),
            mls_key: SigningKey::generate().public().to_vec().into(),
        };
        let certificate = self.account.certify(&keys, validity);
        let list = self
            .account
            .list(domain, 1, clock::now(), vec![certificate]);
        Registration { invite: None, list }
    }

    /// Registers; the device is connected then.
    pub(crate) async fn register(&self, target: &Target) -> Result<Device> {
        let registration = self.registration(&target.domain);
        self.tunnel(target, Some(registration)).await
    }

    /// Connects a registered device.
    pub(crate) async fn connect(&self, target: &Target) -> Result<Device> {
        self.tunnel(target, None).await
    }

    async fn tunnel(&self, target: &Target, registration: Option<Registration>) -> Result<Device> {
        let identification = Identification {
            device: self.device.clone(),
            registration,
            capabilities: Vec::new(),
            versions: vec![2],
        };
        let mut stream = open(target).await?;
        let (noise, first) = XkInitiator::start(&target.domain, &self.noise, &target.key)?;
        let hello = Hello {
            version: 2,
            supported_versions: vec![2],
            pattern: Pattern::Xk,
            key: Hello::key_name(&target.key),
            handshake: first,
        };
        stream
            .write(clear(FrameType::Hello, 1, &hello.encode()))
            .await?;
        let (answer, rest) = answer(&mut stream).await?;
        let (established, last) = noise.finish(&answer, &identification.encode())?;
        let auth = AuthUp { handshake: last };
        stream
            .write(clear(FrameType::Auth, 2, &auth.encode()))
            .await?;
        begin(target.domain.clone(), stream, established, &rest).await
    }
}

fn clear(kind: FrameType, sequence: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    encoder::raw(Header::new(kind, sequence), payload, &mut out);
    out.freeze()
}

async fn open(target: &Target) -> Result<Stream> {
    let tls = socket::connect(target.address, &target.connector, &target.tally).await?;
    let (mut requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(tls)
        .await?;
    let request = http::Request::post("https://localhost/connect")
        .header("content-type", "application/octet-stream")
        .body(())?;
    let (answer, sending) = requests.send_request(request, false)?;
    let answer = tokio::select! {
        answer = answer => answer?,
        ended = &mut connection => bail!("the connection ended: {ended:?}"),
    };
    if answer.status() != http::StatusCode::OK {
        bail!("/connect answers {}", answer.status());
    }
    Ok(Stream {
        connection,
        _requests: requests,
        sending,
        receiving: answer.into_body(),
    })
}

/// Noise's second message, with what follows it.
async fn answer(stream: &mut Stream) -> Result<(Vec<u8>, BytesMut)> {
    let mut decoder = Decoder::clear(Direction::Down);
    loop {
        match decoder.next_frame()? {
            Some(Incoming::Frame(frame)) if frame.header.kind == FrameType::Auth => {
                let auth = AuthDown::decode(&frame.payload)?;
                return Ok((auth.handshake, decoder.into_rest()));
            }
            Some(Incoming::Frame(frame)) => {
                let problem = Problem::of_json(&frame.payload)?;
                bail!("the handshake ends with {:?}", problem.title);
            }
            Some(Incoming::Skipped(_)) => {}
            None => {
                let bytes = stream.read().await?;
                decoder.push(&bytes.context("closed in the handshake")?);
            }
        }
    }
}

async fn begin(
    domain: Domain,
    stream: Stream,
    established: Established,
    rest: &[u8],
) -> Result<Device> {
    let (sealer, mut opener) = established.into_tunnel();
    let mut decoder = Decoder::tunnel(Direction::Down);
    opener.open(rest, decoder.buffer_mut())?;
    let mut device = Device {
        domain,
        stream,
        sealer,
        opener,
        decoder,
        next: 1,
        confirmed: 0,
        plain: BytesMut::new(),
        template: BytesMut::new(),
        salt: u64::from_be_bytes(random_bytes()),
    };
    let frame = device.frame().await?;
    if frame.header.kind == FrameType::Error {
        let problem = Problem::decode_shared(&frame.payload)?;
        bail!("{:?} in place of the first ACK", problem.title);
    }
    FirstAck::decode_shared(&frame.payload)?;
    Ok(device)
}
