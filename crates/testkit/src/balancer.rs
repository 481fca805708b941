//! A TCP load balancer: one port in front of several servers, as a domain of several nodes has it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Longest that a server may take to accept before the next one is tried.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);

/// A port of 127.0.0.1 that leads to whichever server accepts. Dropped, it closes.
#[derive(Debug)]
pub struct Balancer {
    port: u16,
    stop: CancellationToken,
    listener: Option<TcpListener>,
    _guard: DropGuard,
}

impl Balancer {
    /// Takes a port; nobody is let in before [`Self::run`].
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn bind() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let stop = CancellationToken::new();
        Ok(Self {
            port: listener.local_addr()?.port(),
            stop: stop.clone(),
            listener: Some(listener),
            _guard: stop.drop_guard(),
        })
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Begins to pass connections on to these ports of 127.0.0.1, in turn.
    pub fn run(&mut self, ports: Vec<u16>) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        let (tasks, stop) = (TaskTracker::new(), self.stop.clone());
        let (all, turn) = (tasks.clone(), Arc::new(AtomicUsize::new(0)));
        let ports: Arc<[u16]> = ports.into();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (ports, turn) = (Arc::clone(&ports), Arc::clone(&turn));
                // A connection that breaks is the business of its two ends.
                all.spawn(
                    stop.clone()
                        .run_until_cancelled_owned(pass(stream, ports, turn)),
                );
            }
        }));
    }
}

/// Passes bytes between a client and the first server in turn that accepts; none: the connection
/// ends.
async fn pass(mut client: TcpStream, ports: Arc<[u16]>, turn: Arc<AtomicUsize>) -> Result<()> {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    let in_turn = ports.iter().cycle().skip(first % ports.len().max(1));
    for port in in_turn.take(ports.len()) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        if let Ok(Ok(mut server)) = timeout(ACCEPT_WAIT, TcpStream::connect(address)).await {
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn server() -> (u16, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        (listener.local_addr().unwrap().port(), listener)
    }

    #[tokio::test]
    async fn who_does_not_accept_is_passed_over() {
        let (dead, listener) = server().await;
        drop(listener);
        let (alive, listener) = server().await;
        let mut balancer = Balancer::bind().await.unwrap();
        balancer.run(vec![dead, alive]);

        for _ in 0..2 {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, balancer.port()))
                .await
                .unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&[7]).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), 7);
        }
    }
}
