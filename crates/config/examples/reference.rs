//! Prints the example file: `cargo run -p commucat-config --example reference`, with the argument `env` the
//! file `.env.sample`, with `page` the reference. `write` writes all of them into the repository.

use std::io::{self, Write as _};
use std::path::Path;

use commucat_config::{environment_sample, example, page};

fn main() -> io::Result<()> {
    let text = match std::env::args().nth(1).as_deref() {
        Some("env") => environment_sample(),
        Some("page") => page(),
        Some("write") => return write(),
        Some(_) | None => example(),
    };
    io::stdout().write_all(text.as_bytes())
}

fn write() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::write(root.join("commucat.toml"), example())?;
    std::fs::write(root.join(".env.sample"), environment_sample())?;
    std::fs::write(root.join("docs/CONFIGURATION.md"), page())
}
