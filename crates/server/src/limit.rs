//! Limits before TLS: what one address, and all together, may cost an unauthenticated server.

mod bucket;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use commucat_config::{Limits, Network, Server};
use parking_lot::Mutex;

pub use self::bucket::Bucket;
use crate::carrier::PeerTag;
use crate::metrics::label::Refusal;

/// Addresses remembered at once. At the bound idle ones are forgotten; if none is idle, a new
/// address is refused: that many addresses at once are an attack.
const ADDRESSES_MAX: usize = 65_536;

/// Whether an address is bound by the limits for each address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Any client.
    Client,
    /// A proxy of `server.trusted_proxies`.
    TrustedProxy,
    /// A proxy of `server.proxy_protocol` that has yet to name its client: see [`Pass::name`].
    Unnamed,
}

/// Counts connections and handshakes. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Random; dies with the process. Addresses are kept under its hash only.
    key: RandomState,
    bounds: Bounds,
    trusted: Vec<Network>,
    naming: Vec<Network>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Bounds {
    connections: u32,
    connections_per_address: u32,
    pending: u32,
    rate: u32,
    burst: u32,
}

#[derive(Debug, Default)]
struct State {
    connections: u32,
    pending: u32,
    addresses: HashMap<u64, Address>,
}

#[derive(Debug)]
struct Address {
    connections: u32,
    handshakes: Bucket,
}

impl Gate {
    /// A gate with the configured limits.
    #[must_use]
    pub fn new(limits: &Limits, server: &Server) -> Self {
        let bounds = Bounds {
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            pending: limits.handshakes_pending,
            rate: limits.handshakes_per_address,
            burst: limits.handshakes_burst,
        };
        let (key, state) = (RandomState::new(), Mutex::default());
        Self(Arc::new(Inner {
            key,
            bounds,
            trusted: server.trusted_proxies.clone(),
            naming: server.proxy_protocol.clone(),
            state,
        }))
    }

    /// Lets a new connection in, or says why not. The pass counts it until it is dropped.
    ///
    /// From a proxy that has yet to name its client the pass counts for the limits over all only.
    ///
    /// # Errors
    ///
    /// The limit that was reached.
    pub fn enter(&self, address: IpAddr, now: Instant) -> Result<Pass, Refusal> {
        let inner = &*self.0;
        let address = address.to_canonical();
        let origin = if is_in(&inner.naming, address) {
            Origin::Unnamed
        } else {
            inner.origin(address)
        };
        let tag = inner.key.hash_one(subnet(address));
        let mut state = inner.state.lock();
        if state.connections >= inner.bounds.connections {
            return Err(Refusal::Connections);
        }
        if state.pending >= inner.bounds.pending {
            return Err(Refusal::HandshakesPending);
        }
        if origin == Origin::Client {
            state.enter_address(tag, &inner.bounds, now)?;
        }
        state.connections += 1;
        state.pending += 1;
        drop(state);
        Ok(Pass {
            gate: self.clone(),
            tag,
            origin,
            pending: true,
        })
    }

    fn leave(&self, pass: &Pass) {
        let mut state = self.0.state.lock();
        state.connections = state.connections.saturating_sub(1);
        if pass.pending {
            state.pending = state.pending.saturating_sub(1);
        }
        if pass.origin == Origin::Client
            && let Some(address) = state.addresses.get_mut(&pass.tag)
        {
            address.connections = address.connections.saturating_sub(1);
        }
    }
}

impl Inner {
    /// Of somebody who speaks for himself.
    fn origin(&self, address: IpAddr) -> Origin {
        if is_in(&self.trusted, address) {
            Origin::TrustedProxy
        } else {
            Origin::Client
        }
    }
}

fn is_in(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

impl State {
    fn enter_address(&mut self, tag: u64, bounds: &Bounds, now: Instant) -> Result<(), Refusal> {
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&tag) {
            self.addresses
                .retain(|_, address| address.connections > 0 || !address.handshakes.is_full(now));
            if self.addresses.len() >= ADDRESSES_MAX {
                return Err(Refusal::HandshakesPerAddress);
            }
        }
        let address = self.addresses.entry(tag).or_insert_with(|| Address {
            connections: 0,
            handshakes: Bucket::new(bounds.rate, bounds.burst, now),
        });
        if address.connections >= bounds.connections_per_address {
            return Err(Refusal::ConnectionsPerAddress);
        }
        if !address.handshakes.take(1, now) {
            return Err(Refusal::HandshakesPerAddress);
        }
        address.connections += 1;
        Ok(())
    }
}

/// What stands for one client: an IPv4 address, or the /64 that an IPv6 client chooses from freely.
fn subnet(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    tag: u64,
    origin: Origin,
    pending: bool,
}

impl Pass {
    /// Counts the connection for the client that its proxy named; does nothing for a pass that is not
    /// [`Origin::Unnamed`].
    ///
    /// # Errors
    ///
    /// The limit that this address has reached.
    pub fn name(&mut self, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.origin != Origin::Unnamed {
            return Ok(());
        }
        let inner = &*self.gate.0;
        let client = client.to_canonical();
        let (origin, tag) = (inner.origin(client), inner.key.hash_one(subnet(client)));
        if origin == Origin::Client {
            inner.state.lock().enter_address(tag, &inner.bounds, now)?;
        }
        (self.origin, self.tag) = (origin, tag);
        Ok(())
    }

    /// Says that the TLS handshake is over.
    pub fn shake_hands(&mut self) {
        if self.pending {
            self.pending = false;
            let mut state = self.gate.0.state.lock();
            state.pending = state.pending.saturating_sub(1);
        }
    }

    /// Takes one more handshake from what the address has: a further stream of a connection begins
    /// with a Noise handshake, and the connection has paid for one only.
    #[must_use]
    pub fn pay_handshake(&self, now: Instant) -> bool {
        if self.origin != Origin::Client {
            return true;
        }
        let mut state = self.gate.0.state.lock();
        let address = state.addresses.get_mut(&self.tag);
        address.is_none_or(|address| address.handshakes.take(1, now))
    }

    /// What stands for the address.
    #[must_use]
    pub const fn peer(&self) -> PeerTag {
        PeerTag(self.tag)
    }

    /// Whether the limits for each address bind it.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let gate = self.gate.clone();
        gate.leave(self);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use commucat_config::{Config, Sources};

    use super::*;

    fn gate(key: &str, value: &str) -> Gate {
        let config = Config::load(&Sources::default().with_flag(key, value)).unwrap();
        Gate::new(&config.limits, &config.server)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_so_many_connections_and_others_are_not_held_up() {
        let gate = gate("limits.connections_per_address", "2");
        let now = Instant::now();

        let first = gate.enter(address("192.0.2.1"), now).unwrap();
        let _second = gate.enter(address("::ffff:192.0.2.1"), now).unwrap();
        let third = gate.enter(address("192.0.2.1"), now).map(drop);
        let other = gate.enter(address("192.0.2.2"), now).map(drop);
        drop(first);
        let again = gate.enter(address("192.0.2.1"), now).map(drop);

        assert_eq!(third, Err(Refusal::ConnectionsPerAddress));
        assert_eq!((other, again), (Ok(()), Ok(())));
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_count_as_one() {
        let gate = gate("limits.connections_per_address", "1");
        let now = Instant::now();

        let _first = gate.enter(address("2001:db8::1"), now).unwrap();

        let same = gate.enter(address("2001:db8::ffff"), now).map(drop);
        assert_eq!(same, Err(Refusal::ConnectionsPerAddress));
        assert_eq!(
            gate.enter(address("2001:db8:0:1::1"), now).map(drop),
            Ok(())
        );
    }

    #[test]
    fn handshakes_of_an_address_come_back_with_time() {
        let gate = gate("limits.handshakes_burst", "1");
        let now = Instant::now();

        drop(gate.enter(address("192.0.2.1"), now).unwrap());
        let at_once = gate.enter(address("192.0.2.1"), now).map(drop);
        let later = gate
            .enter(address("192.0.2.1"), now + Duration::from_secs(1))
            .map(drop);

        assert_eq!(at_once, Err(Refusal::HandshakesPerAddress));
        assert_eq!(later, Ok(()));
    }

    #[test]
    fn streams_of_one_connection_pay_like_connections() {
        let gate = gate("limits.handshakes_burst", "2");
        let now = Instant::now();

        let pass = gate.enter(address("192.0.2.1"), now).unwrap();

        assert!(pass.pay_handshake(now));
        assert!(!pass.pay_handshake(now));
        assert!(pass.pay_handshake(now + Duration::from_secs(1)));
    }

    #[test]
    fn unfinished_handshakes_are_bounded_over_all_addresses() {
        let gate = gate("limits.handshakes_pending", "1");
        let now = Instant::now();

        let mut first = gate.enter(address("192.0.2.1"), now).unwrap();
        let refused = gate.enter(address("192.0.2.2"), now).map(drop);
        first.shake_hands();
        let taken = gate.enter(address("192.0.2.2"), now).map(drop);

        assert_eq!(refused, Err(Refusal::HandshakesPending));
        assert_eq!(taken, Ok(()));
    }

    #[test]
    fn a_trusted_proxy_is_bound_by_the_limits_for_all_only() {
        let limits = Config::load(
            &Sources::default()
                .with_flag("limits.connections_per_address", "1")
                .with_flag("server.trusted_proxies", "10.0.0.0/8"),
        )
        .unwrap();
        let gate = Gate::new(&limits.limits, &limits.server);
        let now = Instant::now();

        let first = gate.enter(address("10.0.0.7"), now).unwrap();
        let second = gate.enter(address("10.0.0.7"), now);

        assert_eq!(first.origin(), Origin::TrustedProxy);
        assert!(second.is_ok());
    }

    #[test]
    fn the_client_that_a_proxy_names_is_the_one_that_is_counted() {
        let config = Config::load(
            &Sources::default()
                .with_flag("limits.connections_per_address", "1")
                .with_flag("server.proxy_protocol", "10.0.0.0/8"),
        )
        .unwrap();
        let gate = Gate::new(&config.limits, &config.server);
        let now = Instant::now();
        let named = |client: &str| {
            let mut pass = gate.enter(address("10.0.0.7"), now)?;
            assert_eq!(pass.origin(), Origin::Unnamed);
            pass.name(address(client), now).map(|()| pass)
        };

        let first = named("192.0.2.1").unwrap();
        let same = named("192.0.2.1").map(drop);
        let other = named("192.0.2.2").map(drop);
        let direct = gate.enter(address("192.0.2.1"), now).map(drop);
        drop(first);
        let again = named("192.0.2.1").map(drop);

        assert_eq!(same, Err(Refusal::ConnectionsPerAddress));
        assert_eq!(direct, Err(Refusal::ConnectionsPerAddress));
        assert_eq!((other, again), (Ok(()), Ok(())));
    }
}
