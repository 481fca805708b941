//! Spans of time with a unit: `250ms`, `10s`, `30d`.

use std::time::Duration;

use super::{Raw, Value, scalar};

const NEEDS: &str = "a whole number with a unit (ms, s, m, h, d), such as \"250ms\"";

impl Value for Duration {
    const KIND: &'static str = "duration";

    fn read(raw: &Raw) -> Result<Self, String> {
        parse(scalar(raw, NEEDS)?).ok_or_else(|| NEEDS.to_owned())
    }
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse("30 d"), Some(Duration::from_secs(2_592_000)));
        for bad in [
            "",
            "10",
            "ms",
            "1.5s",
            "-1s",
            "1w",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
