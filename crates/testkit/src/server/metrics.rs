//! The server's counters, read from its page in the text format of Prometheus.

use std::collections::HashSet;
use std::fmt;

/// One reading of `/metrics`.
#[derive(Clone)]
pub struct Metrics(String);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({} bytes)", self.0.len())
    }
}

impl Metrics {
    /// Takes a page.
    #[must_use]
    pub const fn new(page: String) -> Self {
        Self(page)
    }

    /// The page as it is.
    #[must_use]
    pub fn page(&self) -> &str {
        &self.0
    }

    /// Every value that is another than `before`, a line each.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> String {
        let old: HashSet<_> = before.0.lines().collect();
        let new = self.0.lines().filter(|line| !old.contains(line));
        new.collect::<Vec<_>>().join("\n")
    }

    /// The sum of all values of a metric whose labels contain `label` (empty: all of them).
    #[must_use]
    pub fn sum(&self, name: &str, label: &str) -> u64 {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let values = lines.filter_map(|rest| {
            let (labels, value) = rest.rsplit_once(' ')?;
            let is_name = labels.is_empty() || labels.starts_with('{');
            (is_name && labels.contains(label)).then_some(value)
        });
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_name_are_added_and_longer_names_are_others() {
        let page = "a_total{x=\"1\"} 3\na_total{x=\"2\"} 4\na_total_more 9\nb 5\n";
        let metrics = Metrics::new(page.to_owned());

        assert_eq!(metrics.sum("a_total", ""), 7);
        assert_eq!(metrics.sum("a_total", "x=\"2\""), 4);
        assert_eq!(metrics.sum("b", ""), 5);
        assert_eq!(metrics.sum("c", ""), 0);
    }
}
