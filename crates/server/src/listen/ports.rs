//! Addresses to listen on, tried before Pingora takes them.
//!
//! Pingora retries a taken port for 30 s and then ends one thread while the process goes on
//! (`docs/decisions`); so a port that is not free must end the process before it gets so far.

use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Checks that every address is free, and returns them with port 0 replaced by a free port.
///
/// `[::1]` is left out on a machine without IPv6, as long as another address remains.
///
/// # Errors
///
/// [`ListenError`] names the first address that is not free.
pub fn check(addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, ListenError> {
    // All are held at once, so that two equal addresses or two free ports cannot be the same.
    let mut held: Vec<TcpListener> = Vec::with_capacity(addresses.len());
    let mut found = Vec::with_capacity(addresses.len());
    for address in addresses {
        if ipv6_only(address, addresses) == Some(true) && address.ip() == Ipv6Addr::UNSPECIFIED {
            // Here it would take IPv4 as well and meet the other address of the list; Pingora
            // binds it to IPv6 alone, and `Service` ends the process if that goes wrong.
            found.push(*address);
            continue;
        }
        match TcpListener::bind(address).and_then(|own| Ok((own.local_addr()?, own))) {
            Ok((bound, listener)) => {
                held.push(listener);
                found.push(bound);
            }
            Err(error) if is_missing_ipv6(address, &error) && addresses.len() > 1 => {
                tracing::warn!("this machine has no IPv6 loopback address; left out");
            }
            Err(source) => {
                return Err(ListenError {
                    address: *address,
                    source,
                });
            }
        }
    }
    Ok(found)
}

fn is_missing_ipv6(address: &SocketAddr, error: &io::Error) -> bool {
    // EAFNOSUPPORT has no `ErrorKind` of its own.
    const EAFNOSUPPORT: i32 = 97;
    let missing =
        error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT);
    missing && address.ip() == Ipv6Addr::LOCALHOST
}

/// `[::]` beside an IPv4 address with the same port must leave IPv4 to that one.
pub(super) fn ipv6_only(address: &SocketAddr, all: &[SocketAddr]) -> Option<bool> {
    let beside = all
        .iter()
        .any(|other| other.is_ipv4() && other.port() == address.port());
    (address.is_ipv6() && beside).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();

        let error = check(&[address]).unwrap_err();

        assert_eq!(error.to_string(), format!("cannot listen on {address}"));
        assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn port_zero_becomes_a_free_port() {
        let found = check(&[
            "127.0.0.1:0".parse().unwrap(),
            "127.0.0.1:0".parse().unwrap(),
        ])
        .unwrap();

        let [first, second] = found.as_slice() else {
            panic!("two addresses")
        };
        assert!(first.port() != 0 && second.port() != 0 && first.port() != second.port());
    }
}
