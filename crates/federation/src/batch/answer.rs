//! Answers: what became of each event of a batch. Custody passes with their signature.

use std::collections::HashSet;

use blake3::Hash;
use bytes::Bytes;
use commucat_crypto::Purpose;
use commucat_crypto::server_keys::DomainSecret;
use commucat_crypto::signing::verify;
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::group_event::Reason;
use commucat_proto::id::{Domain, DomainKey};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader, required};
use commucat_proto::wire::writer::Writer;

use super::{ANSWER_MAX, Batch, BatchId, EVENTS_MAX, KeyId, Sent, encode};
use crate::event::{EventId, REFERENCES_MAX};

/// Room for everything but the outcomes.
const FRAME_ROOM: usize = 1_024;
/// Bytes of an outcome beside its result.
const SETTLED_ROOM: usize = 32;

/// What became of one event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// 1: the domain that answers has custody, or has carried the event out. For a `deliver` the
    /// result names the references that are not in custody; for anything else it is absent.
    Custody(Vec<Unsettled>),
    /// 2: a request was carried out; its result, encoded as in the ACK.
    Result(Bytes),
    /// 3: never again in this form, and why.
    Refused(Box<Problem>),
    /// 4: whom it was for is gone.
    Gone,
    /// 5: not now; send it again.
    Later,
}

/// A reference of a `deliver` that is not in custody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unsettled {
    /// Which of the event's references, from 0.
    pub index: u32,
    /// Whether the device is gone; else the delivery to it was refused.
    pub gone: bool,
    /// Why.
    pub reason: Reason,
}

impl Cbor for Unsettled {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(3);
        to.uint(self.index);
        to.uint(if self.gone { 4_u8 } else { 3 });
        to.uint(self.reason.code());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(3, |from| {
            let index = u32::read(from)?;
            let gone = match from.uint()? {
                3 => false,
                4 => true,
                _ => return Err(CborError::Range("the outcome of a reference")),
            };
            let reason = Reason::of_code(from.uint()?);
            Ok(Self {
                index,
                gone,
                reason,
            })
        })
    }
}

/// An event and what became of it: `[event id, outcome, ?result]`, where the result is a byte string
/// that holds CBOR.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settled {
    /// The event.
    pub event: EventId,
    /// What became of it.
    pub outcome: Outcome,
}

impl Settled {
    fn size(&self) -> usize {
        SETTLED_ROOM + self.result().map_or(0, |result| result.len())
    }

    fn result(&self) -> Option<Bytes> {
        match &self.outcome {
            Outcome::Custody(unsettled) if unsettled.is_empty() => None,
            Outcome::Custody(unsettled) => Some(encode(|to| to.list(unsettled), 0)),
            Outcome::Result(result) => Some(result.clone()),
            Outcome::Refused(problem) => Some(encode(|to| problem.write(to), 0)),
            Outcome::Gone | Outcome::Later => None,
        }
    }
}

impl Cbor for Settled {
    fn write(&self, to: &mut Writer<'_>) {
        let result = self.result();
        to.array(if result.is_some() { 3 } else { 2 });
        self.event.write(to);
        to.uint(match self.outcome {
            Outcome::Custody(_) => 1_u8,
            Outcome::Result(_) => 2,
            Outcome::Refused(_) => 3,
            Outcome::Gone => 4,
            Outcome::Later => 5,
        });
        if let Some(result) = result {
            to.bytes(&result);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let raw = from.item()?;
        let with_result = Reader::new(&raw).tuple(3, |from| {
            let (event, code) = (EventId::read(from)?, from.uint()?);
            Ok((event, code, Some(from.bytes()?)))
        });
        let (event, code, result) = match with_result {
            Err(CborError::Range("the length of an array")) => {
                Reader::new(&raw).tuple(2, |from| Ok((EventId::read(from)?, from.uint()?, None)))?
            }
            read => read?,
        };
        let outcome = read_outcome(code, result)?;
        Ok(Self { event, outcome })
    }
}

fn read_outcome(code: u64, result: Option<Bytes>) -> Result<Outcome, CborError> {
    match (code, result) {
        (1, None) => Ok(Outcome::Custody(Vec::new())),
        (1, Some(result)) => read_unsettled(&result).map(Outcome::Custody),
        (2, Some(result)) => Ok(Outcome::Result(result)),
        (3, Some(result)) => Ok(Outcome::Refused(Box::new(read_problem(&result)))),
        (4, _) => Ok(Outcome::Gone),
        (5, _) => Ok(Outcome::Later),
        (2 | 3, None) => Err(CborError::MissingKey(2)),
        _ => Err(CborError::Range("the outcome of an event")),
    }
}

/// A refusal is one for whatever reason, also for one that a later version names.
fn read_problem(result: &Bytes) -> Problem {
    Problem::decode_shared(result)
        .unwrap_or_else(|_| Problem::new(Title::FederationFailure, "refused by the other domain"))
}

fn read_unsettled(result: &Bytes) -> Result<Vec<Unsettled>, CborError> {
    let mut reader = Reader::new(result);
    let unsettled = reader.list(Unsettled::read)?;
    reader.end()?;
    let ascend = unsettled.array_windows().all(|[a, b]| a.index < b.index);
    if unsettled.len() > REFERENCES_MAX || !ascend {
        return Err(CborError::Range("the references not in custody"));
    }
    Ok(unsettled)
}

/// Why an answer is none: nothing of its batch was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AnswerError {
    /// Over [`ANSWER_MAX`].
    #[error("answer of {0} bytes is over the limit")]
    TooLarge(usize),
    /// Not the CBOR that it should be.
    #[error("answer has not the structure expected")]
    Structure(#[source] CborError),
    /// Of another batch, domain, request or key than it should be.
    #[error("answer is about another {0}")]
    Other(&'static str),
    /// The signature does not hold under any key that the domain may use.
    #[error("answer is not signed by the domain asked")]
    Signature,
}

impl From<CborError> for AnswerError {
    fn from(error: CborError) -> Self {
        Self::Structure(error)
    }
}

/// The body of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// One for each event that was looked at, none twice. An event that is not there counts as
    /// [`Outcome::Later`].
    pub settled: Vec<Settled>,
}

impl Answer {
    /// Signs the answer of `domain` to `batch`. What does not fit [`ANSWER_MAX`] is answered
    /// [`Outcome::Later`]; the first always fits.
    #[must_use]
    pub fn sign(&self, batch: &Batch, domain: &Domain, secret: &DomainSecret) -> Bytes {
        let body = AnswerBody {
            batch: batch.id,
            domain: domain.clone(),
            request: blake3::hash(&batch.signed.body),
            settled: self.fitting(),
            key_id: KeyId::of(&secret.key()),
        };
        let body = encode(|to| body.write(to), FRAME_ROOM);
        let signed = secret.sign(Purpose::FederationAnswer, body);
        encode(|to| signed.write(to), signed.body.len() + FRAME_ROOM)
    }

    fn fitting(&self) -> Vec<Settled> {
        let mut room = ANSWER_MAX - FRAME_ROOM - EVENTS_MAX * SETTLED_ROOM;
        self.settled
            .iter()
            .map(|settled| {
                let size = settled.size();
                if let Some(left) = room.checked_sub(size) {
                    room = left;
                    return settled.clone();
                }
                Settled {
                    event: settled.event,
                    outcome: Outcome::Later,
                }
            })
            .collect()
    }

    /// Verifies `raw` as the answer to `sent` by the holder of one of `keys`.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]; then nothing of the batch was taken.
    pub fn verify(raw: &Bytes, sent: &Sent, keys: &[DomainKey]) -> Result<Self, AnswerError> {
        if raw.len() > ANSWER_MAX {
            return Err(AnswerError::TooLarge(raw.len()));
        }
        let signed = Signed::decode_shared(raw)?;
        let body = AnswerBody::decode_shared(&signed.body)?;
        if body.batch != sent.id {
            return Err(AnswerError::Other("batch"));
        }
        if body.domain != sent.destination {
            return Err(AnswerError::Other("domain"));
        }
        if body.request != sent.body_hash {
            return Err(AnswerError::Other("request"));
        }
        let key = keys
            .iter()
            .find(|key| KeyId::of(key) == body.key_id)
            .ok_or(AnswerError::Other("key"))?;
        verify(&signed, Purpose::FederationAnswer, key.as_bytes())
            .map_err(|_| AnswerError::Signature)?;
        let mut open: HashSet<_> = sent.events.iter().copied().collect();
        if body
            .settled
            .iter()
            .any(|settled| !open.remove(&settled.event))
        {
            return Err(AnswerError::Other("event"));
        }
        Ok(Self {
            settled: body.settled,
        })
    }
}

struct AnswerBody {
    batch: BatchId,
    domain: Domain,
    request: Hash,
    settled: Vec<Settled>,
    key_id: KeyId,
}

impl Cbor for AnswerBody {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.batch);
            map.put(1, &self.domain);
            map.key(2).bytes(self.request.as_bytes());
            map.key(3).list(&self.settled);
            map.put(4, &self.key_id);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut batch, mut domain, mut request) = (None, None, None);
        let (mut settled, mut key_id) = (None, None);
        from.map(|key, from| {
            match key {
                0 => batch = Some(BatchId::read(from)?),
                1 => domain = Some(Domain::read(from)?),
                2 => request = Some(read_hash(from)?),
                3 => settled = Some(from.list(Settled::read)?),
                4 => key_id = Some(KeyId::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            batch: required(batch, 0)?,
            domain: required(domain, 1)?,
            request: required(request, 2)?,
            settled: required(settled, 3)?,
            key_id: required(key_id, 4)?,
        })
    }
}

fn read_hash(from: &mut Reader<'_>) -> Result<Hash, CborError> {
    let raw: [u8; 32] = from
        .slice()?
        .try_into()
        .map_err(|_| CborError::Range("the length of a hash"))?;
    Ok(raw.into())
}
