//! Numbers of bytes with a unit: `256KiB`, `64MiB`.

use super::{Raw, Value, scalar};

const NEEDS: &str = "a whole number with a unit (B, KiB, MiB, GiB), such as \"64MiB\"";

/// A number of bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Size(u64);

impl Size {
    /// A size of `bytes`.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory, the greatest one if it does not fit.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether it is zero.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Value for Size {
    const KIND: &'static str = "size";

    fn read(raw: &Raw) -> Result<Self, String> {
        parse(scalar(raw, NEEDS)?).ok_or_else(|| NEEDS.to_owned())
    }
}

fn parse(text: &str) -> Option<Size> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: u64 = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_binary_unit() {
        assert_eq!(parse("64MiB"), Some(Size::new(67_108_864)));
        assert_eq!(parse("100 B"), Some(Size::new(100)));
        for bad in [
            "",
            "64",
            "MiB",
            "1.5MiB",
            "64MB",
            "-1B",
            "99999999999999GiB",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
