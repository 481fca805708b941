//! What a seed plays: how many of what, and how much goes wrong.

use crate::outside::Index;
use crate::random::Random;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) domains: usize,
    pub(crate) clients: usize,
    pub(crate) groups: usize,
    /// How long clients act and things go wrong, in milliseconds.
    pub(crate) active_ms: u64,
    /// Times that clients do something.
    pub(crate) acts: u64,
    /// Times that something goes wrong.
    pub(crate) faults: u64,
    /// Of 1,000 transactions: those that fail.
    pub(crate) store_faults: u64,
    /// Of 1,000 crossings between domains: those that are lost, doubled or late.
    pub(crate) peer_faults: u64,
    /// The bound of a lane's window.
    pub(crate) window_bytes: usize,
    /// Two domains are cut off from each other for longer than a batch's date holds.
    pub(crate) long_cut: bool,
    /// A client that means harm.
    pub(crate) rogue: Option<Index>,
    /// It leads members of a group apart; else it only tries to.
    pub(crate) splits: bool,
    /// A domain that lies as a follower.
    pub(crate) liar: Option<Index>,
    /// Entries that a device's queue takes.
    pub(crate) queue_entries: usize,
    /// How long an entry may wait in a queue, in milliseconds.
    pub(crate) ttl_ms: u64,
    /// Of 1,000 faults: those by which hubs forget entries of their logs.
    pub(crate) prunes: u64,
}

impl Scenario {
    /// The scenario of a seed. Bounds come from a chance of their own.
    pub(crate) fn of(random: &mut Random, bounds: &mut Random) -> Self {
        let domains = 1 + random.index(4);
        let long_cut = domains > 1 && random.chance(250);
        let clients = domains + 2 + random.index(4);
        let rogue = random.index(clients);
        let liar = random.index(domains);
        Self {
            domains,
            clients,
            groups: 1 + random.index(2),
            active_ms: if long_cut {
                1_100_000
            } else {
                random.between(20_000, 90_000)
            },
            acts: random.between(40, 120),
            faults: random.between(10, 50),
            store_faults: random.one_of(&[0, 10, 60]).copied().unwrap_or(0),
            peer_faults: random.one_of(&[0, 100, 400]).copied().unwrap_or(0),
            window_bytes: random.one_of(&[120, 400, 1 << 20]).copied().unwrap_or(400),
            long_cut,
            rogue: random.chance(400).then_some(rogue),
            splits: random.chance(500),
            liar: (domains > 1 && random.chance(250)).then_some(liar),
            queue_entries: bounds
                .one_of(&[usize::MAX, usize::MAX, usize::MAX, 12, 4])
                .copied()
                .unwrap_or(usize::MAX),
            ttl_ms: bounds
                .one_of(&[u64::MAX, u64::MAX, u64::MAX, 20_000, 3_000])
                .copied()
                .unwrap_or(u64::MAX),
            prunes: bounds.one_of(&[0, 0, 150]).copied().unwrap_or(0),
        }
    }
}
