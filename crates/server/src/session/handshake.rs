//! The handshake (CCP-1 section 3): who is there, proven by Noise, and registration of whoever is new.

use bytes::BytesMut;
use commucat_crypto::noise::{
    Established as Noise, HandshakeError, IkResponder, StaticKey, XkResponder,
};
use commucat_crypto::tunnel::Sealer;
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::handshake::{AuthDown, AuthUp, Hello, OfferedVersions, Pattern};
use commucat_proto::frame::{Frame, FrameType, Header};
use commucat_proto::identity::Identification;
use commucat_proto::version::{self, SUPPORTED, VERSION};
use commucat_proto::wire::Cbor;
use commucat_storage::Device;

use super::wire::{Wire, WireError};
use super::{Established, Sessions, outbound, to_its_end};
use crate::accounts::Admitted;
use crate::carrier::PeerTag;
use crate::clock;
use crate::metrics::label;

/// Number of the server's frame in clear.
const AUTH_SEQUENCE: u32 = 1;

/// Why a handshake ended.
pub(super) enum Refused {
    /// The client went away, or sent what nobody answers.
    Silent,
    /// Told in clear.
    Clear(Problem),
    /// Told in the first sealed record.
    Sealed(Problem, Box<Sealer>),
}

impl Refused {
    fn clear(title: Title, detail: &'static str) -> Self {
        Self::Clear(Problem::new(title, detail))
    }

    /// The handshake is broken off from here: told if the client would understand it.
    pub(super) fn broken_off(wire: &Wire, title: Title, detail: &'static str) -> Self {
        if wire.is_clear() {
            Self::clear(title, detail)
        } else {
            Self::Silent
        }
    }

    fn rejected() -> Self {
        Self::Clear(rejected())
    }

    /// The status for logs; 0 if nothing is said.
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Silent => 0,
            Self::Clear(problem) | Self::Sealed(problem, _) => problem.title.status(),
        }
    }

    /// What is counted.
    pub(super) fn label(&self) -> label::Handshake {
        match self {
            Self::Clear(problem) | Self::Sealed(problem, _)
                if problem.title == Title::HandshakeRejected =>
            {
                label::Handshake::Rejected
            }
            Self::Silent | Self::Clear(_) | Self::Sealed(..) => label::Handshake::Malformed,
        }
    }

    /// Tells the client, if there is anything to tell.
    pub(super) async fn say(self, wire: &mut Wire) {
        match self {
            Self::Silent => {}
            Self::Clear(problem) => wire.say_problem(&problem).await,
            Self::Sealed(problem, mut sealer) => {
                let (mut plain, mut sealed) = (BytesMut::new(), BytesMut::new());
                outbound::problem(&problem, &mut plain);
                if sealer.seal_all(&plain, &mut sealed).is_ok()
                    && wire.write(sealed.freeze()).await.is_err()
                {
                    tracing::trace!("the client did not wait for the error");
                }
            }
        }
    }
}

impl From<WireError> for Refused {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Ended | WireError::Carrier(_) => Self::Silent,
            WireError::Decode(error) => Self::clear(error.into(), "no frame of a handshake"),
        }
    }
}

impl From<crate::carrier::CarrierError> for Refused {
    fn from(_: crate::carrier::CarrierError) -> Self {
        Self::Silent
    }
}

impl From<HandshakeError> for Refused {
    fn from(_: HandshakeError) -> Self {
        Self::rejected()
    }
}

/// Unknown device, wrong key, revoked device, spent invite: on purpose the same words.
fn rejected() -> Problem {
    Problem::new(
        Title::HandshakeRejected,
        "device, key or invite is not accepted",
    )
}

/// Runs the handshake to its end. The caller bounds its time.
pub(super) async fn run(
    sessions: &Sessions,
    wire: &mut Wire,
    peer: PeerTag,
) -> Result<Established, Refused> {
    let hello = read_hello(&wire.frame().await?)?;
    let Some(local) = sessions.keys.noise_key(&hello.key, clock::now()) else {
        return Err(Refused::rejected());
    };
    match hello.pattern {
        Pattern::Xk => xk(sessions, wire, &local, &hello, peer).await,
        Pattern::Ik => ik(sessions, wire, &local, &hello).await,
    }
}

fn read_hello(frame: &Frame) -> Result<Hello, Refused> {
    if frame.header.kind != FrameType::Hello {
        return Err(Refused::clear(
            Title::InvalidFrameType,
            "a handshake begins with HELLO",
        ));
    }
    let bad = |_| Refused::clear(Title::InvalidControlPayload, "HELLO is not what it must be");
    let offered = OfferedVersions::decode(&frame.payload).map_err(bad)?;
    if version::highest_common(SUPPORTED, &offered.supported_versions) != Some(VERSION) {
        let mut problem = Problem::new(Title::ProtocolVersionMismatch, "no version in common");
        problem.extra.versions = SUPPORTED.to_vec();
        return Err(Refused::Clear(problem));
    }
    Hello::decode(&frame.payload).map_err(bad)
}

async fn send_auth(wire: &mut Wire, handshake: Vec<u8>) -> Result<(), Refused> {
    let auth = AuthDown {
        protocol_version: VERSION,
        supported_versions: SUPPORTED.to_vec(),
        handshake,
    };
    wire.send(Header::new(FrameType::Auth, AUTH_SEQUENCE), &auth.encode())
        .await?;
    Ok(())
}

async fn xk(
    sessions: &Sessions,
    wire: &mut Wire,
    local: &StaticKey,
    hello: &Hello,
    peer: PeerTag,
) -> Result<Established, Refused> {
    let domain = sessions.accounts.domain();
    let (responder, answer) = XkResponder::answer(domain, local, &hello.handshake)?;
    send_auth(wire, answer).await?;
    let frame = wire.frame().await?;
    if frame.header.kind != FrameType::Auth {
        return Err(Refused::clear(Title::InvalidFrameType, "AUTH comes next"));
    }
    let bad = |_| Refused::clear(Title::InvalidControlPayload, "AUTH is not what it must be");
    let auth = AuthUp::decode(&frame.payload).map_err(bad)?;
    // From here on the client expects sealed records only: silence is the one clear answer.
    wire.expects_records();
    let (noise, identification) = responder
        .finish(&auth.handshake)
        .map_err(|_| Refused::Silent)?;
    let key = *noise.remote_key();
    let (sealer, opener) = noise.into_tunnel();
    let admitted = match read_identification(&identification) {
        Ok(identification) => {
            let accounts = sessions.accounts.clone();
            to_its_end(&sessions.tasks, async move {
                accounts.admit(&key, &identification, peer).await
            })
            .await
        }
        Err(problem) => Err(problem),
    };
    let (device, outcome) = match admitted {
        Ok(Admitted::Known(device)) => (device, label::Handshake::Xk),
        Ok(Admitted::Registered(device)) => (device, label::Handshake::Registered),
        Ok(Admitted::Refused) => return Err(Refused::Sealed(rejected(), Box::new(sealer))),
        Err(problem) => return Err(Refused::Sealed(problem, Box::new(sealer))),
    };
    sessions.metrics.handshakes.of(outcome).inc();
    let rest = wire.take_rest();
    Ok(Established {
        device,
        sealer,
        opener,
        rest,
        opened: BytesMut::new(),
    })
}

async fn ik(
    sessions: &Sessions,
    wire: &mut Wire,
    local: &StaticKey,
    hello: &Hello,
) -> Result<Established, Refused> {
    let responder = IkResponder::read(sessions.accounts.domain(), local, &hello.handshake)?;
    let key = *responder.remote_key();
    let identification = read_identification(responder.identification()).map_err(Refused::Clear)?;
    let known = sessions
        .accounts
        .known(&key, &identification)
        .await
        .map_err(Refused::Clear)?;
    if known.is_none() {
        return Err(Refused::rejected());
    }
    let (noise, answer) = responder.accept()?;
    send_auth(wire, answer).await?;
    wire.expects_records();
    // The first message may be a replay: the device is there when its first record has opened, and
    // only then is looked at again and takes effect.
    let established = await_presence(wire, noise).await?;
    let (sealer, opener, rest, opened) = established;
    match sessions.accounts.known(&key, &identification).await {
        Ok(Some(device)) => {
            sessions.metrics.handshakes.of(label::Handshake::Ik).inc();
            Ok(Established {
                device,
                sealer,
                opener,
                rest,
                opened,
            })
        }
        Ok(None) => Err(Refused::Sealed(rejected(), Box::new(sealer))),
        Err(problem) => Err(Refused::Sealed(problem, Box::new(sealer))),
    }
}

type Present = (Sealer, commucat_crypto::tunnel::Opener, BytesMut, BytesMut);

async fn await_presence(wire: &mut Wire, noise: Noise) -> Result<Present, Refused> {
    let (sealer, mut opener) = noise.into_tunnel();
    let mut opened = BytesMut::new();
    let mut chunk = wire.take_rest().freeze();
    loop {
        let records = opener
            .open(&chunk, &mut opened)
            .map_err(|_| Refused::Silent)?;
        if records > 0 {
            return Ok((sealer, opener, BytesMut::new(), opened));
        }
        chunk = wire.reader.next().await?.ok_or(Refused::Silent)?;
    }
}

/// Reads what the device says of itself, and whether the versions in clear were tampered with.
fn read_identification(raw: &[u8]) -> Result<Identification, Problem> {
    let identification = Identification::decode(raw).map_err(|_| {
        Problem::new(
            Title::InvalidControlPayload,
            "the identification is not what it must be",
        )
    })?;
    if version::check_sealed(VERSION, SUPPORTED, &identification.versions).is_err() {
        let detail = "the versions in clear were not those sealed";
        return Err(Problem::new(Title::ProtocolVersionMismatch, detail));
    }
    Ok(identification)
}

/// A device as the store has it, if it may come in now.
pub(crate) fn may_enter(device: Device, identification: &Identification) -> Option<Device> {
    let now = clock::now();
    let is_it = device.device == identification.device;
    let is_valid = (device.not_before..=device.not_after).contains(&now);
    (is_it && is_valid).then_some(device)
}
