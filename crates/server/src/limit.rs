//! Limits before TLS: what one address, and all together, may cost an unauthenticated server.

mod bucket;
mod buckets;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use commucat_config::{Limits, Network, Server};
use parking_lot::Mutex;

pub use self::bucket::Bucket;
pub use self::buckets::Buckets;
pub(crate) use self::buckets::{Kind, Tag, Taken, Used};
use crate::carrier::PeerTag;
use crate::metrics::label::Refusal;

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
    /// Handshakes by address. Addresses are kept under its hash only.
    buckets: Buckets,
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
}

#[derive(Debug, Default)]
struct State {
    connections: u32,
    pending: u32,
    /// Connections of each address that has some; of another node's nothing is known.
    addresses: HashMap<Tag, u32>,
}

impl Gate {
    /// A gate with the configured limits.
    #[must_use]
    pub fn new(limits: &Limits, server: &Server, buckets: Buckets) -> Self {
        let bounds = Bounds {
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            pending: limits.handshakes_pending,
        };
        let state = Mutex::default();
        Self(Arc::new(Inner {
            buckets,
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
        let tag = inner.tag(address);
        let mut state = inner.state.lock();
        if state.connections >= inner.bounds.connections {
            return Err(Refusal::Connections);
        }
        if state.pending >= inner.bounds.pending {
            return Err(Refusal::HandshakesPending);
        }
        if origin == Origin::Client {
            state.enter_address(tag, &inner.bounds)?;
        }
        state.connections += 1;
        state.pending += 1;
        drop(state);
        let pass = Pass {
            gate: self.clone(),
            tag,
            origin,
            pending: true,
        };
        // Refused, the pass counts no more.
        if origin == Origin::Client {
            inner.shake_hands(tag, now)?;
        }
        Ok(pass)
    }

    fn leave(&self, pass: &Pass) {
        let mut state = self.0.state.lock();
        state.connections = state.connections.saturating_sub(1);
        if pass.pending {
            state.pending = state.pending.saturating_sub(1);
        }
        if pass.origin == Origin::Client
            && let Some(connections) = state.addresses.get_mut(&pass.tag)
        {
            *connections = connections.saturating_sub(1);
            if *connections == 0 {
                state.addresses.remove(&pass.tag);
            }
        }
    }
}

impl Inner {
    fn tag(&self, address: IpAddr) -> Tag {
        self.buckets.tag(&subnet(address).to_be_bytes())
    }

    fn shake_hands(&self, tag: Tag, now: Instant) -> Result<(), Refusal> {
        let taken = self.buckets.take(Kind::Handshake, tag, now);
        taken.map_err(|_| Refusal::HandshakesPerAddress)
    }

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
    /// Each address has a connection, so that there are no more of them than connections.
    fn enter_address(&mut self, tag: Tag, bounds: &Bounds) -> Result<(), Refusal> {
        let connections = self.addresses.entry(tag).or_default();
        if *connections >= bounds.connections_per_address {
            return Err(Refusal::ConnectionsPerAddress);
        }
        *connections += 1;
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
    tag: Tag,
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
        let (origin, tag) = (inner.origin(client), inner.tag(client));
        if origin == Origin::Client {
            inner.state.lock().enter_address(tag, &inner.bounds)?;
        }
        (self.origin, self.tag) = (origin, tag);
        if origin == Origin::Client {
            inner.shake_hands(tag, now)?;
        }
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
        self.gate.0.shake_hands(self.tag, now).is_ok()
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
        let buckets = Buckets::alone(&config.limits);
        Gate::new(&config.limits, &config.server, buckets)
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
        let buckets = Buckets::alone(&limits.limits);
        let gate = Gate::new(&limits.limits, &limits.server, buckets);
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
        let buckets = Buckets::alone(&config.limits);
        let gate = Gate::new(&config.limits, &config.server, buckets);
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
