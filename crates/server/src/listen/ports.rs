//! Listening sockets: bound here, or taken from systemd or from the server that runs.
//!
//! Pingora gets them as they are. Left to itself it would retry a taken port for 30 s and then end one
//! thread while the process goes on (decision 0501).

use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// Connections that may wait to be accepted; Linux cuts it to `net.core.somaxconn`. They wait here
/// while one process hands over to another.
const BACKLOG: i32 = 65_535;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is taken, or not of this machine.
    #[error("cannot listen on {address}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket of the service manager that the configuration does not know.
    #[error("the service manager listens on {address}, which `server.listen` does not name")]
    Unnamed {
        /// The address.
        address: SocketAddr,
    },
    /// What was handed over is no listening socket.
    #[error("a socket that was handed over cannot be used")]
    Unusable(#[source] io::Error),
}

/// A socket that listens.
#[derive(Debug)]
pub struct Port {
    /// Its address, with the port that the system chose for port 0.
    pub address: SocketAddr,
    /// The socket.
    pub listener: TcpListener,
}

impl Port {
    /// The same socket once more.
    ///
    /// # Errors
    ///
    /// If the process has too many files open.
    pub fn share(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }
}

/// Who listened before.
#[derive(Debug)]
pub enum Inherited {
    /// Nobody.
    None,
    /// The service manager. It goes on to listen on whatever it opened, so all of it must be wanted.
    Manager(Vec<TcpListener>),
    /// The server that ends. What the configuration does not name any more is closed.
    Predecessor(Vec<TcpListener>),
}

/// Listens on every address, with an inherited socket where there is one.
///
/// `[::1]` is left out on a machine without IPv6, as long as another address remains.
///
/// # Errors
///
/// [`ListenError`] names the first address that is not free.
pub fn open(addresses: &[SocketAddr], inherited: Inherited) -> Result<Vec<Port>, ListenError> {
    let (mut held, must_fit) = match inherited {
        Inherited::None => (Vec::new(), false),
        Inherited::Manager(sockets) => (known(sockets)?, true),
        Inherited::Predecessor(sockets) => (known(sockets)?, false),
    };
    let mut ports = Vec::with_capacity(addresses.len());
    for address in addresses {
        let is_it = |port: &Port| {
            let own = port.address;
            own.ip() == address.ip() && (own.port() == address.port() || address.port() == 0)
        };
        if let Some(place) = held.iter().position(is_it) {
            ports.push(held.swap_remove(place));
            continue;
        }
        match make(address, addresses) {
            Ok(port) => ports.push(port),
            Err(error) if is_missing_ipv6(address, &error) && addresses.len() > 1 => {
                tracing::warn!("this machine has no IPv6 loopback address; left out");
            }
            Err(source) => {
                let address = *address;
                return Err(ListenError::Refused { address, source });
            }
        }
    }
    match held.first() {
        Some(port) if must_fit => Err(ListenError::Unnamed {
            address: port.address,
        }),
        Some(_) | None => Ok(ports),
    }
}

/// Checks that every address is free, and returns them with port 0 replaced by a free port.
///
/// # Errors
///
/// As [`open`].
pub fn check(addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, ListenError> {
    let ports = open(addresses, Inherited::None)?;
    Ok(ports.iter().map(|port| port.address).collect())
}

fn known(sockets: Vec<TcpListener>) -> Result<Vec<Port>, ListenError> {
    let port = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Port { address, listener })
    };
    let ports = sockets.into_iter().map(port).collect::<io::Result<_>>();
    ports.map_err(ListenError::Unusable)
}

fn make(address: &SocketAddr, all: &[SocketAddr]) -> io::Result<Port> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // What a process before this one left behind in TIME_WAIT does not hold the port.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if let Some(only) = ipv6_only(address, all) {
        sockopt::set_ipv6_v6only(&socket, only)?;
    }
    bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok(Port { address, listener })
}

fn is_missing_ipv6(address: &SocketAddr, error: &io::Error) -> bool {
    // EAFNOSUPPORT has no `ErrorKind` of its own.
    const EAFNOSUPPORT: i32 = 97;
    let missing =
        error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT);
    missing && address.ip() == Ipv6Addr::LOCALHOST
}

/// `[::]` beside an IPv4 address with the same port must leave IPv4 to that one.
fn ipv6_only(address: &SocketAddr, all: &[SocketAddr]) -> Option<bool> {
    let beside = all
        .iter()
        .any(|other| other.is_ipv4() && other.port() == address.port());
    (address.is_ipv6() && beside).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();

        let error = check(&[address]).unwrap_err();

        assert_eq!(error.to_string(), format!("cannot listen on {address}"));
        let ListenError::Refused { source, .. } = error else {
            panic!("another error")
        };
        assert_eq!(source.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn port_zero_becomes_a_free_port() {
        let found = check(&[address("127.0.0.1:0"), address("127.0.0.1:0")]).unwrap();

        let [first, second] = found.as_slice() else {
            panic!("two addresses")
        };
        assert!(first.port() != 0 && second.port() != 0 && first.port() != second.port());
    }

    #[test]
    fn an_inherited_socket_is_used_as_it_is() {
        let before = open(&[address("127.0.0.1:0")], Inherited::None).unwrap();
        let [port] = before.as_slice() else {
            panic!("one port")
        };
        let shared = vec![port.share().unwrap()];

        let after = open(&[port.address], Inherited::Predecessor(shared)).unwrap();

        assert_eq!(after.first().unwrap().address, port.address);
    }

    #[test]
    fn a_socket_of_the_manager_that_nobody_named_is_refused() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = other.local_addr().unwrap();

        let opened = open(
            &[address("127.0.0.1:0"), address("[::]:0")],
            Inherited::Manager(vec![other, TcpListener::bind("127.0.0.2:0").unwrap()]),
        );

        let Err(ListenError::Unnamed { address }) = opened else {
            panic!("it was taken")
        };
        assert_ne!(address, expected);
    }
}
