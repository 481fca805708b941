//! Small boxes under a symmetric key: `nonce (24) | XChaCha20-Poly1305`.
//!
//! Clients seal the GroupInfo of a bundle and external commits with it, under the group key
//! (CCP-1 sections 5.4 and 5.5).

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use commucat_proto::id::GroupId;

use crate::secret::{Secret, random_bytes};

/// What sealing adds: nonce and tag.
pub const OVERHEAD: usize = NONCE_BYTES + 16;

const NONCE_BYTES: usize = 24;

/// A box that does not open: another key, another place, or other bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("sealed box does not open")]
pub struct OpenError;

/// Seals `plaintext` under `key`, bound to `aad`, with a fresh random nonce in front.
#[must_use]
pub fn seal(key: &Secret<32>, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let nonce = random_bytes::<NONCE_BYTES>();
    let payload = Payload {
        msg: plaintext,
        aad,
    };
    #[expect(
        clippy::expect_used,
        reason = "fails above 256 GiB only, which no caller holds"
    )]
    let sealed = XChaCha20Poly1305::new(key.expose().into())
        .encrypt(&nonce.into(), payload)
        .expect("the plaintext is shorter than the cipher's limit");
    [nonce.as_slice(), &sealed].concat()
}

/// Opens what [`seal`] made with the same `key` and `aad`.
///
/// # Errors
///
/// [`OpenError`], without saying what differs.
pub fn open(key: &Secret<32>, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError)?;
    XChaCha20Poly1305::new(key.expose().into())
        .decrypt(
            &(*nonce).into(),
            Payload {
                msg: ciphertext,
                aad,
            },
        )
        .map_err(|_| OpenError)
}

/// The associated data of the GroupInfo at `position` of `group`.
#[must_use]
pub fn group_info_aad(group: &GroupId, position: u64) -> [u8; 40] {
    let mut aad = [0; 40];
    let (id, number) = aad.split_at_mut(GroupId::LEN);
    id.copy_from_slice(group.as_bytes());
    number.copy_from_slice(&position.to_be_bytes());
    aad
}

/// The associated data of an external commit to `group`.
#[must_use]
pub const fn external_commit_aad(group: &GroupId) -> &[u8; 32] {
    group.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_opens_with_its_key_and_its_place_only() {
        let key = Secret::new([7; 32]);
        let sealed = seal(&key, b"here", b"text");

        assert_eq!(open(&key, b"here", &sealed), Ok(b"text".to_vec()));
        assert_eq!(open(&key, b"there", &sealed), Err(OpenError));
        assert_eq!(
            open(&Secret::new([8; 32]), b"here", &sealed),
            Err(OpenError)
        );
        assert_eq!(sealed.len(), 4 + OVERHEAD);
    }

    #[test]
    fn a_box_that_is_cut_or_changed_anywhere_does_not_open() {
        let key = Secret::new([7; 32]);
        let sealed = seal(&key, b"", b"text");

        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(
                open(&key, b"", &changed),
                Err(OpenError),
                "byte {at} changed"
            );
            assert_eq!(
                open(&key, b"", &sealed[..at]),
                Err(OpenError),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn the_group_info_of_another_position_does_not_open() {
        let (key, group) = (Secret::new([7; 32]), GroupId::new([1; 32]));
        let sealed = seal(&key, &group_info_aad(&group, 4), b"info");

        assert!(open(&key, &group_info_aad(&group, 4), &sealed).is_ok());
        assert!(open(&key, &group_info_aad(&group, 5), &sealed).is_err());
    }
}
