//! Times and spans as people write and read them.

use std::time::Duration;

const DAY: u64 = 86_400;

/// Reads `90s`, `15m`, `12h`, `7d`, `2w`.
///
/// # Errors
///
/// What a good value looks like.
pub(crate) fn parse_span(text: &str) -> Result<Duration, &'static str> {
    const NEEDS: &str = "needs a number with s, m, h, d or w, such as 7d";
    const RANGE: &str = "needs a time from 1s to 365d";
    let unit = text.chars().last().ok_or(NEEDS)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => DAY,
        'w' => 7 * DAY,
        _ => return Err(NEEDS),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| NEEDS)?;
    let span = number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or(RANGE)?;
    let is_inside = !span.is_zero() && span <= commucat_admin::INVITE_LASTS_MAX;
    if is_inside { Ok(span) } else { Err(RANGE) }
}

/// Writes unix milliseconds as `2026-11-23 22:46 UTC`.
pub(crate) fn show(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (year, month, day) = civil(seconds / DAY);
    let (hour, minute) = (seconds % DAY / 3_600, seconds % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// Writes a span in its largest unit that fits twice: `3 weeks`, `36 hours`.
pub(crate) fn show_span(span: Duration) -> String {
    let seconds = span.as_secs();
    for (unit, length) in [("day", DAY), ("hour", 3_600), ("minute", 60)] {
        if seconds >= 2 * length || seconds == length {
            let number = seconds / length;
            return format!("{number} {unit}{}", if number == 1 { "" } else { "s" });
        }
    }
    format!("{seconds} s")
}

/// The date of a day since 1970-01-01, by the algorithm `civil_from_days` of Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms".
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_numbers_with_a_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("7d", 604_800),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "7",
            "d",
            "0d",
            "-1d",
            "7dd",
            "366d",
            "99999999999999999999w",
            "7 d",
        ] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(show(seconds * 1_000), text);
        }
    }

    #[test]
    fn spans_are_shown_in_a_unit_that_people_count() {
        for (seconds, text) in [
            (30, "30 s"),
            (60, "1 minute"),
            (5_400, "90 minutes"),
            (86_400, "1 day"),
            (129_600, "36 hours"),
            (604_800, "7 days"),
        ] {
            assert_eq!(show_span(Duration::from_secs(seconds)), text);
        }
    }
}
