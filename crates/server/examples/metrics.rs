//! Prints the list of metrics: `cargo run -p commucat-server --example metrics`; with the argument `write`
//! it goes to `docs/METRICS.md`.

use std::io::{self, Write as _};

use commucat_server::metrics::page;

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("write") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md");
        return std::fs::write(path, page());
    }
    io::stdout().write_all(page().as_bytes())
}
