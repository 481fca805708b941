//! What the demonstration counted, and what it had promised.

use std::time::Duration;

use serde::Serialize;

/// MLS suite that conversations must have: post-quantum, by default.
pub(crate) const SUITE: u16 = 0x004E;
/// Longest that it may take.
const SECONDS_MAX: f64 = 120.0;

/// The figures, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// MLS suite of the conversation.
    pub(crate) suite: String,
    /// Messages sent around the kills.
    pub(crate) sent: usize,
    /// Of these, shown on every device of the other side.
    pub(crate) shown: usize,
    /// Of these, missing on a device.
    pub(crate) lost: usize,
    /// Shown again on a device.
    pub(crate) twice: usize,
    /// Whether the ticks of "hi" were `stored`, then `delivered`.
    pub(crate) stored_then_delivered: bool,
    /// Times that a server was killed.
    pub(crate) kills: usize,
    /// Rows in the servers' stores at the end.
    pub(crate) rows: u64,
    /// Places in the servers' files where a text, a name or an address was found.
    pub(crate) pii_hits: usize,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
}

impl Figures {
    /// With the time that it took.
    pub(crate) fn after(mut self, time: Duration) -> Self {
        self.seconds = (time.as_secs_f64() * 10.0).round() / 10.0;
        self
    }

    /// The promises that were not kept.
    pub(crate) fn broken(&self) -> Vec<&'static str> {
        let promises = [
            (
                self.suite == suite_name(SUITE),
                "the MLS suite is post-quantum",
            ),
            (self.sent == crate::burst::MESSAGES, "200 messages are sent"),
            (self.shown == self.sent, "all of them are shown"),
            (self.lost == 0, "none is lost"),
            (self.twice == 0, "none is shown twice"),
            (
                self.stored_then_delivered,
                "ticks are `stored`, then `delivered`",
            ),
            (self.kills == 2, "each server is killed once"),
            (self.rows > 0, "the stores have rows to look at"),
            (
                self.pii_hits == 0,
                "the servers' files hold nothing personal",
            ),
            (self.seconds < SECONDS_MAX, "two minutes are enough"),
        ];
        let broken = promises.into_iter().filter(|(is_kept, _)| !is_kept);
        broken.map(|(_, promise)| promise).collect()
    }
}

/// A suite in words.
pub(crate) fn suite_name(suite: u16) -> String {
    match suite {
        0x004E => "0x004E X25519 + ML-KEM-768, AES-256-GCM, SHA-384, Ed25519".to_owned(),
        0x0003 => "0x0003 X25519, ChaCha20-Poly1305, SHA-256, Ed25519".to_owned(),
        other => format!("{other:#06X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Figures {
        Figures {
            suite: suite_name(SUITE),
            sent: 200,
            shown: 200,
            lost: 0,
            twice: 0,
            stored_then_delivered: true,
            kills: 2,
            rows: 40,
            pii_hits: 0,
            seconds: 9.0,
        }
    }

    #[test]
    fn figures_as_promised_break_nothing() {
        assert_eq!(kept().broken(), Vec::<&str>::new());
    }

    #[test]
    fn every_figure_is_a_promise() {
        let changes: [fn(&mut Figures); 10] = [
            |figures| figures.suite = suite_name(3),
            |figures| figures.sent = 199,
            |figures| figures.shown = 199,
            |figures| figures.lost = 1,
            |figures| figures.twice = 1,
            |figures| figures.stored_then_delivered = false,
            |figures| figures.kills = 0,
            |figures| figures.rows = 0,
            |figures| figures.pii_hits = 1,
            |figures| figures.seconds = 121.0,
        ];
        for change in changes {
            let mut figures = kept();
            change(&mut figures);
            assert!(!figures.broken().is_empty());
        }
    }

    #[test]
    fn json_has_the_documented_names() {
        let json = serde_json::to_string(&kept()).unwrap();

        assert_eq!(
            json,
            r#"{"suite":"0x004E X25519 + ML-KEM-768, AES-256-GCM, SHA-384, Ed25519","sent":200,"shown":200,"lost":0,"twice":0,"stored_then_delivered":true,"kills":2,"rows":40,"pii_hits":0,"seconds":9.0}"#
        );
    }
}
