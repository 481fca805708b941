//! The keys that another domain may sign with.

use std::time::Duration;

use commucat_proto::id::DomainKey;
use commucat_proto::time::Timestamp;

use crate::batch::KeyId;

/// How long a domain key stays accepted after it was changed (CCP-1 section 8).
pub const PREVIOUS_KEY_ACCEPTED: Duration = Duration::from_secs(30 * 86_400);

/// A domain's pinned key, and the one before it while that is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerKeys {
    current: DomainKey,
    previous: Option<(DomainKey, Timestamp)>,
}

impl PeerKeys {
    /// One key.
    #[must_use]
    pub const fn new(current: DomainKey) -> Self {
        Self {
            current,
            previous: None,
        }
    }

    /// The same with a key before it, accepted up to `until`.
    #[must_use]
    pub const fn with_previous(self, key: DomainKey, until: Timestamp) -> Self {
        Self {
            current: self.current,
            previous: Some((key, until)),
        }
    }

    /// The pinned key.
    #[must_use]
    pub const fn current(&self) -> &DomainKey {
        &self.current
    }

    /// Every key that a signature may be by at `now`, the current one first.
    #[must_use]
    pub fn accepted(&self, now: Timestamp) -> Vec<DomainKey> {
        let previous = self.previous.filter(|(_, until)| now <= *until);
        [Some(self.current), previous.map(|(key, _)| key)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The key of this name, if it is accepted at `now`.
    pub(crate) fn find(&self, id: KeyId, now: Timestamp) -> Option<DomainKey> {
        self.accepted(now)
            .into_iter()
            .find(|key| KeyId::of(key) == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_before_is_accepted_until_its_time_is_over() {
        let (old, new) = (DomainKey::new([1; 32]), DomainKey::new([2; 32]));
        let until = Timestamp::from_millis(1_000);
        let keys = PeerKeys::new(new).with_previous(old, until);

        assert_eq!(keys.accepted(until), [new, old]);
        assert_eq!(keys.accepted(Timestamp::from_millis(1_001)), [new]);
        assert_eq!(keys.find(KeyId::of(&old), until), Some(old));
        assert_eq!(
            keys.find(KeyId::of(&old), Timestamp::from_millis(1_001)),
            None
        );
        assert_eq!(PeerKeys::new(new).find(KeyId::of(&old), until), None);
    }
}
