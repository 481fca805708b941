//! A device that says whatever it likes: handshakes by hand, records, frames with any header.

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use commucat_crypto::certificate::{AccountSecret, DeviceKeys, Validity};
use commucat_crypto::noise::{Established, IkInitiator, StaticKey, XkInitiator};
use commucat_crypto::secret::{Secret, random_bytes};
use commucat_crypto::signing::SigningKey;
use commucat_crypto::tunnel::{Opener, Sealer};
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{AckDown, FirstAck};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::handshake::{AuthDown, AuthUp, Hello, Pattern};
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::{Direction, Frame, FrameType};
use commucat_proto::id::{DeviceId, Domain, GroupId, NoiseKey, Token};
use commucat_proto::identity::{Identification, Registration};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;
use tokio::time::timeout;

use crate::carrier::{Carrier, Link, WAIT};
use crate::clock;
use crate::wire;

const YEAR_MS: u64 = 365 * 86_400_000;

/// What every device must know of the server.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) domain: Domain,
    pub(crate) key: NoiseKey,
}

/// An account with one device.
pub(crate) struct Keys {
    pub(crate) account: AccountSecret,
    pub(crate) noise: StaticKey,
    pub(crate) device: DeviceId,
    pub(crate) target: Target,
}

impl Keys {
    pub(crate) fn new(target: &Target) -> Self {
        let noise = StaticKey::generate();
        Self {
            account: AccountSecret::from_seed(&Secret::random()),
            device: DeviceId::of_key(noise.public()),
            noise,
            target: target.clone(),
        }
    }

    /// A certificate of this account for a key.
    pub(crate) fn certify(&self, device: &DeviceId, key: &NoiseKey, validity: Validity) -> Signed {
        let keys = DeviceKeys {
            device: device.clone(),
            noise_key: *key,
            mls_key: SigningKey::generate().public().to_vec().into(),
        };
        self.account.certify(&keys, validity)
    }

    pub(crate) fn certificate(&self) -> Signed {
        self.certify(&self.device, self.noise.public(), valid())
    }

    pub(crate) fn list(&self, version: u64) -> Signed {
        self.list_of(version, vec![self.certificate()])
    }

    pub(crate) fn list_of(&self, version: u64, certificates: Vec<Signed>) -> Signed {
        let domain = &self.target.domain;
        self.account
            .list(domain, version, clock::now(), certificates)
    }

    pub(crate) fn identification(&self, registration: Option<Registration>) -> Identification {
        Identification {
            device: self.device.clone(),
            registration,
            capabilities: Vec::new(),
            versions: vec![2],
        }
    }

    /// Registers by XK.
    pub(crate) async fn register(&self, link: &Link, token: Token) -> Result<Session> {
        let registration = Registration {
            invite: Some(token),
            list: self.list(1),
        };
        let identification = self.identification(Some(registration)).encode();
        let session = xk(link, &self.target, &self.noise, &identification).await?;
        session.welcomed().await
    }

    /// Connects by XK.
    pub(crate) async fn connect(&self, link: &Link) -> Result<Session> {
        let identification = self.identification(None).encode();
        let session = xk(link, &self.target, &self.noise, &identification).await?;
        session.welcomed().await
    }
}

/// From an hour ago, for a year.
pub(crate) fn valid() -> Validity {
    let now = clock::now().as_millis();
    Validity {
        not_before: Timestamp::from_millis(now - 3_600_000),
        not_after: Timestamp::from_millis(now + YEAR_MS),
    }
}

/// What a case came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Got {
    /// Answered by ACK, or taken into custody.
    Done,
    /// ERROR with key 5; the connection goes on.
    Refused(Title),
    /// ERROR without key 5, then the end.
    Fatal(Title),
    /// ERROR in clear, then the end.
    Clear(Title),
    /// The end, without a word.
    Closed,
    /// Nothing, and the connection goes on.
    Quiet,
    /// The handshake goes on.
    Auth,
    /// Anything else.
    Strange(String),
}

/// HELLO with a message of Noise.
pub(crate) fn hello(target: &Target, pattern: Pattern, handshake: Vec<u8>) -> Vec<u8> {
    let hello = Hello {
        version: 2,
        supported_versions: vec![2],
        pattern,
        key: Hello::key_name(&target.key),
        handshake,
    };
    wire::frame(1, 0, 1, &hello.encode())
}

/// The other side's answer in clear.
pub(crate) enum ClearAnswer {
    Auth(Vec<u8>, BytesMut),
    Other(Got),
}

/// Reads until AUTH, ERROR or the end.
pub(crate) async fn clear_answer(carrier: &mut Carrier) -> ClearAnswer {
    let mut decoder = Decoder::clear(Direction::Down);
    loop {
        match decoder.next_frame() {
            Ok(Some(Incoming::Frame(frame))) => return read_clear(carrier, frame, decoder).await,
            Ok(Some(Incoming::Skipped(_))) => {}
            Ok(None) => match timeout(WAIT, carrier.read()).await {
                Err(_) => return ClearAnswer::Other(Got::Quiet),
                Ok(None) => return ClearAnswer::Other(Got::Closed),
                Ok(Some(bytes)) => decoder.push(&bytes),
            },
            Err(error) => return ClearAnswer::Other(Got::Strange(error.to_string())),
        }
    }
}

async fn read_clear(carrier: &mut Carrier, frame: Frame, decoder: Decoder) -> ClearAnswer {
    if frame.header.kind == FrameType::Auth {
        return match AuthDown::decode(&frame.payload) {
            Ok(auth) => ClearAnswer::Auth(auth.handshake, decoder.into_rest()),
            Err(error) => ClearAnswer::Other(Got::Strange(error.to_string())),
        };
    }
    ClearAnswer::Other(match Problem::of_json(&frame.payload) {
        Ok(problem) if ends(carrier).await => Got::Clear(problem.title),
        Ok(problem) => Got::Strange(format!("{:?}, and it goes on", problem.title)),
        Err(error) => Got::Strange(error.to_string()),
    })
}

/// Whether the other side ends now, without another byte.
pub(crate) async fn ends(carrier: &mut Carrier) -> bool {
    matches!(timeout(WAIT, carrier.read()).await, Ok(None))
}

/// Runs XK up to message 3; what the server says to it is not read.
pub(crate) async fn xk(
    link: &Link,
    target: &Target,
    key: &StaticKey,
    identification: &[u8],
) -> Result<Session> {
    let mut carrier = link.open().await?;
    let (noise, first) = XkInitiator::start(&target.domain, key, &target.key)?;
    carrier.write(&hello(target, Pattern::Xk, first)).await;
    let ClearAnswer::Auth(answer, rest) = clear_answer(&mut carrier).await else {
        bail!("no AUTH");
    };
    let (established, last) = noise.finish(&answer, identification)?;
    let auth = AuthUp { handshake: last };
    carrier.write(&wire::frame(2, 0, 2, &auth.encode())).await;
    Ok(Session::new(carrier, established, &rest))
}

/// Runs IK with a PADDING behind it. Returns the HELLO too, for whoever wants to say it again.
pub(crate) async fn ik(link: &Link, keys: &Keys) -> Result<(Session, Vec<u8>)> {
    let mut carrier = link.open().await?;
    let target = &keys.target;
    let identification = keys.identification(None).encode();
    let (noise, first) =
        IkInitiator::start(&target.domain, &keys.noise, &target.key, &identification)?;
    let hello = hello(target, Pattern::Ik, first);
    carrier.write(&hello).await;
    let ClearAnswer::Auth(answer, rest) = clear_answer(&mut carrier).await else {
        bail!("no AUTH");
    };
    let mut session = Session::new(carrier, noise.finish(&answer)?, &rest);
    session.send(&wire::frame(0x43, 0, 0, &[])).await;
    Ok((session.welcomed().await?, hello))
}

/// What comes out of a session.
#[derive(Debug)]
pub(crate) enum Event {
    Frame(Frame),
    Closed,
    Quiet,
    Broken(String),
}

/// A tunnel.
pub(crate) struct Session {
    pub(crate) carrier: Carrier,
    sealer: Sealer,
    opener: Opener,
    decoder: Decoder,
    next: u64,
    over: bool,
    /// What came that no case waits for.
    pub(crate) others: Vec<Frame>,
}

impl Session {
    fn new(carrier: Carrier, established: Established, rest: &[u8]) -> Self {
        let (sealer, mut opener) = established.into_tunnel();
        let mut decoder = Decoder::tunnel(Direction::Down);
        let over = opener.open(rest, decoder.buffer_mut()).is_err();
        Self {
            carrier,
            sealer,
            opener,
            decoder,
            next: 1,
            over,
            others: Vec::new(),
        }
    }

    /// Reads the first ACK.
    pub(crate) async fn welcomed(mut self) -> Result<Self> {
        match self.event().await {
            Event::Frame(frame) if frame.header.kind == FrameType::Ack => {
                FirstAck::decode_shared(&frame.payload)?;
                Ok(self)
            }
            Event::Frame(frame) => {
                let problem = Problem::decode_shared(&frame.payload).context("no first ACK")?;
                bail!("{:?} in place of the first ACK", problem.title)
            }
            other => bail!("{other:?} in place of the first ACK"),
        }
    }

    /// What the first sealed frame says.
    pub(crate) async fn verdict(mut self) -> Got {
        match self.event().await {
            Event::Frame(frame) if frame.header.kind == FrameType::Ack => Got::Done,
            Event::Frame(frame) if frame.header.kind == FrameType::Error => {
                self.farewell(&frame).await
            }
            Event::Frame(frame) => Got::Strange(format!("{frame:?}")),
            Event::Closed => Got::Closed,
            Event::Quiet => Got::Quiet,
            Event::Broken(what) => Got::Strange(what),
        }
    }

    async fn farewell(&mut self, frame: &Frame) -> Got {
        let Ok(problem) = Problem::decode_shared(&frame.payload) else {
            return Got::Strange("an ERROR that is none".to_owned());
        };
        self.over = true;
        if ends(&mut self.carrier).await {
            Got::Fatal(problem.title)
        } else {
            Got::Strange(format!("{:?}, and it goes on", problem.title))
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The number that the next numbered frame takes.
    pub(crate) fn number(&self) -> u64 {
        self.next
    }

    pub(crate) fn seal(&mut self, plain: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        match self.sealer.seal_all(plain, &mut out) {
            Ok(()) => out,
            // Only after 2^64 records.
            Err(_) => BytesMut::new(),
        }
    }

    /// Sends plaintext in full records.
    pub(crate) async fn send(&mut self, plain: &[u8]) {
        let sealed = self.seal(plain);
        self.carrier.write(&sealed).await;
    }

    /// The next frame that is not PADDING.
    pub(crate) async fn event(&mut self) -> Event {
        let frames = async {
            loop {
                match self.decoder.next_frame() {
                    Ok(Some(Incoming::Frame(frame))) => {
                        if frame.header.kind != FrameType::Padding {
                            return Event::Frame(frame);
                        }
                    }
                    Ok(Some(Incoming::Skipped(_))) => {}
                    Err(error) => return Event::Broken(error.to_string()),
                    Ok(None) => {
                        let Some(bytes) = self.carrier.read().await else {
                            self.over = true;
                            return Event::Closed;
                        };
                        if self.opener.open(&bytes, self.decoder.buffer_mut()).is_err() {
                            return Event::Broken("a record does not open".to_owned());
                        }
                    }
                }
            }
        };
        timeout(WAIT, frames).await.unwrap_or(Event::Quiet)
    }

    /// Sends a numbered frame; returns its number.
    pub(crate) async fn numbered(&mut self, kind: FrameType, channel: u64, payload: &[u8]) -> u64 {
        let number = self.next;
        self.next += 1;
        self.send(&wire::frame(kind.code(), channel, number, payload))
            .await;
        number
    }

    /// A request whose result is needed.
    pub(crate) async fn request(
        &mut self,
        kind: FrameType,
        channel: u64,
        payload: &[u8],
    ) -> Result<bytes::Bytes> {
        let number = self.numbered(kind, channel, payload).await;
        match self.answer(number).await {
            (Got::Done, result) => Ok(result),
            (other, _) => bail!("{} is answered by {other:?}", kind.name()),
        }
    }

    /// The answer to the numbered frame `number`.
    pub(crate) async fn answer(&mut self, number: u64) -> (Got, bytes::Bytes) {
        let none = bytes::Bytes::new();
        loop {
            match self.event().await {
                Event::Frame(frame) => match self.read_answer(&frame, number).await {
                    Some(found) => return found,
                    None if frame.header.kind == FrameType::Ack => {}
                    None => self.others.push(frame),
                },
                Event::Closed => return (Got::Closed, none),
                Event::Quiet => return (Got::Quiet, none),
                Event::Broken(what) => return (Got::Strange(what), none),
            }
        }
    }

    async fn read_answer(&mut self, frame: &Frame, number: u64) -> Option<(Got, bytes::Bytes)> {
        let none = bytes::Bytes::new();
        match frame.header.kind {
            FrameType::Ack => {
                let ack = AckDown::decode_shared(&frame.payload).ok()?;
                let covers = ack.custody.iter().any(|run| {
                    let first = u64::from(run.first);
                    (first..first + u64::from(run.count)).contains(&number)
                });
                if covers {
                    return Some((Got::Done, none));
                }
                let answer = ack.answer?;
                (u64::from(answer.request) == number).then_some((Got::Done, answer.result))
            }
            FrameType::Error => {
                let problem = Problem::decode_shared(&frame.payload).ok()?;
                match problem.sequence {
                    Some(sequence) if u64::from(sequence) == number => {
                        Some((Got::Refused(problem.title), none))
                    }
                    Some(_) => None,
                    None => Some((self.farewell(frame).await, none)),
                }
            }
            _ => None,
        }
    }

    /// Sends plaintext that holds, if `numbered`, the next number, with a harmless request behind it:
    /// so an answer always comes.
    pub(crate) async fn provoke(&mut self, plain: &[u8], numbered: bool) -> Got {
        let number = self.next;
        let sentinel = number + u64::from(numbered);
        self.next = sentinel + 1;
        let leave = Leave {
            group: GroupId::new(random_bytes()),
            for_good: false,
        };
        let behind = wire::frame(FrameType::Leave.code(), 0, sentinel, &leave.encode());
        self.send(&[plain, &behind].concat()).await;
        let (mut seen, mut goes_on) = (None, false);
        while !goes_on || (numbered && seen.is_none()) {
            let frame = match self.event().await {
                Event::Frame(frame) => frame,
                Event::Closed => return Got::Closed,
                Event::Quiet => return Got::Strange(format!("no answer, after {seen:?}")),
                Event::Broken(what) => return Got::Strange(what),
            };
            if numbered && let Some((got, _)) = self.read_answer(&frame, number).await {
                if self.over {
                    return got;
                }
                if let Some(before) = seen {
                    return Got::Strange(format!("two answers, {before:?} and {got:?}"));
                }
                seen = Some(got);
            } else if let Some((got, _)) = self.read_answer(&frame, sentinel).await {
                if got != Got::Done {
                    return got;
                }
                goes_on = true;
            } else if frame.header.kind != FrameType::Ack {
                self.others.push(frame);
            }
        }
        seen.unwrap_or(Got::Quiet)
    }
}
