//! Buckets that all nodes of a domain take from together.
//!
//! Each node has all of them in memory and asks nobody before it takes something. What it takes out
//! of a bucket of which more than a quarter is missing it tells the others, which take it out of
//! theirs. So whoever stays within the usual is not told of, and without Redis each node goes on with
//! what it knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use commucat_config::Limits;
use commucat_crypto::secret::random_bytes;
use commucat_proto::id::{Handle, QueueId};
use commucat_routing::hub::{Limiter, Rate};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Buckets of one kind that are remembered. At the bound those are forgotten that are full; if none
/// is, a new one is refused: that many at once are an attack.
const BUCKETS_MAX: usize = 65_536;

/// What that refusal asks for.
const BOUND_WAIT: Duration = Duration::from_secs(1);

/// Things to tell that wait; beyond, other nodes do not hear of more.
const TELLING_MAX: usize = 4_096;

/// First contacts that one device may cause: ten an hour (CCP-1 section 8).
const CONTACTS: Rate = Rate {
    interval: Duration::from_secs(360),
    burst: 10,
};

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    /// Handshakes of an address.
    Handshake,
    /// Registrations from an address.
    Registration,
    /// Control requests of a device.
    Request,
    /// Commits of a handle, or of a join key.
    Commit,
    /// First contacts with other domains that a device causes.
    Contact,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Handshake,
        Self::Registration,
        Self::Request,
        Self::Commit,
        Self::Contact,
    ];

    /// As nodes tell it each other.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Handshake => 1,
            Self::Registration => 2,
            Self::Request => 3,
            Self::Commit => 4,
            Self::Contact => 5,
        }
    }

    /// The kind of that code.
    pub(crate) fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// The name of a bucket: a keyed hash, the same on all nodes.
pub(crate) type Tag = u64;

/// What was taken out of one bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Taken {
    pub(crate) kind: Kind,
    pub(crate) tag: Tag,
    pub(crate) count: u32,
}

/// What a device that left this node has used of its own buckets: the time until they are full.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Used {
    pub(crate) queue: QueueId,
    pub(crate) hints: Duration,
    pub(crate) submits: Vec<(Handle, Duration)>,
}

/// All buckets of this node. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Buckets(Arc<Inner>);

struct Inner {
    key: [u8; 32],
    handshakes: Mutex<Limiter<Tag>>,
    registrations: Mutex<Limiter<Tag>>,
    requests: Mutex<Limiter<Tag>>,
    commits: Mutex<Limiter<Tag>>,
    contacts: Mutex<Limiter<Tag>>,
    /// What other nodes are to hear; none if there are none.
    telling: Option<Mutex<Telling>>,
    told: Notify,
}

#[derive(Default)]
struct Telling {
    taken: HashMap<(Kind, Tag), u32>,
    used: Vec<Used>,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buckets(..)")
    }
}

impl Buckets {
    /// Full buckets of a server that is alone, under a key that dies with the process.
    #[must_use]
    pub fn alone(limits: &Limits) -> Self {
        Self::new(limits, random_bytes(), None)
    }

    /// Full buckets of one of several nodes, all of which have `key`.
    pub(crate) fn shared(limits: &Limits, key: [u8; 32]) -> Self {
        Self::new(limits, key, Some(Mutex::default()))
    }

    fn new(limits: &Limits, key: [u8; 32], telling: Option<Mutex<Telling>>) -> Self {
        let limiter = |rate| Mutex::new(Limiter::new(rate));
        let per = |time: u64, rate: u32, burst: u32| {
            limiter(Rate {
                interval: Duration::from_secs(time) / rate.max(1),
                burst: burst.max(1),
            })
        };
        let registrations = limits.registrations_per_address;
        Self(Arc::new(Inner {
            key,
            handshakes: per(1, limits.handshakes_per_address, limits.handshakes_burst),
            registrations: per(3_600, registrations, registrations),
            requests: per(1, limits.request_rate, limits.request_burst),
            commits: limiter(Rate::COMMIT),
            contacts: limiter(CONTACTS),
            telling,
            told: Notify::new(),
        }))
    }

    /// The name of the bucket of whom `bytes` stand for.
    pub(crate) fn tag(&self, bytes: &[u8]) -> Tag {
        let mut tag = [0; 8];
        let mut hash = blake3::Hasher::new_keyed(&self.0.key);
        hash.update(bytes).finalize_xof().fill(&mut tag);
        Tag::from_le_bytes(tag)
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    ///
    /// How long to wait; nothing is taken.
    pub(crate) fn take(&self, kind: Kind, tag: Tag, now: Instant) -> Result<(), Duration> {
        let mut limiter = self.limiter(kind).lock();
        if !limiter.has_room(&tag, BUCKETS_MAX, now) {
            return Err(BOUND_WAIT);
        }
        limiter.take(tag, now)?;
        let is_low = limiter.is_low(&tag, now);
        drop(limiter);
        if is_low {
            self.tell_taken(kind, tag);
        }
        Ok(())
    }

    /// Whether there is one; takes nothing.
    ///
    /// # Errors
    ///
    /// How long to wait.
    pub(crate) fn check(&self, kind: Kind, tag: Tag, now: Instant) -> Result<(), Duration> {
        self.limiter(kind).lock().check(&tag, now)
    }

    /// Takes one, whether there is one or not.
    pub(crate) fn charge(&self, kind: Kind, tag: Tag, now: Instant) {
        let mut limiter = self.limiter(kind).lock();
        limiter.charge(tag, now);
        let is_low = limiter.is_low(&tag, now);
        drop(limiter);
        if is_low {
            self.tell_taken(kind, tag);
        }
    }

    /// Another node took something.
    pub(crate) fn debit(&self, taken: Taken, now: Instant) {
        let Taken { kind, tag, count } = taken;
        let mut limiter = self.limiter(kind).lock();
        if limiter.has_room(&tag, BUCKETS_MAX, now) {
            limiter.debit(tag, count, now);
        }
    }

    /// Tells other nodes what a device has used that is connected here no more.
    pub(crate) fn tell_used(&self, used: Used) {
        let Some(telling) = &self.0.telling else {
            return;
        };
        let mut telling = telling.lock();
        if telling.used.len() < TELLING_MAX {
            telling.used.push(used);
            drop(telling);
            self.0.told.notify_one();
        }
    }

    /// Whether there are other nodes to tell anything.
    pub(crate) fn are_shared(&self) -> bool {
        self.0.telling.is_some()
    }

    /// Waits until there is something for other nodes to hear.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: what waits stays until [`Self::take_telling`].
    pub(crate) async fn are_told(&self) {
        self.0.told.notified().await;
    }

    /// What other nodes are to hear now.
    pub(crate) fn take_telling(&self) -> (Vec<Taken>, Vec<Used>) {
        let telling = self.0.telling.as_ref();
        let Telling { taken, used } = telling.map_or_else(Telling::default, |telling| {
            std::mem::take(&mut telling.lock())
        });
        let taken = taken
            .into_iter()
            .map(|((kind, tag), count)| Taken { kind, tag, count });
        (taken.collect(), used)
    }

    fn tell_taken(&self, kind: Kind, tag: Tag) {
        let Some(telling) = &self.0.telling else {
            return;
        };
        let mut telling = telling.lock();
        if telling.taken.len() < TELLING_MAX || telling.taken.contains_key(&(kind, tag)) {
            let count = telling.taken.entry((kind, tag)).or_default();
            *count = count.saturating_add(1);
            drop(telling);
            self.0.told.notify_one();
        }
    }

    fn limiter(&self, kind: Kind) -> &Mutex<Limiter<Tag>> {
        match kind {
            Kind::Handshake => &self.0.handshakes,
            Kind::Registration => &self.0.registrations,
            Kind::Request => &self.0.requests,
            Kind::Commit => &self.0.commits,
            Kind::Contact => &self.0.contacts,
        }
    }
}

#[cfg(test)]
mod tests {
    use commucat_config::{Config, Sources};

    use super::*;

    fn node() -> Buckets {
        let sources = Sources::default().with_flag("limits.registrations_per_address", "8");
        Buckets::shared(&Config::load(&sources).unwrap().limits, [1; 32])
    }

    #[test]
    fn what_one_node_gives_beyond_a_quarter_the_other_has_no_more() {
        let (one, two) = (node(), node());
        let (tag, now) = (one.tag(b"an address"), Instant::now());
        let register = |node: &Buckets| node.take(Kind::Registration, tag, now).is_ok();

        let first = (0..6).filter(|_| register(&one)).count();
        let (taken, _) = one.take_telling();
        for taken in &taken {
            two.debit(*taken, now);
        }
        let second = (0..6).filter(|_| register(&two)).count();

        assert_eq!(tag, two.tag(b"an address"));
        let told = Taken {
            kind: Kind::Registration,
            tag,
            count: 4,
        };
        assert_eq!((first, taken.as_slice(), second), (6, [told].as_slice(), 4));
        assert_eq!(
            two.check(Kind::Registration, two.tag(b"another"), now),
            Ok(())
        );
        assert!(one.take_telling().0.is_empty());
    }

    #[test]
    fn of_who_stays_within_the_usual_nothing_is_told() {
        let (node, now) = (node(), Instant::now());
        let tag = node.tag(b"an address");

        node.take(Kind::Registration, tag, now).unwrap();
        node.take(Kind::Registration, tag, now).unwrap();

        assert!(node.take_telling().0.is_empty());
    }

    #[test]
    fn a_server_that_is_alone_keeps_nothing_to_tell() {
        let limits = Config::load(&Sources::default()).unwrap().limits;
        let alone = Buckets::alone(&limits);
        let (tag, now) = (alone.tag(b"a handle"), Instant::now());

        alone.charge(Kind::Commit, tag, now);

        assert!(alone.check(Kind::Commit, tag, now).is_err());
        assert!(!alone.are_shared() && alone.take_telling().0.is_empty());
    }
}
