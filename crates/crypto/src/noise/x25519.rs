//! X25519 for snow, by aws-lc: snow's own accepts public keys that give an all-zero result.
//!
//! Because the check sits in the function itself, it covers each DH of a handshake, with static and
//! ephemeral keys alike (CCP-1 section 3).

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use commucat_proto::id::NoiseKey;
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Provides [`Curve`] and leaves the rest to snow.
pub(super) struct Resolver;

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        None
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        (*choice == DHChoice::Curve25519).then(|| Box::new(Curve::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, _choice: &HashChoice) -> Option<Box<dyn Hash>> {
        None
    }

    fn resolve_cipher(&self, _choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        None
    }
}

/// One key pair; without a key until snow sets or generates one.
#[derive(Default)]
struct Curve {
    key: Option<PrivateKey>,
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Curve {
    fn take(&mut self, private: Zeroizing<[u8; 32]>) -> Result<(), Error> {
        let key =
            PrivateKey::from_private_key(&X25519, private.as_slice()).map_err(|_| Error::Dh)?;
        let public = key.compute_public_key().map_err(|_| Error::Dh)?;
        self.public = public.as_ref().try_into().map_err(|_| Error::Dh)?;
        self.key = Some(key);
        self.private = private;
        Ok(())
    }
}

impl Dh for Curve {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        // snow gives this no way to fail: without a key every DH fails.
        self.key = None;
        if let Ok(private) = privkey.try_into() {
            drop(self.take(Zeroizing::new(private)));
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(private.as_mut_slice())?;
        self.take(private)
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_slice()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let key = self.key.as_ref().ok_or(Error::Dh)?;
        // snow hands over its whole buffer, which has room for longer keys.
        let pubkey = pubkey.get(..32).ok_or(Error::Dh)?;
        agree(
            key,
            UnparsedPublicKey::new(&X25519, pubkey),
            Error::Dh,
            |shared| {
                out.get_mut(..shared.len())
                    .ok_or(Error::Dh)?
                    .copy_from_slice(shared);
                Ok(())
            },
        )
    }
}

/// The public key of `private`.
pub(super) fn public_of(private: &Secret<32>) -> [u8; 32] {
    let mut curve = Curve::default();
    #[expect(clippy::expect_used, reason = "any 32 bytes are an X25519 private key")]
    curve
        .take(Zeroizing::new(*private.expose()))
        .expect("any 32 bytes are a private key");
    curve.public
}

/// Whether `key` gives the all-zero result with every private key. Such a key proves nothing and is
/// neither registered nor accepted in a certificate.
#[must_use]
pub fn is_low_order(key: &NoiseKey) -> bool {
    // A clamped scalar is a multiple of eight, the order of all these points: one is as good as any.
    let mut curve = Curve::default();
    curve.set(&[1; 32]);
    curve.dh(key.as_bytes(), &mut [0; 32]).is_err()
}
