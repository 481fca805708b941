//! Passes TCP connections on from another address of this machine, so that the server sees clients
//! that come from there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A port of 127.0.0.1 that leads to a server. Dropped, it closes.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    listener: Option<TcpListener>,
    from: Ipv4Addr,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Relay {
    /// Takes a port; what comes will go on from `from`, an address of the loopback network.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn bind(from: Ipv4Addr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let stop = CancellationToken::new();
        Ok(Self {
            port: listener.local_addr()?.port(),
            listener: Some(listener),
            from,
            stop: stop.clone(),
            _guard: stop.drop_guard(),
        })
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Begins to pass on to these ports of 127.0.0.1, in turn.
    pub fn run(&mut self, ports: Vec<u16>) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        let from = SocketAddr::new(IpAddr::V4(self.from), 0);
        let (tasks, stop) = (TaskTracker::new(), self.stop.clone());
        let all = tasks.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut turns = ports.iter().cycle();
            while let Ok((stream, _)) = listener.accept().await {
                let Some(port) = turns.next() else { return };
                let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), *port);
                // A connection that breaks is the business of its two ends.
                all.spawn(
                    stop.clone()
                        .run_until_cancelled_owned(pass(stream, from, to)),
                );
            }
        }));
    }
}

async fn pass(mut stream: TcpStream, from: SocketAddr, to: SocketAddr) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(from)?;
    let mut server = socket.connect(to).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}
