//! Why an operation on a chat failed.

use super::store::StoreError;

/// Why an operation on a chat failed. Nothing of the operation stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// This device has no such group.
    #[error("no such group on this device")]
    UnknownGroup,
    /// The group exists already.
    #[error("the group exists already on this device")]
    Exists,
    /// This device is not (or not yet, or no longer) a member.
    #[error("this device is not a member of the group")]
    NotMember,
    /// The roles of the group do not allow it.
    #[error("the group's roles do not allow this")]
    Forbidden,
    /// More than 50 devices at once.
    #[error("{0} devices to add at once, at most 50")]
    TooMany(usize),
    /// A key package that was claimed cannot be used.
    #[error("key package cannot be used: {0}")]
    Package(&'static str),
    /// The own certificate does not fit.
    #[error("device certificate cannot be used: {0}")]
    Identity(&'static str),
    /// A Welcome cannot be used.
    #[error("welcome cannot be used: {0}")]
    Welcome(&'static str),
    /// No GroupInfo opens with the group key that is known.
    #[error("no group info opens with the known group key")]
    NoGroupInfo,
    /// The hub's answer is not about what was proposed.
    #[error("no commit is waiting for position {0}")]
    NotProposed(u64),
    /// The bundle is larger than the hub takes.
    #[error("bundle of {0} bytes is larger than the hub takes")]
    TooLarge(usize),
    /// A copy of an entry that would be skipped: the log has to be asked.
    #[error("a copy of an entry does not fit: {0}")]
    Copy(super::validity::Invalid),
    /// The group's state would not be valid for the other members. A mistake of ours.
    #[error("own commit breaks the rules of the group: {0}")]
    OwnCommit(super::validity::Invalid),
    /// The stored state is damaged.
    #[error("chat state")]
    Store(#[from] StoreError),
    /// MLS refused.
    #[error("mls: {step}")]
    Mls {
        /// What was done.
        step: &'static str,
        /// What OpenMLS says. Holds no keys and no content.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A value that MLS or CBOR should always be able to encode was not.
    #[error("{0} does not encode")]
    Encode(&'static str),
}

impl ChatError {
    /// Wraps an error of OpenMLS with what was being done.
    pub(super) fn mls<E>(step: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Mls {
            step,
            source: Box::new(source),
        }
    }
}
