//! The list of all metrics for operators, made from the page that the server renders.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Metrics;

const HEAD: &str = "\
# Metrics

Made from the code by `cargo run -p commucat-server --example metrics -- write`; a test compares it, another compares it
with what a running server answers at `/metrics`. How to scrape it, and what to watch, is told in
[SERVER_GUIDE.md](SERVER_GUIDE.md). A dashboard and alert rules are in [`ops/monitoring`](../ops/monitoring).

Every label has a closed set of values, all of them shown from the start. No label names a device, an account, a group,
a domain or an address.

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
";

/// One metric.
#[derive(Debug, Default)]
struct Row {
    kind: String,
    unit: String,
    help: String,
    labels: BTreeMap<String, Vec<String>>,
}

/// The page `docs/METRICS.md`.
#[must_use]
pub fn page() -> String {
    let mut text = HEAD.to_owned();
    for (name, row) in rows(&Metrics::new().render()) {
        let shown = match row.kind.as_str() {
            "counter" => format!("`{name}_total`"),
            "histogram" => format!("`{name}_bucket`, `_sum`, `_count`"),
            _ => format!("`{name}`"),
        };
        let labels: Vec<_> = row
            .labels
            .iter()
            .map(|(label, values)| format!("`{label}`: {}", values.join(", ")))
            .collect();
        let Row {
            kind, unit, help, ..
        } = row;
        let labels = labels.join("; ");
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "| {shown} | {kind} | {unit} | {labels} | {help} |");
    }
    text
}

/// Reads a rendered page, in the order of the names.
fn rows(rendered: &str) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for line in rendered.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) => {
                let row = rows.entry(name.to_owned()).or_default();
                match what {
                    "HELP" => rest.clone_into(&mut row.help),
                    "TYPE" => rest.clone_into(&mut row.kind),
                    "UNIT" => rest.clone_into(&mut row.unit),
                    _ => {}
                }
            }
            _ => sample(line, &mut rows),
        }
    }
    rows
}

/// Takes the labels of a line `name{label="value"} number`.
fn sample(line: &str, rows: &mut BTreeMap<String, Row>) {
    let Some((name, rest)) = line.split_once('{') else {
        return;
    };
    let Some((_, row)) = rows
        .iter_mut()
        .rev()
        .find(|(own, _)| name.strip_suffix("_total").unwrap_or(name) == own.as_str())
    else {
        return;
    };
    let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
    for pair in labels.split(',') {
        if let Some((label, value)) = pair.split_once('=') {
            let values = row.labels.entry(label.to_owned()).or_default();
            let value = value.trim_matches('"').to_owned();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    row.labels.values_mut().for_each(|values| values.sort());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_the_repository_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md");

        // `cargo run -p commucat-server --example metrics -- write` makes it anew.
        assert_eq!(std::fs::read_to_string(path).unwrap(), page());
    }

    #[test]
    fn a_page_is_read_with_its_units_and_labels() {
        let rows = rows(
            "# HELP a_bytes Of something.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
             a_bytes_total{way=\"out\"} 1\na_bytes_total{way=\"in\"} 0\n# EOF\n",
        );

        let row = rows.get("a_bytes").unwrap();
        assert_eq!(
            (row.kind.as_str(), row.unit.as_str(), row.help.as_str()),
            ("counter", "bytes", "Of something.")
        );
        assert_eq!(row.labels.get("way").unwrap(), &["in", "out"]);
    }

    #[test]
    fn every_metric_says_what_it_is_and_names_its_unit() {
        for (name, row) in rows(&Metrics::new().render()) {
            assert!(row.help.len() > 10, "{name} has no help");
            assert!(name.starts_with("commucat_"), "{name}");
            for unit in ["seconds", "bytes"] {
                assert_eq!(name.ends_with(unit), row.unit == unit, "{name}");
            }
        }
    }
}
