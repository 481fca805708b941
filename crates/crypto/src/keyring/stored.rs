//! The key file's content: JSON with bytes in hexadecimal.

use std::collections::BTreeSet;
use std::fmt;

use commucat_proto::id::{Domain, DomainKey};
use commucat_proto::identity::ServerKeys;
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;
use data_encoding::HEXLOWER;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{CLOCK_TOLERANCE, KeyringError, NOISE_KEY_LIFE, NoisePair};
use crate::noise::StaticKey;
use crate::sealed_ref::RefKeys;
use crate::secret::Secret;
use crate::server_keys::{DomainSecret, Statement};

/// The only format so far.
const FORMAT: u32 = 1;

/// Room for the text, so that no growing buffer leaves copies of keys behind.
const TEXT_BYTES: usize = 128 * 1024;

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    format: u32,
    domain: String,
    domain_key: HexSecret,
    noise_keys: Vec<StoredNoise>,
    /// The last one seals, all open.
    reference_keys: Vec<StoredReference>,
    serial: u64,
    statement: String,
    chain: Vec<String>,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredNoise {
    key: HexSecret,
    not_before: u64,
    not_after: u64,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredReference {
    id: u8,
    key: HexSecret,
}

/// What a checked file amounts to.
pub(super) struct Parts {
    pub(super) statement: Statement,
    pub(super) chain: Vec<Signed>,
    pub(super) noise: Vec<NoisePair>,
    pub(super) references: RefKeys,
}

impl Stored {
    /// Fresh keys with their first statement.
    pub(super) fn generate(domain: &Domain, now: Timestamp) -> Result<Self, KeyringError> {
        let mut stored = Self {
            format: FORMAT,
            domain: domain.as_str().to_owned(),
            domain_key: HexSecret(Secret::random()),
            noise_keys: Vec::new(),
            reference_keys: Vec::new(),
            serial: 0,
            statement: String::new(),
            chain: Vec::new(),
        };
        let not_before = now.saturating_sub(CLOCK_TOLERANCE);
        stored.add_noise(
            &StaticKey::generate(),
            not_before,
            now.saturating_add(NOISE_KEY_LIFE),
        );
        stored.add_reference(&Secret::random())?;
        stored.issue(None, now)?;
        Ok(stored)
    }

    /// Checks that everything fits together.
    pub(super) fn check(&self) -> Result<Parts, &'static str> {
        if self.format != FORMAT {
            return Err("it has the format of another release");
        }
        let noise = self.noise();
        let statement = unhex(&self.statement).ok_or("the statement cannot be read")?;
        let statement = Statement::verify(&statement).map_err(|_| "the statement does not hold")?;
        let is_own = statement.domain().as_str() == self.domain
            && *statement.domain_key() == self.domain_secret().key()
            && statement.serial() == self.serial
            && statement
                .noise_keys()
                .iter()
                .copied()
                .eq(noise.iter().map(NoisePair::public));
        if !is_own {
            return Err("the statement is not about these keys");
        }
        let chain = self
            .chain
            .iter()
            .map(|link| unhex(link))
            .collect::<Option<Vec<_>>>();
        let chain = chain.ok_or("the chain of statements cannot be read")?;
        Ok(Parts {
            statement,
            chain,
            noise,
            references: self.references()?,
        })
    }

    pub(super) fn domain_secret(&self) -> DomainSecret {
        DomainSecret::from_seed(&self.domain_key.0)
    }

    pub(super) fn noise_count(&self) -> usize {
        self.noise_keys.len()
    }

    pub(super) fn chain_len(&self) -> usize {
        self.chain.len()
    }

    /// Lets every Noise key end at `end` at the latest, and drops those that ended before `now`.
    pub(super) fn retire_noise(&mut self, now: Timestamp, end: Timestamp) {
        self.noise_keys
            .retain(|key| key.not_after >= now.as_millis());
        for key in &mut self.noise_keys {
            // A key that was made under a clock far ahead must not end before it begins.
            key.not_after = key.not_after.min(end.as_millis()).max(key.not_before);
        }
    }

    pub(super) fn add_noise(&mut self, key: &StaticKey, not_before: Timestamp, end: Timestamp) {
        self.noise_keys.push(StoredNoise {
            key: HexSecret(key.private().clone()),
            not_before: not_before.as_millis(),
            not_after: end.as_millis(),
        });
    }

    pub(super) fn add_reference(&mut self, key: &Secret<32>) -> Result<(), KeyringError> {
        let last = self
            .reference_keys
            .iter()
            .map(|key| key.id)
            .max()
            .unwrap_or_default();
        let id = last.checked_add(1).ok_or(KeyringError::Full {
            what: "reference key",
        })?;
        self.reference_keys.push(StoredReference {
            id,
            key: HexSecret(key.clone()),
        });
        Ok(())
    }

    /// Issues the next statement, signed by the domain key in force.
    pub(super) fn issue(
        &mut self,
        next: Option<DomainKey>,
        now: Timestamp,
    ) -> Result<(), KeyringError> {
        let full = KeyringError::Full { what: "statement" };
        let Ok(domain) = Domain::parse(&self.domain) else {
            return Err(full);
        };
        self.serial = self.serial.checked_add(1).ok_or(full)?;
        let secret = self.domain_secret();
        let keys = ServerKeys {
            domain,
            domain_key: secret.key(),
            serial: self.serial,
            noise_keys: self.noise().iter().map(NoisePair::public).collect(),
            next_domain_key: next,
            issued: now,
        };
        self.statement = HEXLOWER.encode(&secret.state(&keys).encode());
        Ok(())
    }

    /// Moves the latest statement, which names `next`, into the chain; `next` signs from now on.
    pub(super) fn hand_over(&mut self, next: &DomainSecret) {
        self.chain.push(std::mem::take(&mut self.statement));
        self.domain_key = HexSecret(next.seed());
    }

    pub(super) fn to_text(&self) -> Zeroizing<Vec<u8>> {
        let mut text = Zeroizing::new(Vec::with_capacity(TEXT_BYTES));
        #[expect(
            clippy::expect_used,
            reason = "text and numbers in memory have a JSON form"
        )]
        serde_json::to_writer_pretty(&mut *text, self).expect("the key file has a JSON form");
        text.push(b'\n');
        text
    }

    fn noise(&self) -> Vec<NoisePair> {
        let pair = |stored: &StoredNoise| NoisePair {
            key: StaticKey::from_private(stored.key.0.clone()),
            not_before: Timestamp::from_millis(stored.not_before),
            not_after: Timestamp::from_millis(stored.not_after),
        };
        self.noise_keys.iter().map(pair).collect()
    }

    fn references(&self) -> Result<RefKeys, &'static str> {
        let (first, rest) = self
            .reference_keys
            .split_first()
            .ok_or("it has no reference key")?;
        let ids: BTreeSet<u8> = self.reference_keys.iter().map(|key| key.id).collect();
        if ids.len() != self.reference_keys.len() {
            return Err("two reference keys have one id");
        }
        let mut references = RefKeys::new(first.id, &first.key.0);
        for stored in rest {
            references.rotate(stored.id, &stored.key.0);
        }
        Ok(references)
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

fn unhex(text: &str) -> Option<Signed> {
    Signed::decode(&HEXLOWER.decode(text.as_bytes()).ok()?).ok()
}

/// A secret as 64 hexadecimal digits.
#[derive(Clone, Eq, PartialEq)]
struct HexSecret(Secret<32>);

impl Serialize for HexSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(HEXLOWER.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for HexSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;

        impl Visitor<'_> for Hex {
            type Value = HexSecret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 hexadecimal digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HexSecret, E> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map(Zeroizing::new);
                let secret = bytes.ok().and_then(|bytes| Secret::from_slice(&bytes));
                secret
                    .map(HexSecret)
                    .ok_or_else(|| E::custom("expected 64 hexadecimal digits"))
            }
        }

        deserializer.deserialize_str(Hex).map_err(D::Error::custom)
    }
}
