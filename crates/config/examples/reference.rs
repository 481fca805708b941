//! Prints the example files: `cargo run -p commucat-config --example reference > commucat.toml`,
//! and with the argument `env` the file `.env.sample`.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let text = match std::env::args().nth(1).as_deref() {
        Some("env") => commucat_config::environment_sample(),
        Some(_) | None => commucat_config::example(),
    };
    io::stdout().write_all(text.as_bytes())
}
