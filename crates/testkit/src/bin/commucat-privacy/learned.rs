//! Who may learn what by what crosses between domains (CCP-1 section 8.5), and the search for everything
//! else.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use commucat_federation::event::{Body, Requested};
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::directory::DirectoryResult;
use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::key_package::{ClaimResult, KeyPackage};
use commucat_proto::frame::key_update::KeyUpdate;
use commucat_proto::id::{AccountId, SealedRef, from_base32};
use commucat_proto::identity::{DeviceCertificate, DeviceList};
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::Reader;
use commucat_testkit::canary::{Allowed, Canary, Hit, Kind, Place, Searcher};

use crate::crossing::{Crossing, Way, What};

/// A value that not everybody may learn, with the domain that it belongs to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Secret {
    /// What people write and call each other.
    Word,
    Account(String),
    /// Of a device: its id and its public keys; and the account's.
    Device(String),
    Capability(String),
    Group,
    Domain(String),
    Handle(String),
    Reference(String),
}

impl Secret {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Word => "words",
            Self::Account(_) => "accounts",
            Self::Device(_) => "devices",
            Self::Capability(_) => "capabilities",
            Self::Group => "groups",
            Self::Domain(_) => "domains",
            Self::Handle(_) => "handles",
            Self::Reference(_) => "references",
        }
    }

    /// Whether it may be in what crosses there.
    fn may_be_in(&self, crossing: &Crossing) -> bool {
        let Crossing {
            what,
            way,
            origin,
            destination,
            ..
        } = crossing;
        let is_asked = *way == Way::Asked;
        let of_account = matches!(what, What::Claim | What::Directory);
        match self {
            Self::Word => false,
            Self::Account(home) | Self::Capability(home) => {
                is_asked && of_account && home == destination
            }
            Self::Device(home) => !is_asked && of_account && home == destination,
            Self::Group => match what {
                What::Around | What::Directory => false,
                What::Claim => is_asked,
                What::Change | What::Log => true,
                What::Message
                | What::Typing
                | What::Commit
                | What::Welcome
                | What::Notice
                | What::Submit
                | What::SubmitTyping
                | What::Return
                | What::Tag => is_asked,
            },
            // Where its list shows, or its hub is named.
            Self::Domain(name) => {
                name == origin
                    || name == destination
                    || matches!(what, What::Commit | What::Change | What::Log)
                    || (*what == What::Claim && is_asked)
            }
            Self::Handle(home) => match what {
                What::Commit | What::Notice | What::Return | What::Change | What::Log => true,
                What::Submit | What::SubmitTyping | What::Tag => is_asked && home == origin,
                What::Welcome => is_asked && home == destination,
                // In the key package itself.
                What::Claim => !is_asked && home == destination,
                What::Around | What::Message | What::Typing | What::Directory => false,
            },
            Self::Reference(home) => match what {
                What::Commit | What::Change | What::Log => true,
                What::Submit | What::SubmitTyping | What::Tag => is_asked && home == origin,
                What::Message | What::Typing | What::Welcome | What::Notice | What::Return => {
                    is_asked && home == destination
                }
                What::Claim => !is_asked && home == destination,
                What::Around | What::Directory => false,
            },
        }
    }
}

/// Secrets by the name of their canary.
#[derive(Default)]
pub(crate) struct Secrets {
    canaries: Vec<Canary>,
    by_name: BTreeMap<String, Secret>,
    /// Homes of references.
    homes: BTreeMap<[u8; SealedRef::LEN], String>,
}

impl Secrets {
    /// These words.
    pub(crate) fn of_words(words: Vec<Canary>) -> Self {
        let named = words.iter().map(|word| (word.name.clone(), Secret::Word));
        Self {
            by_name: named.collect(),
            canaries: words,
            homes: BTreeMap::new(),
        }
    }

    pub(crate) fn text(&mut self, name: &str, secret: Secret, text: &str) {
        self.canaries
            .push(Canary::text(name, Allowed::Nowhere, text));
        self.by_name.insert(name.to_owned(), secret.clone());
        if let Some(raw) = from_base32(text).filter(|_| !matches!(secret, Secret::Domain(_))) {
            self.bytes(&format!("{name}, raw"), secret, &raw);
        }
    }

    pub(crate) fn bytes(&mut self, name: &str, secret: Secret, bytes: &[u8]) {
        if self.by_name.insert(name.to_owned(), secret).is_none() {
            self.canaries
                .push(Canary::bytes(name, Allowed::Nowhere, bytes));
        }
    }

    /// Adds the values that are only known because they crossed.
    pub(crate) fn learn(&mut self, crossings: &[Crossing]) -> Result<()> {
        for crossing in crossings {
            let home = &crossing.destination;
            match (&crossing.body, crossing.way) {
                (Some(Body::Submit(submit)), Way::Asked) => {
                    self.handle(submit.handle.as_bytes(), &crossing.origin);
                    self.reference(&submit.reference, &crossing.origin);
                }
                (Some(Body::Deliver(deliver)), Way::Asked) if crossing.what == What::Welcome => {
                    let invite = GroupInvite::decode_shared(&deliver.payload)?;
                    self.handle(invite.handle.as_bytes(), home);
                    self.reference(&invite.sealed_ref, home);
                }
                (Some(Body::Request(request)), Way::Asked) => match request.frame {
                    Requested::KeyUpdate => {
                        let update = KeyUpdate::decode_shared(&request.payload)?;
                        let bundle = Bundle::decode_shared(&update.bundle.body)?;
                        self.reference(&update.sealed_ref, &crossing.origin);
                        self.handle(bundle.author.as_bytes(), &crossing.origin);
                        self.entries(&bundle.change.add);
                    }
                    Requested::KeyPackage => {
                        if let KeyPackage::Claim(claim) =
                            KeyPackage::decode_shared(&request.payload)?
                            && let Some(token) = claim.capability
                        {
                            let secret = Secret::Capability(home.clone());
                            let name = format!("capability {}", self.by_name.len());
                            self.bytes(&name, secret, token.as_bytes());
                        }
                    }
                    Requested::Fetch | Requested::Directory => {}
                },
                (Some(Body::Request(request)), Way::Answered) => {
                    if let Some(result) = result(crossing)? {
                        self.learn_result(request.frame, &result, home)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn learn_result(&mut self, frame: Requested, raw: &bytes::Bytes, home: &str) -> Result<()> {
        match frame {
            Requested::Directory => {
                let list = DirectoryResult::decode_shared(raw)?.list;
                let list = DeviceList::decode_shared(&list.body)?;
                let of = AccountId::of_key(&list.account);
                let secret = Secret::Device(home.to_owned());
                let name = format!("account key of {}", of.as_str());
                self.bytes(&name, secret.clone(), list.account.as_bytes());
                for certificate in list.certificates {
                    let one = DeviceCertificate::decode_shared(&certificate.body)?;
                    let device = one.device.as_str();
                    let name = format!("Noise key of {device}");
                    self.bytes(&name, secret.clone(), one.noise_key.as_bytes());
                    let name = format!("MLS key of {device}");
                    self.bytes(&name, secret.clone(), &one.mls_key);
                }
            }
            Requested::KeyPackage => {
                for package in ClaimResult::decode_shared(raw)?.0 {
                    self.reference(&package.sealed_ref, home);
                }
            }
            Requested::KeyUpdate | Requested::Fetch => {}
        }
        Ok(())
    }

    fn entries(&mut self, entries: &[FanoutEntry]) {
        for entry in entries {
            self.handle(entry.handle.as_bytes(), entry.domain.as_str());
            self.reference(&entry.sealed_ref, entry.domain.as_str());
        }
    }

    fn handle(&mut self, handle: &[u8], home: &str) {
        let name = format!("handle {}", data_encoding::HEXLOWER.encode(handle));
        self.bytes(&name, Secret::Handle(home.to_owned()), handle);
    }

    fn reference(&mut self, reference: &SealedRef, home: &str) {
        let raw = reference.as_bytes();
        let name = format!("reference {}", data_encoding::HEXLOWER.encode(raw));
        self.homes.insert(*raw, home.to_owned());
        self.bytes(&name, Secret::Reference(home.to_owned()), raw);
    }

    /// Searches everything that crossed; what is where it may not be, and how many were looked for.
    ///
    /// # Errors
    ///
    /// If a search like this one proves nothing: it misses what is planted, or there is a kind of
    /// secret that it did not find where it has to be.
    pub(crate) fn search(&self, crossings: &[Crossing]) -> Result<(Vec<Hit>, usize)> {
        let searcher = Searcher::new(self.canaries.clone())?;
        ensure!(searcher.blind_spots() == 0, "planted values were not found");
        let (mut hits, mut seen) = (Vec::new(), BTreeSet::new());
        for crossing in crossings {
            let place = Place {
                name: format!("{} at {}", crossing.name(), crossing.reader()),
                kind: Kind::Other,
                bytes: crossing.bytes.to_vec(),
            };
            for hit in searcher.hits(&place) {
                match self.by_name.get(&hit.canary) {
                    Some(secret) if secret.may_be_in(crossing) => {
                        seen.insert(secret.kind());
                    }
                    Some(_) | None => hits.push(hit),
                }
            }
            hits.extend(self.strangers(crossing, &place.name));
        }
        hits.sort_unstable();
        hits.dedup();
        let all: BTreeSet<_> = self.by_name.values().map(Secret::kind).collect();
        let unseen: Vec<_> = all
            .difference(&seen)
            .filter(|kind| **kind != "words")
            .collect();
        ensure!(
            unseen.is_empty(),
            "not found where they have to be: {unseen:?}"
        );
        Ok((hits, searcher.canaries()))
    }

    /// References of a `deliver` that are not of the domain that gets it.
    fn strangers(&self, crossing: &Crossing, place: &str) -> Vec<Hit> {
        let Some(Body::Deliver(deliver)) = &crossing.body else {
            return Vec::new();
        };
        let references = deliver.references.iter().filter(|reference| {
            let home = self.homes.get(reference.as_bytes());
            home != Some(&crossing.destination)
        });
        let hit = |_: &SealedRef| Hit {
            canary: "a reference that is not its own".to_owned(),
            place: place.to_owned(),
            form: "reference",
        };
        references.map(hit).collect()
    }
}

/// The result of a request that was carried out.
fn result(crossing: &Crossing) -> Result<Option<bytes::Bytes>> {
    let items = Reader::new(&crossing.bytes).list(|from| from.item())?;
    let [_, outcome, result] = items.as_slice() else {
        return Ok(None);
    };
    let is_result = Reader::new(outcome).uint()? == 2;
    Ok(is_result.then(|| Reader::new(result).bytes()).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossing(what: What, way: Way, bytes: &[u8]) -> Crossing {
        Crossing {
            what,
            way,
            origin: "asks.example".to_owned(),
            destination: "home.example".to_owned(),
            bytes: bytes.to_vec().into(),
            body: None,
        }
    }

    fn secrets() -> Secrets {
        let mut secrets = Secrets::of_words(vec![Canary::text(
            "text",
            Allowed::Nowhere,
            "some text of hers",
        )]);
        let home = "home.example".to_owned();
        secrets.bytes("account", Secret::Account(home.clone()), &[0xa1; 20]);
        secrets.bytes("device", Secret::Device(home), &[0xd2; 16]);
        secrets
    }

    #[test]
    fn a_value_is_a_hit_unless_it_is_said_that_it_crosses_there() {
        let allowed = [
            crossing(What::Claim, Way::Asked, &[0xa1; 20]),
            crossing(What::Directory, Way::Answered, &[0xd2; 16]),
        ];
        let more = [
            crossing(What::Claim, Way::Answered, &[0xa1; 20]),
            crossing(What::Submit, Way::Asked, &[0xd2; 16]),
            crossing(What::Around, Way::Asked, b"x: some text of hers"),
        ];

        let (none, count) = secrets().search(&allowed).unwrap();
        let (hits, _) = secrets()
            .search(&[allowed.as_slice(), &more].concat())
            .unwrap();

        assert_eq!((none.len(), count), (0, 3));
        let found: Vec<_> = hits.iter().map(|hit| hit.canary.as_str()).collect();
        assert_eq!(found, ["account", "device", "text"]);
    }

    #[test]
    fn a_search_proves_nothing_if_what_has_to_cross_was_not_seen() {
        let seen = [crossing(What::Claim, Way::Asked, &[0xa1; 20])];

        let error = secrets().search(&seen).unwrap_err();

        assert!(error.to_string().contains("devices"), "{error}");
        secrets().search(&[]).unwrap_err();
    }
}
