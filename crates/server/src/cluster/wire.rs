//! What nodes of one domain say to each other, as bytes: sealed under a key that only they have, so
//! that who reads along in Redis sees sizes and queue ids of routes, nothing else, and who writes
//! there is not believed.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use commucat_crypto::sealed_box;
use commucat_crypto::secret::Secret;
use commucat_proto::id::{DedupeKey, GroupId, Handle, QueueId};
use commucat_proto::wire::varint;
use commucat_routing::lane::Envelope;
use commucat_routing::link::{Answer, Incarnation, Parcel, Reading};
use commucat_routing::ticket::{Outcome, Reason};

use crate::limit::{Kind, Taken, Used};

/// The first byte of the plaintext. A node that does not know it takes nothing.
const VERSION: u8 = 1;

/// Plaintext of one packet, unless a single item is longer.
pub(super) const PACKET_BYTES: usize = 256 * 1024;

/// One thing that a node says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Item {
    /// To an owner: an entry.
    Parcel(Parcel),
    /// To a sender: what became of one.
    Answer(Answer),
    /// To a sender: everything up to this number is held.
    Held { attempt: u64, through: u64 },
    /// To a sender: nothing more of this attempt is taken.
    Broken { attempt: u64 },
    /// To an owner: an ephemeral frame.
    Hint {
        queue: QueueId,
        group: GroupId,
        payload: Bytes,
    },
    /// To all: rows were inserted into this queue.
    Wake(QueueId),
    /// To all: a device connected here; a higher stamp is a newer connection.
    Attached { queue: QueueId, stamp: u64 },
    /// To all: the queue is revoked.
    Revoked(QueueId),
    /// To all: the group's list has changed.
    Group(GroupId),
    /// To all: this node lives.
    Alive(Status),
    /// To all: this node takes nothing more.
    Leaving,
    /// To all: the node of this name ends.
    Drain(String),
    /// To all: a device reported its history of a group.
    Tag {
        group: GroupId,
        handle: Handle,
        position: u64,
        tag: Option<[u8; 16]>,
    },
    /// To all: something was taken out of a bucket that is low.
    Taken(Taken),
    /// To all: a device that is connected here no more has used this.
    Used(Used),
}

/// What a node says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Status {
    /// `server.node_id`.
    pub(crate) name: String,
    /// The program's version.
    pub(crate) version: String,
    /// Stands for the domain's keys: nodes with another one cannot work together.
    pub(crate) keys: [u8; 8],
    /// Sessions established.
    pub(crate) sessions: u64,
    /// It is about to end.
    pub(crate) draining: bool,
}

/// Seals items of `from` into packets for `channel`.
pub(super) fn pack(
    key: &Secret<32>,
    channel: &str,
    from: Incarnation,
    items: impl IntoIterator<Item = Item>,
) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut plain = head(from);
    for item in items {
        if plain.len() > PACKET_BYTES {
            packets.push(sealed_box::seal(key, channel.as_bytes(), &plain));
            plain = head(from);
        }
        put(&item, &mut plain);
    }
    if plain.len() > HEAD_BYTES {
        packets.push(sealed_box::seal(key, channel.as_bytes(), &plain));
    }
    packets
}

const HEAD_BYTES: usize = 1 + Incarnation::LEN;

fn head(from: Incarnation) -> BytesMut {
    let mut plain = BytesMut::with_capacity(512);
    plain.put_u8(VERSION);
    plain.put_slice(from.as_bytes());
    plain
}

/// Opens a packet: who sent it, and what it says. `None` for what no node of this domain wrote. A
/// node of a later version may say more: what is not known ends the packet.
pub(super) fn unpack(
    key: &Secret<32>,
    channel: &str,
    packet: &[u8],
) -> Option<(Incarnation, Vec<Item>)> {
    let plain = sealed_box::open(key, channel.as_bytes(), packet).ok()?;
    let mut reader = Reader(Bytes::from(plain));
    if reader.byte()? != VERSION {
        return None;
    }
    let from = Incarnation::new(reader.array()?);
    let mut items = Vec::new();
    while !reader.0.is_empty()
        && let Some(item) = reader.item()
    {
        items.push(item);
    }
    Some((from, items))
}

fn put(item: &Item, out: &mut BytesMut) {
    match item {
        Item::Parcel(parcel) => {
            out.put_u8(1);
            varint::write(parcel.attempt, out);
            varint::write(parcel.number, out);
            out.put_u8(u8::from(parcel.reading == Reading::StoreFirst));
            out.put_slice(parcel.queue.as_bytes());
            put_envelope(&parcel.envelope, out);
        }
        Item::Answer(answer) => {
            out.put_u8(2);
            varint::write(answer.attempt, out);
            varint::write(answer.number, out);
            out.put_u8(outcome_code(answer.outcome));
            out.put_u8(u8::from(answer.away));
        }
        Item::Held { attempt, through } => {
            out.put_u8(3);
            varint::write(*attempt, out);
            varint::write(*through, out);
        }
        Item::Broken { attempt } => {
            out.put_u8(4);
            varint::write(*attempt, out);
        }
        Item::Hint {
            queue,
            group,
            payload,
        } => {
            put_ids(5, &[queue.as_bytes(), group.as_bytes()], out);
            put_bytes(payload, out);
        }
        Item::Wake(queue) => put_ids(6, &[queue.as_bytes()], out),
        Item::Attached { queue, stamp } => {
            put_ids(7, &[queue.as_bytes()], out);
            varint::write(*stamp, out);
        }
        Item::Revoked(queue) => put_ids(8, &[queue.as_bytes()], out),
        Item::Group(group) => put_ids(9, &[group.as_bytes()], out),
        Item::Alive(status) => {
            out.put_u8(10);
            put_status(status, out);
        }
        Item::Leaving => out.put_u8(11),
        Item::Drain(name) => {
            out.put_u8(12);
            put_bytes(name.as_bytes(), out);
        }
        Item::Tag {
            group,
            handle,
            position,
            tag,
        } => {
            put_ids(13, &[group.as_bytes(), handle.as_bytes()], out);
            varint::write(*position, out);
            out.put_u8(u8::from(tag.is_some()));
            out.put_slice(tag.as_ref().map_or(&[], |tag| tag.as_slice()));
        }
        Item::Taken(taken) => put_taken(taken, out),
        Item::Used(used) => put_used(used, out),
    }
}

fn put_taken(taken: &Taken, out: &mut BytesMut) {
    out.put_u8(14);
    out.put_u8(taken.kind.code());
    out.put_slice(&taken.tag.to_be_bytes());
    varint::write(u64::from(taken.count), out);
}

fn put_used(used: &Used, out: &mut BytesMut) {
    put_ids(15, &[used.queue.as_bytes()], out);
    put_millis(used.hints, out);
    let count = u64::try_from(used.submits.len()).unwrap_or(u64::MAX);
    varint::write(count, out);
    for (handle, wait) in &used.submits {
        out.put_slice(handle.as_bytes());
        put_millis(*wait, out);
    }
}

fn put_millis(time: Duration, out: &mut BytesMut) {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    varint::write(millis, out);
}

fn put_ids(kind: u8, ids: &[&[u8]], out: &mut BytesMut) {
    out.put_u8(kind);
    for id in ids {
        out.put_slice(id);
    }
}

fn put_status(status: &Status, out: &mut BytesMut) {
    put_bytes(status.name.as_bytes(), out);
    put_bytes(status.version.as_bytes(), out);
    out.put_slice(&status.keys);
    varint::write(status.sessions, out);
    out.put_u8(u8::from(status.draining));
}

fn put_envelope(envelope: &Envelope, out: &mut BytesMut) {
    out.put_slice(envelope.key.as_bytes());
    out.put_u8(envelope.frame);
    match &envelope.group {
        Some(group) => {
            out.put_u8(1);
            out.put_slice(group.as_bytes());
        }
        None => out.put_u8(0),
    }
    put_bytes(&envelope.body, out);
}

fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    varint::write(u64::try_from(bytes.len()).unwrap_or(u64::MAX), out);
    out.put_slice(bytes);
}

const fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Failed => 0,
        Outcome::Delivered => 1,
        Outcome::Relayed => 2,
        Outcome::Stored => 3,
        Outcome::Gone => 4,
        // Reasons are 1 to 6.
        Outcome::Refused(reason) => 16 + reason.code(),
    }
}

fn outcome(code: u8) -> Option<Outcome> {
    const REASONS: [Reason; 6] = [
        Reason::Full,
        Reason::Gone,
        Reason::Expired,
        Reason::Forbidden,
        Reason::Epoch,
        Reason::Blocked,
    ];
    Some(match code {
        0 => Outcome::Failed,
        1 => Outcome::Delivered,
        2 => Outcome::Relayed,
        3 => Outcome::Stored,
        4 => Outcome::Gone,
        other => {
            let reason = REASONS
                .into_iter()
                .find(|reason| 16 + reason.code() == other)?;
            Outcome::Refused(reason)
        }
    })
}

struct Reader(Bytes);

impl Reader {
    fn item(&mut self) -> Option<Item> {
        Some(match self.byte()? {
            1 => Item::Parcel(Parcel {
                attempt: self.number()?,
                number: self.number()?,
                reading: match self.flag()? {
                    true => Reading::StoreFirst,
                    false => Reading::GoOn,
                },
                queue: QueueId::new(self.array()?),
                envelope: self.envelope()?,
            }),
            2 => Item::Answer(Answer {
                attempt: self.number()?,
                number: self.number()?,
                outcome: outcome(self.byte()?)?,
                away: self.flag()?,
            }),
            3 => Item::Held {
                attempt: self.number()?,
                through: self.number()?,
            },
            4 => Item::Broken {
                attempt: self.number()?,
            },
            5 => Item::Hint {
                queue: QueueId::new(self.array()?),
                group: GroupId::new(self.array()?),
                payload: self.bytes()?,
            },
            6 => Item::Wake(QueueId::new(self.array()?)),
            7 => Item::Attached {
                queue: QueueId::new(self.array()?),
                stamp: self.number()?,
            },
            8 => Item::Revoked(QueueId::new(self.array()?)),
            9 => Item::Group(GroupId::new(self.array()?)),
            10 => Item::Alive(Status {
                name: self.text()?,
                version: self.text()?,
                keys: self.array()?,
                sessions: self.number()?,
                draining: self.flag()?,
            }),
            11 => Item::Leaving,
            12 => Item::Drain(self.text()?),
            13 => self.tag()?,
            14 => Item::Taken(self.taken()?),
            15 => Item::Used(self.used()?),
            _ => return None,
        })
    }

    fn envelope(&mut self) -> Option<Envelope> {
        Some(Envelope {
            key: DedupeKey::new(self.array()?),
            frame: self.byte()?,
            group: match self.flag()? {
                true => Some(GroupId::new(self.array()?)),
                false => None,
            },
            body: self.bytes()?,
        })
    }

    fn tag(&mut self) -> Option<Item> {
        Some(Item::Tag {
            group: GroupId::new(self.array()?),
            handle: Handle::new(self.array()?),
            position: self.number()?,
            tag: match self.flag()? {
                true => Some(self.array()?),
                false => None,
            },
        })
    }

    fn taken(&mut self) -> Option<Taken> {
        Some(Taken {
            kind: Kind::of_code(self.byte()?)?,
            tag: u64::from_be_bytes(self.array()?),
            count: u32::try_from(self.number()?).ok()?,
        })
    }

    fn used(&mut self) -> Option<Used> {
        Some(Used {
            queue: QueueId::new(self.array()?),
            hints: self.millis()?,
            submits: self.submits()?,
        })
    }

    fn millis(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(self.number()?))
    }

    fn submits(&mut self) -> Option<Vec<(Handle, Duration)>> {
        let mut submits = Vec::new();
        for _ in 0..self.number()? {
            submits.push((Handle::new(self.array()?), self.millis()?));
        }
        Some(submits)
    }

    fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.0.len()).then(|| self.0.split_to(count))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        let (value, used) = varint::read(&self.0).ok()??;
        self.take(used)?;
        Some(value)
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let count = usize::try_from(self.number()?).ok()?;
        self.take(count)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Incarnation = Incarnation::new([1; 16]);

    fn items() -> Vec<Item> {
        let queue = QueueId::new([2; 16]);
        let group = GroupId::new([3; 32]);
        let envelope = |group, body| Envelope {
            key: DedupeKey::new([4; 16]),
            group,
            frame: 5,
            body: Bytes::from_static(body),
        };
        let parcel = |number, reading, envelope| {
            Item::Parcel(Parcel {
                attempt: 300,
                number,
                reading,
                queue,
                envelope,
            })
        };
        let answer = |outcome, away| {
            Item::Answer(Answer {
                attempt: 300,
                number: 1,
                outcome,
                away,
            })
        };
        let tag = |tag| Item::Tag {
            group,
            handle: Handle::new([6; 32]),
            position: 300,
            tag,
        };
        vec![
            parcel(1, Reading::StoreFirst, envelope(Some(group), b"sealed")),
            parcel(2, Reading::GoOn, envelope(None, b"")),
            answer(Outcome::Delivered, false),
            answer(Outcome::Stored, true),
            answer(Outcome::Gone, true),
            answer(Outcome::Refused(Reason::Full), true),
            answer(Outcome::Refused(Reason::Blocked), true),
            Item::Held {
                attempt: 300,
                through: 2,
            },
            Item::Broken { attempt: 300 },
            Item::Hint {
                queue,
                group,
                payload: Bytes::from_static(b"typing"),
            },
            Item::Wake(queue),
            Item::Attached {
                queue,
                stamp: 1_790_000_000_000_000,
            },
            Item::Revoked(queue),
            Item::Group(group),
            Item::Alive(Status {
                name: "one".to_owned(),
                version: "1.0.0".to_owned(),
                keys: [7; 8],
                sessions: 12,
                draining: true,
            }),
            Item::Leaving,
            Item::Drain("two".to_owned()),
            tag(Some([8; 16])),
            tag(None),
            taken(),
            used(),
        ]
    }

    fn taken() -> Item {
        Item::Taken(Taken {
            kind: Kind::Registration,
            tag: 300,
            count: 2,
        })
    }

    fn used() -> Item {
        Item::Used(Used {
            queue: QueueId::new([2; 16]),
            hints: Duration::from_millis(400),
            submits: vec![(Handle::new([6; 32]), Duration::from_secs(5))],
        })
    }

    #[test]
    fn what_a_node_says_is_what_the_others_read() {
        let key = Secret::new([9; 32]);

        let packets = pack(&key, "in:a", FROM, items());

        let [packet] = packets.as_slice() else {
            panic!("{} packets", packets.len());
        };
        assert_eq!(unpack(&key, "in:a", packet), Some((FROM, items())));
    }

    #[test]
    fn a_packet_for_another_channel_or_of_another_domain_is_not_believed() {
        let key = Secret::new([9; 32]);
        let packets = pack(&key, "in:a", FROM, items());

        assert_eq!(unpack(&key, "in:b", &packets[0]), None);
        assert_eq!(unpack(&Secret::new([8; 32]), "in:a", &packets[0]), None);
    }

    #[test]
    fn no_packet_that_is_cut_off_is_taken_for_more_than_it_says() {
        let mut plain = head(FROM);
        let all = items();
        for item in &all {
            put(item, &mut plain);
        }
        for end in HEAD_BYTES..plain.len() {
            let mut reader = Reader(plain.clone().freeze().slice(HEAD_BYTES..end));
            let mut read = Vec::new();
            while !reader.0.is_empty()
                && let Some(item) = reader.item()
            {
                read.push(item);
            }
            assert!(all.starts_with(&read), "cut at {end}");
        }
    }

    #[test]
    fn items_beyond_a_packets_size_go_into_another_one() {
        let key = Secret::new([9; 32]);
        let hint = Item::Hint {
            queue: QueueId::new([2; 16]),
            group: GroupId::new([3; 32]),
            payload: Bytes::from(vec![0; PACKET_BYTES]),
        };

        let packets = pack(&key, "all", FROM, [hint.clone(), hint, Item::Leaving]);

        assert_eq!(packets.len(), 3);
    }
}
