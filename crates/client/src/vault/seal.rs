//! Sealing of rows: XChaCha20-Poly1305 under a key that only the opened vault knows.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::VaultError;

const NONCE: usize = 24;

/// A secret of 32 bytes, wiped when dropped.
pub(super) type SecretKey = Zeroizing<[u8; 32]>;

/// The name of a row: its table in clear, scope and id as keyed hashes or a number.
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) table: &'static str,
    pub(super) scope: [u8; 16],
    pub(super) id: [u8; 16],
}

impl Name {
    /// Names entry `number` of a log.
    pub(super) fn number(&mut self, number: i64) {
        self.id = [0; 16];
        for (to, from) in self.id.iter_mut().skip(8).zip(number.to_be_bytes()) {
            *to = from;
        }
    }

    fn associated_data(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.table.len() + 33);
        out.extend_from_slice(self.table.as_bytes());
        out.push(0);
        out.extend_from_slice(&self.scope);
        out.extend_from_slice(&self.id);
        out
    }
}

/// Seals and opens rows, and hashes their names.
pub(super) struct Sealer {
    cipher: XChaCha20Poly1305,
    index: SecretKey,
}

impl Sealer {
    pub(super) fn new(data_key: &SecretKey) -> Self {
        let rows = Zeroizing::new(blake3::derive_key("commucat vault rows 1", &**data_key));
        let index = Zeroizing::new(blake3::derive_key("commucat vault index 1", &**data_key));
        Self {
            cipher: cipher(&rows),
            index,
        }
    }

    pub(super) fn name(&self, table: &'static str, scope: &[u8], id: &[u8]) -> Name {
        Name {
            table,
            scope: self.hash(b's', table, scope),
            id: self.hash(b'i', table, id),
        }
    }

    fn hash(&self, kind: u8, table: &str, raw: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.index);
        hasher
            .update(&[kind])
            .update(table.as_bytes())
            .update(&[0])
            .update(raw);
        let mut out = [0; 16];
        hasher.finalize_xof().fill(&mut out);
        out
    }

    /// Seals the row's own id with its value, so that a list can give it back.
    pub(super) fn seal(&self, name: &Name, id: &[u8], value: &[u8]) -> Result<Vec<u8>, VaultError> {
        let length = u32::try_from(id.len()).unwrap_or(u32::MAX);
        let mut plain = Zeroizing::new(Vec::with_capacity(4 + id.len() + value.len()));
        plain.extend_from_slice(&length.to_be_bytes());
        plain.extend_from_slice(id);
        plain.extend_from_slice(value);
        seal(&self.cipher, &name.associated_data(), &plain)
    }

    pub(super) fn open(
        &self,
        name: &Name,
        sealed: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), VaultError> {
        let damaged = || VaultError::Damaged { table: name.table };
        let plain = open(&self.cipher, &name.associated_data(), sealed).ok_or_else(damaged)?;
        let (length, rest) = plain.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
        let (id, value) = rest.split_at_checked(length).ok_or_else(damaged)?;
        Ok((id.to_vec(), value.to_vec()))
    }
}

/// Wraps the data key under `wrapping`.
pub(super) fn wrap(
    wrapping: &SecretKey,
    context: &[u8],
    key: &SecretKey,
) -> Result<Vec<u8>, VaultError> {
    seal(&cipher(wrapping), context, &**key)
}

/// Opens what [`wrap`] made; `None` under another key or context.
pub(super) fn unwrap(wrapping: &SecretKey, context: &[u8], wrapped: &[u8]) -> Option<SecretKey> {
    let plain = Zeroizing::new(open(&cipher(wrapping), context, wrapped)?);
    plain.as_slice().try_into().ok().map(Zeroizing::new)
}

pub(super) fn random_key() -> Result<SecretKey, VaultError> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key).map_err(|_| VaultError::Random)?;
    Ok(key)
}

fn cipher(key: &SecretKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(**key))
}

fn seal(cipher: &XChaCha20Poly1305, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|_| VaultError::Random)?;
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad })
        .map_err(|_| VaultError::Random)?;
    let mut out = Vec::with_capacity(NONCE + sealed.len());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&sealed);
    Ok(out)
}

fn open(cipher: &XChaCha20Poly1305, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    cipher
        .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad })
        .ok()
}
