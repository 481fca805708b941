//! ACK: custody and results down, what a device has stored up (CCP-1 section 4).

use bytes::Bytes;

use crate::id::GroupId;
use crate::limits;
use crate::signed::Signed;
use crate::time::Timestamp;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// ACK c->s.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AckUp {
    /// Key 0: every s->c sequence up to this one is stored or finally discarded.
    pub through: Option<u32>,
    /// Key 1: fork tags.
    pub tags: Vec<ForkTag>,
}

impl Cbor for AckUp {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put_some(0, self.through.as_ref());
            map.put_list(1, &self.tags);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut ack = Self::default();
        from.map(|key, from| {
            match key {
                0 => ack.through = Some(u32::read(from)?),
                1 => ack.tags = from.list(ForkTag::read)?,
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(ack)
    }
}

/// `[group_id, position, tag]`: what a device made of a log entry (CCP-1 section 5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ForkTag {
    /// The group; bound on this connection.
    pub group: GroupId,
    /// The entry's position.
    pub position: u64,
    /// 16 bytes from the new epoch's exporter; `None`, empty on the wire, if the entry was skipped.
    pub tag: Option<[u8; 16]>,
}

impl Cbor for ForkTag {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(3);
        self.group.write(to);
        self.position.write(to);
        to.bytes(self.tag.as_ref().map_or(&[], |tag| tag));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(3, |from| {
            let (group, position) = (GroupId::read(from)?, from.uint()?);
            let tag = match from.slice()? {
                [] => None,
                tag => Some(
                    tag.try_into()
                        .map_err(|_| CborError::Range("the length of a fork tag"))?,
                ),
            };
            Ok(Self {
                group,
                position,
                tag,
            })
        })
    }
}

/// ACK s->c, after the first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AckDown {
    /// Key 0: custody of MSG frames.
    pub custody: Vec<CustodyRun>,
    /// Keys 1 and 2: the result of one request.
    pub answer: Option<Answer>,
    /// Key 3: everything that waited in the store has been sent.
    pub queue_empty: bool,
}

impl AckDown {
    /// The answer to a request whose result is the empty map.
    #[must_use]
    pub fn done(request: u32) -> Self {
        Self::with_result(request, &Done)
    }

    /// The answer to a request.
    #[must_use]
    pub fn with_result(request: u32, result: &impl Cbor) -> Self {
        let result = Bytes::from(result.encode());
        Self {
            answer: Some(Answer { request, result }),
            ..Self::default()
        }
    }
}

impl Cbor for AckDown {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put_list(0, &self.custody);
            if let Some(answer) = &self.answer {
                map.put(1, &answer.request);
                map.key(2).raw(&answer.result);
            }
            map.put_flag(3, self.queue_empty);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut ack = Self::default();
        let (mut request, mut result) = (None, None);
        from.map(|key, from| {
            match key {
                0 => ack.custody = from.list(CustodyRun::read)?,
                1 => request = Some(u32::read(from)?),
                2 => result = Some(from.item()?),
                3 => ack.queue_empty = from.flag()?,
                _ => from.skip()?,
            }
            Ok(())
        })?;
        ack.answer = match (request, result) {
            (Some(request), Some(result)) => Some(Answer { request, result }),
            (Some(_), None) => return Err(CborError::MissingKey(2)),
            (None, _) => None,
        };
        Ok(ack)
    }
}

/// The answer to one control request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The request's sequence.
    pub request: u32,
    /// Its result, one CBOR item; decode it as the type that the request calls for.
    pub result: Bytes,
}

/// The result of a request that has nothing to say: the empty map, or one of unknown keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Done;

impl Cbor for Done {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|_| ());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.map(|_, from| from.skip())?;
        Ok(Self)
    }
}

/// `[first, count, status]`: consecutive MSG sequences with one outcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CustodyRun {
    /// The first sequence.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
    /// The outcome.
    pub status: CustodyStatus,
}

impl Cbor for CustodyRun {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(3);
        to.uint(self.first);
        to.uint(self.count);
        to.uint(self.status.code());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(3, |from| {
            let (first, count) = (u32::read(from)?, u32::read(from)?);
            let status = CustodyStatus::of_code(from.uint()?)
                .ok_or(CborError::Range("the status of a run"))?;
            if count == 0 || first.checked_add(count - 1).is_none() {
                return Err(CborError::Range("the length of a run"));
            }
            Ok(Self {
                first,
                count,
                status,
            })
        })
    }
}

/// Where the copies of an accepted MSG are. If several apply, the first of refused, stored, relayed,
/// delivered is said.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CustodyStatus {
    /// 1: some recipient's copy is on disk at this server.
    Stored,
    /// 2: some recipient's copy is in another domain's custody.
    Relayed,
    /// 3: every recipient device has acknowledged it.
    Delivered,
    /// 4: custody was refused for some recipient.
    Refused,
}

impl CustodyStatus {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Stored => 1,
            Self::Relayed => 2,
            Self::Delivered => 3,
            Self::Refused => 4,
        }
    }

    /// What a number on the wire means.
    #[must_use]
    pub const fn of_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Stored),
            2 => Some(Self::Relayed),
            3 => Some(Self::Delivered),
            4 => Some(Self::Refused),
            _ => None,
        }
    }
}

/// The server's first sealed frame; key 4 is "ok" (CCP-1 section 3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FirstAck {
    /// Key 5: entries stored for this device; a hint.
    pub waiting: u64,
    /// Key 6: none are defined.
    pub capabilities: Vec<u64>,
    /// Key 8: a [`crate::identity::ServerKeys`], purpose `server keys`.
    pub server_keys: Signed,
    /// Key 9: the list of AUTH again, sealed.
    pub versions: Vec<u64>,
    /// Key 10.
    pub server_time: Timestamp,
    /// Key 11.
    pub limits: SessionLimits,
}

impl Cbor for FirstAck {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.key(4).text("ok");
            map.put(5, &self.waiting);
            map.key(6).list(&self.capabilities);
            map.put(8, &self.server_keys);
            map.key(9).list(&self.versions);
            map.put(10, &self.server_time);
            map.put(11, &self.limits);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut state, mut waiting, mut capabilities, mut server_keys) = (None, None, None, None);
        let (mut versions, mut server_time, mut limits) = (None, None, None);
        from.map(|key, from| {
            match key {
                4 => state = Some(from.text()? == "ok"),
                5 => waiting = Some(from.uint()?),
                6 => capabilities = Some(from.list(u64::read)?),
                8 => server_keys = Some(Signed::read(from)?),
                9 => versions = Some(from.list(u64::read)?),
                10 => server_time = Some(Timestamp::read(from)?),
                11 => limits = Some(SessionLimits::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        if !required(state, 4)? {
            return Err(CborError::Range("the state of a first ACK"));
        }
        Ok(Self {
            waiting: required(waiting, 5)?,
            capabilities: required(capabilities, 6)?,
            server_keys: required(server_keys, 8)?,
            versions: required(versions, 9)?,
            server_time: required(server_time, 10)?,
            limits: required(limits, 11)?,
        })
    }
}

/// What a server allows, first ACK key 11.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SessionLimits {
    /// Key 0: bytes of a MSG's ciphertext.
    pub max_payload: u64,
    /// Key 1.
    pub queue_entries: u64,
    /// Key 2.
    pub queue_bytes: u64,
    /// Key 3: seconds.
    pub keepalive: u64,
    /// Key 4: seconds.
    pub relay_ttl: u64,
    /// Key 5.
    pub group_handles: u64,
    /// Key 6.
    pub unacked_frames: u64,
    /// Key 7.
    pub unacked_bytes: u64,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            max_payload: limits::MESSAGE_CIPHERTEXT_DEFAULT as u64,
            queue_entries: limits::QUEUE_ENTRIES_DEFAULT,
            queue_bytes: limits::QUEUE_BYTES_DEFAULT,
            keepalive: limits::KEEPALIVE_DEFAULT.as_secs(),
            relay_ttl: limits::RELAY_TTL_DEFAULT.as_secs(),
            group_handles: limits::GROUP_HANDLES_DEFAULT.into(),
            unacked_frames: limits::UNACKED_FRAMES_DEFAULT.into(),
            unacked_bytes: limits::UNACKED_BYTES_DEFAULT as u64,
        }
    }
}

impl Cbor for SessionLimits {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.max_payload);
            map.put(1, &self.queue_entries);
            map.put(2, &self.queue_bytes);
            map.put(3, &self.keepalive);
            map.put(4, &self.relay_ttl);
            map.put(5, &self.group_handles);
            map.put(6, &self.unacked_frames);
            map.put(7, &self.unacked_bytes);
        });
    }

    /// A limit that a server does not name is the default.
    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut limits = Self::default();
        from.map(|key, from| {
            match key {
                0 => limits.max_payload = from.uint()?,
                1 => limits.queue_entries = from.uint()?,
                2 => limits.queue_bytes = from.uint()?,
                3 => limits.keepalive = from.uint()?,
                4 => limits.relay_ttl = from.uint()?,
                5 => limits.group_handles = from.uint()?,
                6 => limits.unacked_frames = from.uint()?,
                7 => limits.unacked_bytes = from.uint()?,
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(limits)
    }
}
