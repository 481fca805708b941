//! A port that stays free while its server is down.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Below the ports that the system gives to outgoing connections: one of those could otherwise take
/// the port of a server that is down, even a client's that tries to reach it.
const LOWEST: u16 = 12_000;
const COUNT: u16 = 20_000;
const TRIES: u32 = 200;

/// Starts that are tried before one that finds its port taken gives up.
pub const STARTS_MAX: u32 = 8;

/// A port of 127.0.0.1 that nobody listens on.
///
/// # Errors
///
/// If none was found.
pub fn free() -> Result<u16> {
    for _ in 0..TRIES {
        let mut random = [0; 2];
        getrandom::fill(&mut random)?;
        let port = LOWEST + u16::from_le_bytes(random) % COUNT;
        if !is_taken(port) {
            return Ok(port);
        }
    }
    bail!("no free port")
}

/// Whether somebody has it.
#[must_use]
pub fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}
