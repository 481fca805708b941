//! Signing in: who the server is, the Noise handshake, the first ACK (CCP-1 section 3).

use bytes::{Bytes, BytesMut};
use commucat_crypto::noise::{IkInitiator, XkInitiator};
use commucat_crypto::server_keys::{Pin, Statement};
use commucat_crypto::{Established, Opener, Sealer, StaticKey};
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::encoder;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::FirstAck;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::handshake::{AuthDown, AuthUp, Hello, Pattern};
use commucat_proto::frame::{Direction, Frame, FrameType, Header};
use commucat_proto::id::{DeviceId, NoiseKey};
use commucat_proto::identity::{Identification, Registration};
use commucat_proto::limits::WELL_KNOWN_MAX;
use commucat_proto::time::Timestamp;
use commucat_proto::version::{SUPPORTED, VERSION, check_sealed};
use commucat_proto::well_known::WellKnown;
use commucat_proto::wire::Cbor as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::{Endpoint, Http, STEP, Stream};
use super::tls::Tls;
use crate::error::ClientError;
use crate::settings::Trust;

/// Path of the server's identity document.
const WELL_KNOWN: &str = "/.well-known/commucat";

/// Everything that a login needs; a snapshot, so that the engine can go on meanwhile.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) endpoint: Endpoint,
    pub(crate) trust: Trust,
    /// What is pinned of the server.
    pub(crate) pin: Pin,
    /// The Noise key used last.
    pub(crate) noise: Option<NoiseKey>,
    pub(crate) device: DeviceId,
    pub(crate) key: StaticKey,
    /// For a device that the server does not know yet.
    pub(crate) registration: Option<Registration>,
    pub(crate) now: Timestamp,
}

/// A session that is signed in.
pub(crate) struct Session {
    pub(crate) stream: Stream,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// Holds what arrived behind the first ACK.
    pub(crate) decoder: Decoder,
    pub(crate) hello: Welcome,
}

/// What the engine learns from a login.
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    pub(crate) first: FirstAck,
    /// The statement that the Noise key came from, if it was fetched.
    pub(crate) statement: Option<Statement>,
    /// The key that was used.
    pub(crate) noise: NoiseKey,
    /// The TLS certificate did not verify.
    pub(crate) certificate_failed: bool,
}

/// Connects and signs in.
///
/// # Errors
///
/// [`ClientError`] with the step that failed.
pub(crate) async fn login(
    ticket: &Ticket,
    tasks: (&TaskTracker, CancellationToken),
) -> Result<Session, ClientError> {
    let tls = Tls::new(&ticket.trust)?;
    let mut http = Http::dial(&ticket.endpoint, &tls, tasks).await?;
    let (mut statement, mut noise) = (None, ticket.noise);
    if noise.is_none() {
        let fetched = fetch_keys(&mut http, ticket).await?;
        noise = fetched.noise_key(ticket.now).copied();
        statement = Some(fetched);
    }
    let noise = noise.ok_or(ClientError::Identity(
        "it has no Noise key that is valid now",
    ))?;
    let pattern = if ticket.registration.is_some() {
        Pattern::Xk
    } else {
        Pattern::Ik
    };
    let attempt = shake_hands(&mut http, ticket, noise, pattern).await;
    let (shaken, noise) = match attempt {
        Err(ClientError::Handshake(reason)) if statement.is_none() => {
            // The server's Noise key may have changed since: ask once, then try once more.
            let fetched = fetch_keys(&mut http, ticket).await?;
            let fresh = fetched.noise_key(ticket.now).copied();
            let fresh = fresh.ok_or(ClientError::Handshake(reason))?;
            statement = Some(fetched);
            (
                shake_hands(&mut http, ticket, fresh, Pattern::Xk).await?,
                fresh,
            )
        }
        other => (other?, noise),
    };
    let hello = Welcome {
        first: shaken.first,
        statement,
        noise,
        certificate_failed: tls.check_failed(),
    };
    let Shaken {
        stream,
        sealer,
        opener,
        decoder,
        ..
    } = shaken;
    Ok(Session {
        stream,
        sealer,
        opener,
        decoder,
        hello,
    })
}

async fn fetch_keys(http: &mut Http, ticket: &Ticket) -> Result<Statement, ClientError> {
    let body = http.get(WELL_KNOWN, WELL_KNOWN_MAX).await?;
    let document = WellKnown::decode(&body)
        .map_err(|_| ClientError::Http("this is not a CommuCat server".to_owned()))?;
    if document.domain != ticket.pin.domain {
        return Err(ClientError::Identity("it is another domain's server"));
    }
    ticket
        .pin
        .follow(&document.chain, &document.server_keys)
        .map_err(|_| ClientError::Identity("its keys are not signed by the domain key you know"))
}

struct Shaken {
    stream: Stream,
    sealer: Sealer,
    opener: Opener,
    decoder: Decoder,
    first: FirstAck,
}

async fn shake_hands(
    http: &mut Http,
    ticket: &Ticket,
    noise: NoiseKey,
    pattern: Pattern,
) -> Result<Shaken, ClientError> {
    let mut stream = http.connect().await?;
    let work = async {
        let (established, rest) = match pattern {
            Pattern::Xk => xk(&mut stream, ticket, &noise).await?,
            Pattern::Ik => ik(&mut stream, ticket, &noise).await?,
        };
        let (mut sealer, mut opener) = established.into_tunnel();
        if pattern == Pattern::Ik {
            // The server lets a device in when its first sealed record has opened.
            let (mut frame, mut record) = (BytesMut::new(), BytesMut::new());
            encoder::padding(0, &mut frame);
            sealer
                .seal_all(&frame, &mut record)
                .map_err(|_| refused("record"))?;
            Stream::write(&mut stream.out, record.freeze()).await?;
        }
        let mut decoder = Decoder::tunnel(Direction::Down);
        opener
            .open(&rest, decoder.buffer_mut())
            .map_err(|_| refused("a record"))?;
        let first = first_ack(&mut stream, &mut opener, &mut decoder).await?;
        Ok::<_, ClientError>((sealer, opener, decoder, first))
    };
    let (sealer, opener, decoder, first) = tokio::time::timeout(STEP, work)
        .await
        .map_err(|_| ClientError::Timeout)??;
    check_sealed(VERSION, SUPPORTED, &first.versions)
        .map_err(|_| ClientError::Identity("somebody in between chose an old version"))?;
    Ok(Shaken {
        stream,
        sealer,
        opener,
        decoder,
        first,
    })
}

async fn xk(
    stream: &mut Stream,
    ticket: &Ticket,
    noise: &NoiseKey,
) -> Result<(Established, BytesMut), ClientError> {
    let start = XkInitiator::start(&ticket.pin.domain, &ticket.key, noise);
    let (initiator, message) = start.map_err(|_| refused("the server's key"))?;
    send_hello(stream, Pattern::Xk, noise, message).await?;
    let (auth, rest) = read_auth(stream).await?;
    let finished = initiator.finish(&auth.handshake, &identification(ticket));
    let (established, message) = finished.map_err(|_| refused("the server's answer"))?;
    let payload = AuthUp { handshake: message }.encode();
    send_clear(stream, Header::new(FrameType::Auth, 2), &payload).await?;
    Ok((established, rest))
}

async fn ik(
    stream: &mut Stream,
    ticket: &Ticket,
    noise: &NoiseKey,
) -> Result<(Established, BytesMut), ClientError> {
    let said = identification(ticket);
    let start = IkInitiator::start(&ticket.pin.domain, &ticket.key, noise, &said);
    let (initiator, message) = start.map_err(|_| refused("the server's key"))?;
    send_hello(stream, Pattern::Ik, noise, message).await?;
    let (auth, rest) = read_auth(stream).await?;
    let established = initiator.finish(&auth.handshake);
    Ok((
        established.map_err(|_| refused("the server's answer"))?,
        rest,
    ))
}

fn identification(ticket: &Ticket) -> Vec<u8> {
    Identification {
        device: ticket.device.clone(),
        registration: ticket.registration.clone(),
        capabilities: Vec::new(),
        versions: SUPPORTED.to_vec(),
    }
    .encode()
}

async fn send_hello(
    stream: &mut Stream,
    pattern: Pattern,
    noise: &NoiseKey,
    handshake: Vec<u8>,
) -> Result<(), ClientError> {
    let hello = Hello {
        version: VERSION,
        supported_versions: SUPPORTED.to_vec(),
        pattern,
        key: Hello::key_name(noise),
        handshake,
    };
    send_clear(stream, Header::new(FrameType::Hello, 1), &hello.encode()).await
}

async fn send_clear(
    stream: &mut Stream,
    header: Header,
    payload: &[u8],
) -> Result<(), ClientError> {
    let mut frame = BytesMut::new();
    encoder::raw(header, payload, &mut frame);
    Stream::write(&mut stream.out, frame.freeze()).await
}

/// Reads AUTH; also gives what arrived behind it, which is sealed already.
async fn read_auth(stream: &mut Stream) -> Result<(AuthDown, BytesMut), ClientError> {
    let mut decoder = Decoder::clear(Direction::Down);
    let frame = loop {
        if let Some(frame) = next_frame(&mut decoder)? {
            break frame;
        }
        decoder.push(&read(stream).await?);
    };
    if frame.header.kind != FrameType::Auth {
        let problem = Problem::of_json(&frame.payload);
        return Err(problem.map_or_else(|_| refused("the server's answer"), |p| problem_error(&p)));
    }
    let auth = AuthDown::decode(&frame.payload).map_err(|_| refused("the server's answer"))?;
    if auth.protocol_version != VERSION {
        return Err(refused("the server's version"));
    }
    Ok((auth, decoder.into_rest()))
}

async fn first_ack(
    stream: &mut Stream,
    opener: &mut Opener,
    decoder: &mut Decoder,
) -> Result<FirstAck, ClientError> {
    loop {
        while let Some(frame) = next_frame(decoder)? {
            let kind = frame.header.kind;
            if kind == FrameType::Ack {
                return FirstAck::decode_shared(&frame.payload)
                    .map_err(|_| refused("the server's first ACK"));
            }
            if kind == FrameType::Error {
                let problem = Problem::decode_shared(&frame.payload);
                return Err(problem.map_or_else(|_| refused("an ERROR"), |p| problem_error(&p)));
            }
            if kind != FrameType::Padding {
                return Err(refused("a frame before the first ACK"));
            }
        }
        let chunk = read(stream).await?;
        opener
            .open(&chunk, decoder.buffer_mut())
            .map_err(|_| refused("a record"))?;
    }
}

fn next_frame(decoder: &mut Decoder) -> Result<Option<Frame>, ClientError> {
    match decoder.next_frame() {
        Ok(Some(Incoming::Frame(frame))) => Ok(Some(frame)),
        Ok(Some(Incoming::Skipped(_))) => Err(refused("a frame")),
        Ok(None) => Ok(None),
        Err(_) => Err(refused("a frame")),
    }
}

async fn read(stream: &mut Stream) -> Result<Bytes, ClientError> {
    // A server that cannot read message 3 closes without a word (decision 0801, point 8).
    let closed = || ClientError::Handshake("the server closed the connection".to_owned());
    Stream::read(&mut stream.input).await?.ok_or_else(closed)
}

fn refused(what: &str) -> ClientError {
    ClientError::Handshake(format!("{what} does not open"))
}

/// What an ERROR means for the login.
pub(crate) fn problem_error(problem: &Problem) -> ClientError {
    if problem.title == Title::HandshakeRejected {
        ClientError::Handshake("the server does not accept this device".to_owned())
    } else if problem.title == Title::Revoked {
        ClientError::Handshake("this device was revoked".to_owned())
    } else {
        ClientError::Server {
            title: problem.title.as_str().to_owned(),
        }
    }
}
