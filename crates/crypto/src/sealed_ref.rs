//! Sealed references: how a queue is named to everybody but its home server (CCP-1 section 5.0).
//!
//! `key id (1) | nonce (24) | XChaCha20-Poly1305(queue id (16) | issued (u64be, ms))`, bound to one
//! group and one hub. Two references to one queue look unrelated without the key.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use commucat_proto::id::{Domain, GroupId, QueueId, SealedRef};
use commucat_proto::time::Timestamp;

use crate::secret::{Secret, random_bytes};

const NONCE_BYTES: usize = 24;

/// What a reference opens to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The queue that the reference leads to.
    pub queue: QueueId,
    /// When the reference was made; a mark "left for good" covers those made until then.
    pub issued: Timestamp,
}

/// The keys of a home server's references: one that seals, and all that ever did, which open.
pub struct RefKeys {
    current: u8,
    keys: BTreeMap<u8, XChaCha20Poly1305>,
}

impl RefKeys {
    /// Reference keys with a single key of id `id`.
    #[must_use]
    pub fn new(id: u8, key: &Secret<32>) -> Self {
        Self {
            current: id,
            keys: BTreeMap::from([(id, cipher(key))]),
        }
    }

    /// Adds a key that opens references and, from now on, seals them.
    pub fn rotate(&mut self, id: u8, key: &Secret<32>) {
        self.keys.insert(id, cipher(key));
        self.current = id;
    }

    /// Makes a fresh reference to `queue` for `group` at `hub`.
    #[must_use]
    pub fn seal(
        &self,
        queue: &QueueId,
        issued: Timestamp,
        group: &GroupId,
        hub: &Domain,
    ) -> SealedRef {
        let nonce = random_bytes::<NONCE_BYTES>();
        let place = associated_data(group, hub);
        let mut plaintext = [0; 24];
        let (id, time) = plaintext.split_at_mut(QueueId::LEN);
        id.copy_from_slice(queue.as_bytes());
        time.copy_from_slice(&issued.as_millis().to_be_bytes());
        let payload = Payload {
            msg: &plaintext,
            aad: &place,
        };
        #[expect(
            clippy::expect_used,
            reason = "`new` and `rotate` put the current key there"
        )]
        let cipher = self
            .keys
            .get(&self.current)
            .expect("the current key is among the keys");
        #[expect(
            clippy::expect_used,
            reason = "the cipher refuses lengths above 256 GiB only"
        )]
        let sealed = cipher
            .encrypt(&nonce.into(), payload)
            .expect("24 bytes can be sealed");
        let mut bytes = [0; SealedRef::LEN];
        for (to, from) in bytes
            .iter_mut()
            .zip([self.current].iter().chain(&nonce).chain(&sealed))
        {
            *to = *from;
        }
        SealedRef::new(bytes)
    }

    /// Opens `reference` as one for `group` at `hub`; `None` if it is not, or not ours.
    #[must_use]
    pub fn open(&self, reference: &SealedRef, group: &GroupId, hub: &Domain) -> Option<Opened> {
        let (id, rest) = reference.as_bytes().split_first()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let place = associated_data(group, hub);
        let payload = Payload {
            msg: sealed,
            aad: &place,
        };
        let plaintext = self.keys.get(id)?.decrypt(&(*nonce).into(), payload).ok()?;
        let (queue, issued) = plaintext.split_first_chunk::<{ QueueId::LEN }>()?;
        Some(Opened {
            queue: QueueId::new(*queue),
            issued: Timestamp::from_millis(u64::from_be_bytes(issued.try_into().ok()?)),
        })
    }
}

impl fmt::Debug for RefKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefKeys")
            .field("current", &self.current)
            .field("keys", &self.keys.len())
            .finish()
    }
}

fn cipher(key: &Secret<32>) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

fn associated_data(group: &GroupId, hub: &Domain) -> Vec<u8> {
    [
        b"commucat/2 ref\0".as_slice(),
        group.as_bytes(),
        hub.as_str().as_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId::new([3; 16]);
    const GROUP: GroupId = GroupId::new([4; 32]);
    const ISSUED: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn hub() -> Domain {
        Domain::parse("chat.example").unwrap()
    }

    fn keys() -> RefKeys {
        RefKeys::new(1, &Secret::new([9; 32]))
    }

    #[test]
    fn a_reference_opens_for_its_group_and_hub_only() {
        let reference = keys().seal(&QUEUE, ISSUED, &GROUP, &hub());
        let other_hub = Domain::parse("other.example").unwrap();

        let opened = Some(Opened {
            queue: QUEUE,
            issued: ISSUED,
        });
        assert_eq!(keys().open(&reference, &GROUP, &hub()), opened);
        assert_eq!(
            keys().open(&reference, &GroupId::new([5; 32]), &hub()),
            None
        );
        assert_eq!(keys().open(&reference, &GROUP, &other_hub), None);
    }

    #[test]
    fn a_reference_that_is_changed_anywhere_does_not_open() {
        let reference = keys().seal(&QUEUE, ISSUED, &GROUP, &hub());

        for at in 0..SealedRef::LEN {
            let mut bytes = *reference.as_bytes();
            bytes[at] ^= 1;
            assert_eq!(
                keys().open(&SealedRef::new(bytes), &GROUP, &hub()),
                None,
                "byte {at}"
            );
        }
    }

    #[test]
    fn references_of_an_earlier_key_open_after_a_rotation() {
        let mut keys = keys();
        let early = keys.seal(&QUEUE, ISSUED, &GROUP, &hub());

        keys.rotate(2, &Secret::new([10; 32]));
        let late = keys.seal(&QUEUE, ISSUED, &GROUP, &hub());

        assert_eq!((early.as_bytes()[0], late.as_bytes()[0]), (1, 2));
        assert!(keys.open(&early, &GROUP, &hub()).is_some());
        assert!(keys.open(&late, &GROUP, &hub()).is_some());
    }

    #[test]
    fn two_references_to_one_queue_share_nothing_but_the_key_id() {
        let (one, two) = (
            keys().seal(&QUEUE, ISSUED, &GROUP, &hub()),
            keys().seal(&QUEUE, ISSUED, &GROUP, &hub()),
        );

        let same = one
            .as_bytes()
            .iter()
            .zip(two.as_bytes())
            .skip(1)
            .filter(|(a, b)| a == b);
        assert!(same.count() < 16);
    }

    #[test]
    fn the_reference_in_the_protocol_text_opens() {
        let text = include_str!("../tests/vectors/protocol.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let unhex = |value: &serde_json::Value| {
            data_encoding::HEXLOWER
                .decode(value.as_str().unwrap().as_bytes())
                .unwrap()
        };
        let vector = &vectors["sealed reference"];
        let key = Secret::from_slice(&unhex(&vector["server's key"])).unwrap();
        let group = GroupId::new(std::array::from_fn(|index| u8::try_from(index).unwrap()));
        let hub = Domain::parse("chat.example.org").unwrap();

        let reference = SealedRef::parse(&unhex(&vector["sealed_ref"])).unwrap();
        let opened = RefKeys::new(1, &key)
            .open(&reference, &group, &hub)
            .unwrap();

        assert_eq!(
            opened.queue.as_bytes().as_slice(),
            unhex(&vector["queue id"])
        );
        assert_eq!(
            opened.issued.as_millis(),
            vector["issued"].as_u64().unwrap()
        );
    }
}
