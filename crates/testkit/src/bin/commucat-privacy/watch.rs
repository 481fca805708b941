//! Redis, and everything that it is told: every command with its values, as `MONITOR` shows them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use commucat_testkit::canary::{Kind, Place};
use commucat_testkit::services::Redis;
use parking_lot::Mutex;

/// A Redis server whose commands are written down.
pub(crate) struct Watch {
    redis: Redis,
    told: Arc<Mutex<Vec<u8>>>,
    broken: Arc<AtomicBool>,
}

impl Watch {
    pub(crate) fn start() -> Result<Self> {
        let redis = Redis::start(&[])?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port()))?;
        stream.write_all(b"MONITOR\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        ensure!(
            answer == *b"+OK\r\n",
            "Redis does not let itself be watched"
        );
        let (told, broken) = (
            Arc::<Mutex<Vec<u8>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (all, ended) = (Arc::clone(&told), Arc::clone(&broken));
        thread::spawn(move || {
            let mut some = [0; 65_536];
            while let Ok(count @ 1..) = stream.read(&mut some) {
                all.lock().extend(some.iter().take(count));
            }
            ended.store(true, Ordering::Release);
        });
        Ok(Self {
            redis,
            told,
            broken,
        })
    }

    pub(crate) fn url(&self) -> String {
        self.redis.url()
    }

    /// What it was told until now: as shown, and with escaped bytes as they are.
    pub(crate) fn places(&self) -> Result<Vec<Place>> {
        ensure!(
            !self.broken.load(Ordering::Acquire),
            "Redis stopped showing what it is told"
        );
        let shown = self.told.lock().clone();
        let is_used = shown.windows(9).any(|some| some == b"\"PUBLISH\"");
        ensure!(is_used, "no node has said anything over Redis");
        let place = |name: &str, bytes| Place {
            name: name.to_owned(),
            kind: Kind::Other,
            bytes,
        };
        let raw = unescape(&shown);
        Ok(vec![
            place("what Redis was told", shown),
            place("what Redis was told, as bytes", raw),
        ])
    }
}

/// Replaces `\xNN` by its byte.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        if let Some([b'x', high, low, after @ ..]) = (*first == b'\\').then_some(others)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            bytes.push(high * 16 + low);
            rest = after;
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    bytes
}

fn digit(character: u8) -> Option<u8> {
    let value = char::from(character).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn escaped_bytes_are_read_as_bytes() {
        assert_eq!(super::unescape(br#""a\x00\xffb\n""#), b"\"a\x00\xffb\\n\"");
    }
}
