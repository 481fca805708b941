//! Bodies of waiting entries: stored once, however many queues hold them.

use std::collections::{HashMap, VecDeque};

use rusqlite::params;

use super::convert::half;
use super::writer::Tx;
use crate::StoreError;

/// Bodies remembered. A message's recipients are spooled within a moment of each other, so a short
/// memory finds nearly all repeats; one that is missed costs a second copy and nothing else.
const REMEMBERED: usize = 1_024;

/// What the writer remembers of bodies on disk. Empty is always right.
#[derive(Default)]
pub(super) struct Bodies {
    next: Option<i64>,
    by_hash: HashMap<[u8; 32], i64>,
    by_id: HashMap<i64, [u8; 32]>,
    oldest_first: VecDeque<i64>,
}

/// Where a body is or will be.
pub(super) struct Place {
    pub(super) id: i64,
    hash: blake3::Hash,
    stored: bool,
}

impl Bodies {
    /// After a rollback: ids and hashes may be of bodies that do not exist.
    pub(super) fn forget_all(&mut self) {
        *self = Self::default();
    }

    fn remember(&mut self, hash: [u8; 32], id: i64) {
        if self.oldest_first.len() >= REMEMBERED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.forget(oldest);
        }
        self.by_hash.insert(hash, id);
        self.by_id.insert(id, hash);
        self.oldest_first.push_back(id);
    }

    fn forget(&mut self, id: i64) {
        if let Some(hash) = self.by_id.remove(&id) {
            self.by_hash.remove(&hash);
        }
    }
}

/// Finds a place for `body` without storing it yet.
pub(super) fn place(tx: &mut Tx<'_>, body: &[u8]) -> Result<Place, StoreError> {
    let hash = blake3::hash(body);
    if let Some(id) = tx.bodies.by_hash.get(hash.as_bytes()) {
        return Ok(Place {
            id: *id,
            hash,
            stored: true,
        });
    }
    let id = match tx.bodies.next {
        Some(next) => next,
        None => tx
            .row("SELECT coalesce(max(id), 0) + 1 FROM bodies", [], |row| {
                row.get(0)
            })?
            .unwrap_or(1),
    };
    tx.bodies.next = Some(id);
    Ok(Place {
        id,
        hash,
        stored: false,
    })
}

/// Stores `body` at its place, or counts one more entry that shares it.
pub(super) fn keep(tx: &mut Tx<'_>, place: &Place, body: &[u8]) -> Result<(), StoreError> {
    if place.stored {
        tx.execute(
            "INSERT INTO shared_bodies (body, refs) VALUES (?1, 2)
             ON CONFLICT (body) DO UPDATE SET refs = refs + 1",
            [place.id],
        )?;
        return Ok(());
    }
    tx.execute(
        "INSERT INTO bodies (id, checksum, bytes) VALUES (?1, ?2, ?3)",
        params![place.id, half(&place.hash), body],
    )?;
    tx.bodies.next = Some(place.id + 1);
    tx.bodies.remember(*place.hash.as_bytes(), place.id);
    Ok(())
}

/// One entry with this body is gone; the last takes the body along.
pub(super) fn release(tx: &mut Tx<'_>, id: i64) -> Result<(), StoreError> {
    let refs: Option<i64> = tx.row(
        "UPDATE shared_bodies SET refs = refs - 1 WHERE body = ?1 RETURNING refs",
        [id],
        |row| row.get(0),
    )?;
    match refs {
        None => {
            tx.execute("DELETE FROM bodies WHERE id = ?1", [id])?;
            tx.bodies.forget(id);
        }
        Some(refs) if refs <= 1 => {
            tx.execute("DELETE FROM shared_bodies WHERE body = ?1", [id])?;
        }
        Some(_) => {}
    }
    Ok(())
}
