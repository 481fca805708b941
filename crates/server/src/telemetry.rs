//! Log lines on stderr. They carry tags, sizes and counts, never ids, addresses, tokens or payload.

use std::io;

use commucat_config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `server.log` is not a filter.
    #[error("`server.log` is not a level or a list of filters")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Something else has set up logging already.
    #[error("logging is set up twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Sends log lines of this process to stderr.
///
/// Libraries that log what peers send, or their addresses, are silenced whatever the filter says.
///
/// # Errors
///
/// [`TelemetryError`]; nothing is set up then.
pub fn start(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let filter = filter_of(filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written, on a disk that is full, would be told of on stderr as well, by a
        // macro that panics where that fails, in whichever task it was.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(is_terminal()).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    }
    .map_err(TelemetryError::Twice)
}

/// Checks `server.log` without setting anything up.
///
/// # Errors
///
/// [`TelemetryError::Filter`].
pub fn check(filter: &str) -> Result<(), TelemetryError> {
    filter_of(filter).map(drop)
}

/// Crates below us whose lines may hold addresses, headers, frames or SQL.
const SILENT: [&str; 13] = [
    "pingora_core",
    "pingora_runtime",
    "h2",
    "hyper",
    "hyper_util",
    "rustls",
    "tokio_rustls",
    "tungstenite",
    "tokio_tungstenite",
    "rusqlite",
    "tokio_postgres",
    "tokio_postgres_rustls",
    "deadpool",
];

fn filter_of(text: &str) -> Result<EnvFilter, TelemetryError> {
    let mut filter = EnvFilter::try_new(text).map_err(TelemetryError::Filter)?;
    for target in SILENT {
        let directive = format!("{target}=off")
            .parse()
            .map_err(TelemetryError::Filter)?;
        filter = filter.add_directive(directive);
    }
    Ok(filter)
}

fn is_terminal() -> bool {
    use std::io::IsTerminal as _;
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_below_stay_silent_whatever_the_filter_says() {
        let shown = filter_of("trace,h2=trace").unwrap().to_string();

        for target in SILENT {
            assert!(shown.contains(&format!("{target}=off")), "{shown}");
        }
        assert!(!shown.contains("h2=trace"), "{shown}");
    }
}
