//! A TCP connection between two servers that can be cut, held up, or made to lose answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::random::Random;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// What a cable does with what goes through it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Weather {
    /// It passes everything on.
    #[default]
    Clear,
    /// Nothing gets through and nobody is told: connections stand still, new ones are not answered.
    Silent,
    /// Connections break, and new ones break at once.
    Broken,
    /// Each connection is late by a time of its own of at most so many milliseconds, so that what is
    /// sent on a new one overtakes what is under way on an older one.
    Late(u64),
    /// Requests get through, and when their answers come the connection breaks: whoever sent them
    /// sends them again.
    Deaf,
}

/// A port of 127.0.0.1 that leads to another. Dropped, it closes.
#[derive(Debug)]
pub struct Cable {
    port: u16,
    weather: watch::Sender<Weather>,
    _guard: DropGuard,
}

impl Cable {
    /// Takes a port and passes on to `to`, another one of this machine.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn lay(to: u16, random: &mut Random) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let stop = CancellationToken::new();
        let (weather, seen) = watch::channel(Weather::Clear);
        let cable = Self {
            port: listener.local_addr()?.port(),
            weather,
            _guard: stop.clone().drop_guard(),
        };
        let (tasks, mut random) = (TaskTracker::new(), random.fork());
        let all = tasks.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let passed = pass(stream, to, seen.clone(), random.fork());
                // A connection that breaks is the business of its two ends.
                all.spawn(stop.clone().run_until_cancelled_owned(passed));
            }
        }));
        Ok(cable)
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// From now on it is like this.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn pass(
    near: TcpStream,
    to: u16,
    mut weather: watch::Receiver<Weather>,
    mut random: Random,
) -> Result<()> {
    // What cannot get through is not known at the other end.
    weather.wait_for(|now| *now != Weather::Silent).await?;
    let now = *weather.borrow();
    let late = match now {
        Weather::Broken => return Ok(()),
        Weather::Late(most_ms) => random.wait(most_ms),
        Weather::Clear | Weather::Silent | Weather::Deaf => Duration::ZERO,
    };
    let far = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, to))).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_reads, near_writes), (far_reads, far_writes)) =
        (near.into_split(), far.into_split());
    let there = carry(near_reads, far_writes, Way::There, late, weather.clone());
    let back = carry(far_reads, near_writes, Way::Back, late, weather.clone());
    let breaks = weather.wait_for(|now| *now == Weather::Broken);
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
        _broken = breaks => Ok(()),
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// To whom the connection leads.
    There,
    /// To who opened it.
    Back,
}

/// Carries bytes one way until either end closes, or the weather breaks the connection.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    late: Duration,
    mut weather: watch::Receiver<Weather>,
) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut is_first = true;
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        let now = *weather.wait_for(|now| *now != Weather::Silent).await?;
        // The first bytes back are of the TLS handshake: without it there is no request to answer.
        if way == Way::Back && now == Weather::Deaf && !is_first {
            return Ok(());
        }
        if !late.is_zero() {
            sleep(late).await;
        }
        to.write_all(chunk.get(..read).unwrap_or_default()).await?;
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ends() -> (Cable, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cable = Cable::lay(port, &mut Random::new(1)).await.unwrap();
        (cable, listener)
    }

    #[tokio::test]
    async fn what_is_said_in_silence_arrives_when_it_is_over() {
        let (cable, listener) = ends().await;
        cable.set(Weather::Silent);

        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, cable.port()))
            .await
            .unwrap();
        near.write_all(&[7]).await.unwrap();
        cable.set(Weather::Clear);
        let (mut far, _) = listener.accept().await.unwrap();

        assert_eq!(far.read_u8().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_connection_that_is_under_way_breaks() {
        let (cable, listener) = ends().await;
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, cable.port()))
            .await
            .unwrap();
        near.write_all(&[7]).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), 7);

        cable.set(Weather::Broken);

        assert_eq!(near.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(far.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn requests_get_through_and_their_answers_do_not() {
        let (cable, listener) = ends().await;
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, cable.port()))
            .await
            .unwrap();
        near.write_all(&[1]).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        far.write_all(&[2]).await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), 2);

        cable.set(Weather::Deaf);
        near.write_all(&[3]).await.unwrap();

        assert_eq!(far.read_u8().await.unwrap(), 1);
        assert_eq!(far.read_u8().await.unwrap(), 3);
        far.write_all(&[4]).await.unwrap();
        assert_eq!(near.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
