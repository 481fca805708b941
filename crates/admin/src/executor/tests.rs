//! What becomes of requests, on a real store and real keys.

use std::sync::Mutex;

use commucat_crypto::SigningKey;
use commucat_crypto::keyring::Keyring;
use commucat_ledger::{Entry, Sink, SinkError};
use commucat_proto::id::{AccountKey, DeviceId};
use commucat_proto::link::InviteLink;
use commucat_storage::{Admission, DeviceList, ListedDevice, Location, Options};
use std::sync::Arc;

use super::*;
use crate::request::KeyKind;
use crate::response::{Hidden, Peer, PeerStanding, Peers};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Keeps the kinds of what it is given.
#[derive(Clone, Default)]
struct Kinds(Arc<Mutex<Vec<&'static str>>>);

impl Sink for Kinds {
    fn next_index(&self) -> u64 {
        u64::try_from(self.0.lock().unwrap().len()).unwrap()
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap()
            .extend(entries.iter().map(|entry| entry.change().kind()));
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Live for Told {
    fn device_revoked(&self, device: &commucat_storage::Device) {
        self.0
            .lock()
            .unwrap()
            .push(device.device.as_str().to_owned());
    }

    fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }

    fn drain(&self, node: Option<&str>) -> bool {
        node.is_none()
    }

    fn peer_changed(&self, peer: &Domain) {
        self.0.lock().unwrap().push(peer.as_str().to_owned());
    }

    async fn ping_peer(&self, _: &Domain) -> Result<Duration, String> {
        Ok(Duration::from_millis(7))
    }

    fn keys_changed(&self) -> Result<(), KeyringError> {
        self.0.lock().unwrap().push("keys".to_owned());
        Ok(())
    }
}

struct World {
    executor: Executor<Told>,
    told: Told,
    kinds: Kinds,
    _place: tempfile::TempDir,
}

async fn world() -> World {
    let place = tempfile::tempdir().unwrap();
    let domain = Domain::parse("chat.example.org").unwrap();
    let keys = place.path().join("keys");
    Keyring::open_or_create(&keys, &domain, NOW).unwrap();
    let location = Location::Sqlite {
        directory: place.path().to_owned(),
    };
    let store = Store::open(location, Options::default()).await.unwrap();
    let (kinds, told) = (Kinds::default(), Told::default());
    let (ledger, _worker) = Ledger::start(kinds.clone()).unwrap();
    let endpoint = Domain::parse("chat.example.org:8443").unwrap();
    let site = Site {
        domain,
        endpoint,
        keys,
        store,
        ledger,
    };
    World {
        executor: Executor::new(site, told.clone()),
        told,
        kinds,
        _place: place,
    }
}

impl World {
    async fn ask(&self, request: Request) -> Response {
        self.executor.execute(request, NOW).await
    }

    async fn done(&self, request: Request) -> Answer {
        match self.ask(request).await {
            Response::Done(answer) => answer,
            Response::Failed(failure) => panic!("{failure:?}"),
        }
    }

    async fn failure(&self, request: Request) -> FailureKind {
        match self.ask(request).await {
            Response::Done(answer) => panic!("{answer:?}"),
            Response::Failed(failure) => failure.kind,
        }
    }

    async fn register(&self, name: &str) {
        let device = DeviceId::parse(name).unwrap();
        let listed = ListedDevice {
            device: device.clone(),
            noise_key: *commucat_crypto::StaticKey::generate().public(),
            not_before: NOW,
            not_after: NOW.saturating_add(Duration::from_secs(3_600)),
        };
        let list = DeviceList {
            account_key: AccountKey::new(SigningKey::generate().public()),
            version: 1,
            signed: bytes_of(b"list"),
            devices: vec![listed],
        };
        let store = &self.executor.site.store;
        store
            .register(list, &device, Admission::Open, NOW)
            .await
            .unwrap();
    }
}

fn bytes_of<T: From<&'static [u8]>>(bytes: &'static [u8]) -> T {
    bytes.into()
}

#[tokio::test]
async fn an_invite_is_made_listed_by_its_name_and_revoked_by_the_beginning_of_it() {
    let world = world().await;
    let create = Request::CreateInvite {
        uses: 3,
        lasts_seconds: 60,
    };

    let Answer::Created(made) = world.done(create).await else {
        panic!("no invite")
    };
    let link = InviteLink::parse(made.link.as_str()).unwrap();
    let Answer::Invites(listed) = world.done(Request::ListInvites { skip: 0 }).await else {
        panic!("no list")
    };
    let prefix = Hidden::new(&made.invite.id[..6]);
    let revoked = world
        .done(Request::RevokeInvite {
            invite: prefix.clone(),
        })
        .await;

    assert_eq!(link.host.as_str(), "chat.example.org:8443");
    assert_eq!(link.domain.as_str(), "chat.example.org");
    assert_eq!(listed.invites, std::slice::from_ref(&made.invite));
    assert!(!listed.more);
    assert_eq!(made.invite.expires_ms, NOW.as_millis() + 60_000);
    assert_eq!(revoked, Answer::InviteRevoked(made.invite));
    let again = Request::RevokeInvite { invite: prefix };
    assert_eq!(world.failure(again).await, FailureKind::NoInvite);
}

#[tokio::test]
async fn values_outside_their_bounds_are_refused() {
    let world = world().await;

    for (uses, lasts_seconds) in [(0, 60), (10_001, 60), (1, 0), (1, 366 * 86_400)] {
        let request = Request::CreateInvite {
            uses,
            lasts_seconds,
        };
        assert_eq!(world.failure(request).await, FailureKind::Invalid);
    }
    let short = Request::RevokeInvite {
        invite: Hidden::new("abc"),
    };
    assert_eq!(world.failure(short).await, FailureKind::Invalid);
    let spaced = Request::ShowDevice {
        device: Hidden::new("a b"),
    };
    assert_eq!(world.failure(spaced).await, FailureKind::Invalid);
}

#[tokio::test]
async fn a_listing_longer_than_a_page_comes_in_pages_that_fit_a_line() {
    let world = world().await;
    for index in 0..201 {
        world.register(&format!("{index:0>64}")).await;
    }

    let Answer::Devices(first) = world.done(Request::ListDevices { after: None }).await else {
        panic!("no list")
    };
    let after = first.devices.last().map(|device| device.device.clone());
    let Answer::Devices(second) = world.done(Request::ListDevices { after }).await else {
        panic!("no list")
    };

    assert_eq!((first.devices.len(), first.more), (200, true));
    assert_eq!((second.devices.len(), second.more), (1, false));
    let line = serde_json::to_vec(&Response::Done(Answer::Devices(first))).unwrap();
    assert!(line.len() < crate::LINE_BYTES_MAX, "{}", line.len());
}

#[tokio::test]
async fn a_revoked_device_is_gone_its_session_is_told_and_the_ledger_has_it() {
    let world = world().await;
    world.register("phone").await;
    let device = || Hidden::new("phone");

    let shown = world.done(Request::ShowDevice { device: device() }).await;
    let revoked = world.done(Request::RevokeDevice { device: device() }).await;

    let (Answer::Device(shown), Answer::DeviceRevoked(revoked)) = (shown, revoked) else {
        panic!("no device")
    };
    assert_eq!(
        (shown.queue_entries, shown.key_packages, shown.last_resort),
        (0, 0, false)
    );
    assert_eq!(shown.device, revoked);
    assert_eq!(*world.told.0.lock().unwrap(), ["phone"]);
    assert_eq!(*world.kinds.0.lock().unwrap(), ["device_revoked"]);
    let again = Request::RevokeDevice { device: device() };
    assert_eq!(world.failure(again).await, FailureKind::NoDevice);
}

#[tokio::test]
async fn rotated_keys_overlap_and_each_new_statement_is_recorded() {
    let world = world().await;
    let Answer::Status(before) = world.done(Request::Status).await else {
        panic!("no status")
    };

    let noise = world
        .done(Request::RotateKeys {
            keys: KeyKind::Noise,
        })
        .await;
    let domain = world
        .done(Request::RotateKeys {
            keys: KeyKind::Domain,
        })
        .await;
    let references = world
        .done(Request::RotateKeys {
            keys: KeyKind::References,
        })
        .await;

    let (Answer::Keys(noise), Answer::Keys(domain), Answer::Keys(references)) =
        (noise, domain, references)
    else {
        panic!("no keys")
    };
    assert_eq!(before.keys.noise_keys.len(), 1);
    assert_eq!(noise.noise_keys.len(), 2);
    assert!(
        noise
            .noise_keys
            .iter()
            .any(|key| key.name == before.keys.noise_keys[0].name)
    );
    assert_eq!(
        (noise.serial, domain.serial),
        (before.keys.serial + 1, before.keys.serial + 3)
    );
    assert_ne!(domain.domain_key, before.keys.domain_key);
    assert_eq!(
        (domain.earlier_domain_keys, references.serial),
        (1, domain.serial)
    );
    assert_eq!(*world.told.0.lock().unwrap(), ["keys", "keys", "keys"]);
    assert_eq!(*world.kinds.0.lock().unwrap(), ["server_keys_changed"; 3]);
}

#[tokio::test]
async fn keys_that_are_missing_are_a_failure_with_its_cause() {
    let mut world = world().await;
    world.executor.site.keys.push("elsewhere");

    let response = world
        .ask(Request::RotateKeys {
            keys: KeyKind::Noise,
        })
        .await;

    let Response::Failed(failure) = response else {
        panic!("{response:?}")
    };
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (FailureKind::Keys, "the keys cannot be used")
    );
    assert!(
        failure.causes[0].starts_with("no keys in"),
        "{:?}",
        failure.causes
    );
}

#[test]
fn nothing_that_is_logged_shows_an_id_or_a_link() {
    let device = Hidden::new("canary-device");
    let request = Request::RevokeDevice { device };

    assert_eq!(
        format!("{request:?}"),
        "RevokeDevice { device: Hidden(..) }"
    );
}

#[tokio::test]
async fn a_peer_is_named_blocked_allowed_and_forgotten() {
    let world = world().await;
    let domain = || "b.example".to_owned();
    let ask = async |request| world.executor.execute(request, NOW).await;
    let key = "a7".repeat(32);

    let added = ask(Request::AddPeer {
        domain: domain(),
        endpoint: Some("in.b.example:8443".to_owned()),
        key: Some(key),
    });
    let Response::Done(Answer::Peer(added)) = added.await else {
        panic!("not added");
    };
    let standing = PeerStanding::Blocked;
    let blocked = ask(Request::SetPeer {
        domain: domain(),
        standing,
    });
    let Response::Done(Answer::Peer(blocked)) = blocked.await else {
        panic!("not blocked");
    };
    let listed = ask(Request::ListPeers { after: None }).await;
    let removed = ask(Request::RemovePeer { domain: domain() }).await;
    let gone = ask(Request::ShowPeer { domain: domain() }).await;

    assert_eq!(added.standing, PeerStanding::Active);
    assert_eq!(added.endpoint.as_deref(), Some("in.b.example:8443"));
    assert_eq!(
        blocked,
        Peer {
            standing: PeerStanding::Blocked,
            ..added
        }
    );
    assert_eq!(
        listed,
        Response::Done(Answer::Peers(Peers {
            peers: vec![blocked.clone()],
            more: false,
        }))
    );
    assert_eq!(removed, Response::Done(Answer::PeerRemoved(blocked)));
    assert!(
        matches!(gone, Response::Failed(failure) if failure.kind == FailureKind::NoPeer),
        "it is forgotten"
    );
    assert_eq!(*world.told.0.lock().unwrap(), ["b.example"; 3]);
}

#[tokio::test]
async fn whoever_is_unknown_can_be_blocked_but_not_allowed() {
    let world = world().await;
    let set = async |standing| {
        let domain = "b.example".to_owned();
        let request = Request::SetPeer { domain, standing };
        world.executor.execute(request, NOW).await
    };

    let allowed = set(PeerStanding::Active).await;
    let blocked = set(PeerStanding::Blocked).await;

    assert!(matches!(allowed, Response::Failed(failure) if failure.kind == FailureKind::NoPeer));
    assert!(matches!(blocked, Response::Done(Answer::Peer(_))));
}
