//! Secret bytes: wiped when dropped, compared in constant time, never shown.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes over `bytes`. The caller's copy, if it kept one, is the caller's to wipe.
    #[must_use]
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// Makes a fresh secret from the operating system's generator.
    #[must_use]
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// Takes a secret out of `bytes`; `None` unless there are exactly `N`.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes themselves. Not for logs, and not to be copied into anything that is not wiped.
    #[must_use]
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether `left` and `right` are the same bytes, in a time that depends on their lengths only.
#[must_use]
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// `N` bytes from the operating system's generator, for keys, nonces and ids.
///
/// # Panics
///
/// If the operating system has no generator. Going on without one would be worse than stopping.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::expect_used,
        reason = "no key may ever be made without a generator"
    )]
    getrandom::fill(&mut bytes).expect("the operating system generates random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_secret_does_not_show_it() {
        assert_eq!(format!("{:?}", Secret::new([0xab; 32])), "Secret(..)");
    }

    #[test]
    fn secrets_are_equal_when_their_bytes_are() {
        assert_eq!(Secret::new([1; 32]), Secret::new([1; 32]));
        assert_ne!(Secret::new([1; 32]), Secret::new([2; 32]));
        assert_eq!(Secret::<32>::from_slice(&[1; 31]), None);
    }

    #[test]
    fn random_secrets_differ() {
        assert_ne!(Secret::<32>::random(), Secret::random());
    }
}
