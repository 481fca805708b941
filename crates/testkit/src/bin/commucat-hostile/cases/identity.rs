//! Registration and device lists with what is stolen, forged, spent or out of date.

use anyhow::Result;
use bytes::Bytes;
use commucat_crypto::certificate::Validity;
use commucat_crypto::noise::StaticKey;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::signing::{Purpose, SigningKey};
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::directory::Directory;
use commucat_proto::id::{AccountKey, DeviceId, Domain, NoiseKey, Token};
use commucat_proto::identity::{DeviceCertificate, DeviceList, Identification, Registration};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;

use crate::carrier::Link;
use crate::client::{Got, Keys, valid, xk};
use crate::clock;
use crate::suite::Suite;
use crate::world::token;

/// Points of small order, as public keys.
pub(crate) const WEAK: [[u8; 32]; 4] = [
    {
        let mut identity = [0; 32];
        identity[0] = 1;
        identity
    },
    [0; 32],
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// `R` = the identity, `S` = 0: what loose verification takes for any message under a weak key.
pub(crate) fn forged() -> [u8; 64] {
    let mut signature = [0; 64];
    signature[0] = 1;
    signature
}

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    let link = Link::connect(&suite.world.server).await?;
    registrations(suite, &link).await?;
    of_weak_accounts(suite, &link).await?;
    tokens(suite, &link).await?;
    lists(suite).await
}

fn bent(mut signed: Signed, at: usize) -> Signed {
    if let Some(byte) = signed.signature.get_mut(at) {
        *byte ^= 1;
    }
    signed
}

fn between(from: u64, to: u64) -> Validity {
    Validity {
        not_before: Timestamp::from_millis(from),
        not_after: Timestamp::from_millis(to),
    }
}

/// Lists that nobody may register by, whatever the token.
fn false_lists(keys: &Keys, alice: &Keys) -> Vec<(&'static str, Signed)> {
    let (own, noise) = (&keys.device, keys.noise.public());
    let now = clock::now().as_millis();
    let other = Keys::new(&keys.target);
    let of = |validity| keys.list_of(1, vec![keys.certify(own, noise, validity)]);
    let elsewhere = Domain::parse("elsewhere.example").ok();
    let foreign = elsewhere.map(|domain| {
        let certificates = vec![keys.certificate()];
        keys.account.list(&domain, 1, clock::now(), certificates)
    });
    let many = (0..17).map(|_| {
        let key = StaticKey::generate();
        keys.certify(&DeviceId::of_key(key.public()), key.public(), valid())
    });
    let mut table = vec![
        (
            "signed by another account",
            other.account.list(
                &keys.target.domain,
                1,
                clock::now(),
                vec![keys.certificate()],
            ),
        ),
        (
            "of another account, signed by this one",
            keys.list_of(1, vec![alice.certificate()]),
        ),
        (
            "with a certificate of another account for this device",
            keys.list_of(1, vec![other.certify(own, noise, valid())]),
        ),
        (
            "with a forged certificate",
            keys.list_of(1, vec![bent(keys.certificate(), 5)]),
        ),
        ("with its signature bent in R", bent(keys.list(1), 0)),
        ("with its signature bent in S", bent(keys.list(1), 40)),
        ("with S above the order", bent(keys.list(1), 63)),
        ("without certificates", keys.list_of(1, Vec::new())),
        (
            "without this device",
            keys.list_of(
                1,
                vec![{
                    let key = StaticKey::generate();
                    keys.certify(&DeviceId::of_key(key.public()), key.public(), valid())
                }],
            ),
        ),
        (
            "with this device's id for another key",
            keys.list_of(
                1,
                vec![keys.certify(own, StaticKey::generate().public(), valid())],
            ),
        ),
        (
            "with Alice's device id for this key",
            keys.list_of(1, vec![keys.certify(&alice.device, noise, valid())]),
        ),
        (
            "with this device twice",
            keys.list_of(1, vec![keys.certificate(), keys.certificate()]),
        ),
        (
            "of 18 devices",
            keys.list_of(1, many.chain([keys.certificate()]).collect()),
        ),
        ("with an expired certificate", of(between(1, now - 1_000))),
        (
            "with a certificate of tomorrow",
            of(between(now + 86_400_000, now + 96_400_000)),
        ),
        ("of version 0", keys.list(0)),
        ("that is Alice's own", alice.list(1)),
        ("that is Alice's next", alice.list(2)),
        (
            "with a Noise key of zeros beside",
            keys.list_of(
                1,
                vec![keys.certificate(), {
                    let zeros = NoiseKey::new([0; 32]);
                    keys.certify(&DeviceId::of_key(&zeros), &zeros, valid())
                }],
            ),
        ),
        (
            "signed as a certificate",
            Signed {
                body: keys.list(1).body,
                signature: keys.certificate().signature,
            },
        ),
        ("that is a certificate", keys.certificate()),
        (
            "that is nothing",
            Signed {
                body: Bytes::new(),
                signature: [0; 64],
            },
        ),
        ("cut", {
            let good = keys.list(1);
            Signed {
                body: good.body.slice(..good.body.len() - 1),
                ..good
            }
        }),
    ];
    table.extend(foreign.map(|list| ("of another domain", list)));
    table
}

async fn register(link: &Link, keys: &Keys, who: Identification) -> Result<Got> {
    Ok(xk(link, &keys.target, &keys.noise, &who.encode())
        .await?
        .verdict()
        .await)
}

async fn registrations(suite: &mut Suite, link: &Link) -> Result<()> {
    let rejected = [Got::Fatal(Title::HandshakeRejected)];
    let token = token(&suite.world.server, 1).await?;
    let again = || Some(Token::new(*token.as_bytes()));
    let keys = Keys::new(&suite.world.target);
    for (name, list) in false_lists(&keys, &suite.world.alice.keys) {
        let registration = Registration {
            invite: again(),
            list,
        };
        let got = register(link, &keys, keys.identification(Some(registration))).await;
        // A list that is no list at all breaks the form already.
        suite
            .judge(&format!("registration by a list {name}"), &rejected, got)
            .await?;
    }
    for (name, device) in [
        ("Alice's device id", suite.world.alice.keys.device.clone()),
        ("an id that is not derived", DeviceId::parse("another")?),
    ] {
        let certificate = keys.certify(&device, keys.noise.public(), valid());
        let registration = Registration {
            invite: again(),
            list: keys.list_of(1, vec![certificate]),
        };
        let mut who = keys.identification(Some(registration));
        who.device = device;
        let got = register(link, &keys, who).await;
        suite
            .judge(&format!("registration with {name}"), &rejected, got)
            .await?;
    }
    // None of these tries has spent the token.
    let registration = Registration {
        invite: again(),
        list: keys.list(1),
    };
    let got = register(link, &keys, keys.identification(Some(registration))).await;
    suite
        .judge("registration as it should be", &[Got::Done], got)
        .await?;
    let late = Keys::new(&suite.world.target);
    let registration = Registration {
        invite: again(),
        list: late.list(1),
    };
    let got = register(link, &late, late.identification(Some(registration))).await;
    suite
        .judge("registration with a spent token", &rejected, got)
        .await
}

/// Accounts whose key is a point of small order, with signatures that loose verification takes.
async fn of_weak_accounts(suite: &mut Suite, link: &Link) -> Result<()> {
    let rejected = [Got::Fatal(Title::HandshakeRejected)];
    let token = token(&suite.world.server, 1).await?;
    for (at, weak) in WEAK.into_iter().enumerate() {
        let keys = Keys::new(&suite.world.target);
        let now = clock::now();
        let signature = forged();
        let certificate = DeviceCertificate {
            account: AccountKey::new(weak),
            device: keys.device.clone(),
            noise_key: *keys.noise.public(),
            mls_key: Bytes::copy_from_slice(&SigningKey::generate().public()),
            not_before: now,
            not_after: Timestamp::from_millis(now.as_millis() + 1_000_000_000),
        };
        let certificate = Signed {
            body: certificate.encode().into(),
            signature,
        };
        let list = DeviceList {
            account: AccountKey::new(weak),
            domain: keys.target.domain.clone(),
            version: 1,
            issued: now,
            certificates: vec![certificate],
        };
        let list = Signed {
            body: list.encode().into(),
            signature,
        };
        let invite = Some(Token::new(*token.as_bytes()));
        let who = keys.identification(Some(Registration { invite, list }));
        let got = register(link, &keys, who).await;
        suite
            .judge(
                &format!("registration of weak account key {at}"),
                &rejected,
                got,
            )
            .await?;
    }
    Ok(())
}

async fn tokens(suite: &mut Suite, link: &Link) -> Result<()> {
    let rejected = [Got::Fatal(Title::HandshakeRejected)];
    for (name, invite) in [
        ("without a token", None),
        ("with an unknown token", Some(Token::new(random_bytes()))),
        ("with a token of zeros", Some(Token::new([0; 16]))),
    ] {
        let keys = Keys::new(&suite.world.target);
        let registration = Registration {
            invite,
            list: keys.list(1),
        };
        let got = register(link, &keys, keys.identification(Some(registration))).await;
        suite
            .judge(&format!("registration {name}"), &rejected, got)
            .await?;
    }
    // A further device of a known account, which its account did not sign in.
    let thief = Keys::new(&suite.world.target);
    let of_alice = &suite.world.alice.keys;
    let stolen = of_alice.list_of(1, vec![of_alice.certificate()]);
    let who = thief.identification(Some(Registration {
        invite: None,
        list: stolen,
    }));
    let got = register(link, &thief, who).await;
    suite
        .judge(
            "a further device by Alice's list, not in it",
            &rejected,
            got,
        )
        .await?;
    Ok(())
}

/// DIRECTORY put of what is not one's own.
async fn lists(suite: &mut Suite) -> Result<()> {
    let alice = &suite.world.alice.keys;
    let keys = &suite.world.stranger.keys;
    let other = Keys::new(&suite.world.target);
    let (forbidden, conflict) = (Title::Forbidden, Title::Conflict);
    let invalid = Title::InvalidControlPayload;
    let table = vec![
        ("Alice's next list", alice.list(2), vec![forbidden]),
        (
            "an empty list of Alice",
            alice.list_of(9, Vec::new()),
            vec![forbidden],
        ),
        ("the list of nobody", other.list(1), vec![forbidden]),
        (
            "its own, signed by another",
            Signed {
                signature: other.list(2).signature,
                ..keys.list(2)
            },
            vec![forbidden],
        ),
        ("its own, bent", bent(keys.list(2), 1), vec![forbidden]),
        (
            "its own with Alice's certificate",
            keys.list_of(2, vec![keys.certificate(), alice.certificate()]),
            vec![forbidden, invalid],
        ),
        (
            "its own with Alice's device id",
            keys.list_of(
                2,
                vec![
                    keys.certificate(),
                    keys.certify(&alice.device, alice.noise.public(), valid()),
                ],
            ),
            vec![forbidden, invalid, conflict],
        ),
        (
            "its own with Alice's Noise key",
            keys.list_of(
                2,
                vec![
                    keys.certificate(),
                    keys.certify(
                        &DeviceId::of_key(alice.noise.public()),
                        alice.noise.public(),
                        valid(),
                    ),
                ],
            ),
            vec![forbidden, invalid, conflict],
        ),
        (
            "its own with other bytes",
            keys.list_of(1, vec![keys.certificate()]),
            vec![conflict],
        ),
        (
            "its own of version 0",
            keys.list(0),
            vec![conflict, invalid],
        ),
        (
            "a certificate",
            keys.certificate(),
            vec![invalid, forbidden],
        ),
        (
            "nothing",
            Signed {
                body: Bytes::new(),
                signature: [0; 64],
            },
            vec![invalid, forbidden],
        ),
        (
            "its own, signed for another purpose",
            SigningKey::generate().sign(Purpose::Commit, keys.list(2).body),
            vec![forbidden],
        ),
    ];
    for (name, list, titles) in table {
        let put = Directory::Put { list }.encode();
        let got = suite
            .world
            .stranger
            .say(FrameType::Directory, 0, &put)
            .await;
        let wanted: Vec<_> = titles.into_iter().map(Got::Refused).collect();
        suite.judge(&format!("put of {name}"), &wanted, got).await?;
    }
    Ok(())
}
