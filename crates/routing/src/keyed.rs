//! Maps that every message passes: hashed cheaply, and with a secret key.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use foldhash::SharedSeed;
use foldhash::quality::{FoldHasher, SeedableRandomState};

/// A map by a keyed hash that is cheaper than SipHash.
///
/// For keys that strangers choose: what collides under one key does not under another, and nobody
/// sees the hashes. The key is the system's randomness, new for each map.
pub type KeyedMap<K, V> = HashMap<K, V, Keyed>;

/// See [`KeyedMap`].
#[derive(Clone, Debug)]
pub struct Keyed(SeedableRandomState);

impl Default for Keyed {
    fn default() -> Self {
        let key = RandomState::new().hash_one(0);
        Self(SeedableRandomState::with_seed(
            key,
            SharedSeed::global_random(),
        ))
    }
}

impl BuildHasher for Keyed {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_has_a_key_of_its_own() {
        let hash = || Keyed::default().hash_one([7; 16]);

        assert_ne!(hash(), hash());
    }
}
