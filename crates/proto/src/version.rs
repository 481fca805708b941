//! Which version two sides speak, and whether somebody in between made them choose a lower one.

/// The version that this crate implements.
pub const VERSION: u64 = 2;
/// Every version that this crate can speak.
pub const SUPPORTED: &[u64] = &[VERSION];

/// The highest version that both lists hold.
#[must_use]
pub fn highest_common(ours: &[u64], theirs: &[u64]) -> Option<u64> {
    ours.iter()
        .copied()
        .filter(|version| theirs.contains(version))
        .max()
}

/// The lists that travelled in clear hid a version that both sides speak (CCP-1 section 3).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("version {chosen} is in use, but both sides speak {possible}")]
pub struct Downgrade {
    /// The version in use.
    pub chosen: u64,
    /// The highest one that both sides speak, by the sealed list.
    pub possible: u64,
}

/// Compares the version in use with the list that the other side repeated sealed.
///
/// # Errors
///
/// [`Downgrade`] if both sides speak a higher one; the connection must close.
pub fn check_sealed(chosen: u64, ours: &[u64], sealed: &[u64]) -> Result<(), Downgrade> {
    match highest_common(ours, sealed) {
        Some(possible) if possible > chosen => Err(Downgrade { chosen, possible }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(highest_common(&[2, 3, 5], &[1, 3, 2, 4]), Some(3));
        assert_eq!(highest_common(&[2], &[1, 3]), None);
    }

    #[test]
    fn a_list_that_was_shortened_in_clear_is_found_out() {
        assert_eq!(
            check_sealed(2, &[2, 3], &[2, 3]),
            Err(Downgrade {
                chosen: 2,
                possible: 3
            })
        );
        assert_eq!(check_sealed(3, &[2, 3], &[2, 3]), Ok(()));
    }
}
