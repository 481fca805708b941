//! Where a database is, as whom and how safely it is spoken to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

/// Longest that one address may take to accept a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(4);
/// How long what was sent may stay unacknowledged by the database's machine.
const SILENCE: Duration = Duration::from_secs(10);

/// A URL of PostgreSQL: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`.
///
/// The words of `sslmode` are PostgreSQL's: `disable`, `prefer` (its default), `require`, and
/// `verify-full`, which alone keeps others from posing as the database. `sslrootcert` names a file of
/// authorities in PEM; without it those of the system count. Of several hosts the first that takes
/// writes is used. It may hold a password and shows nothing.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(super) config: Box<Config>,
    pub(super) tls: Tls,
}

/// How a connection is protected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Tls {
    /// Perhaps encrypted; whoever answers is believed.
    Unverified,
    /// Encrypted, and the certificate names the host.
    Verified {
        /// A file of authorities; `None`: the system's.
        authorities: Option<PathBuf>,
    },
}

/// Why a text is no URL of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlError {
    /// It begins otherwise.
    #[error("begins neither with `sqlite:` nor with `postgres://`")]
    Scheme,
    /// No directory.
    #[error("names no directory")]
    Directory,
    /// It cannot be read, or names an option that is not known.
    #[error("is not of the form `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE`")]
    Form,
    /// No host.
    #[error("names no host")]
    Host,
    /// A word that PostgreSQL or this program does not have.
    #[error("has another `sslmode` than disable, prefer, require or verify-full")]
    SslMode,
    /// Authorities that nothing would ask.
    #[error("has `sslrootcert`, which needs `sslmode=verify-full`")]
    Authorities,
}

impl FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(UrlError::Scheme);
        }
        let (address, options) = text.split_once('?').unwrap_or((text, ""));
        let mut mode = None;
        let mut authorities = None;
        let mut rest = Vec::new();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", "system")) => {}
                Some(("sslrootcert", value)) => {
                    let path = percent_decode_str(value).decode_utf8();
                    authorities = Some(PathBuf::from(&*path.map_err(|_| UrlError::Form)?));
                }
                _ => rest.push(option),
            }
        }
        // The driver's own words for what is wrong may repeat parts of the text.
        let mut config: Config = format!("{address}?{}", rest.join("&"))
            .parse()
            .map_err(|_| UrlError::Form)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(UrlError::Host);
        }
        let tls = match mode.unwrap_or("prefer") {
            "verify-full" => Tls::Verified { authorities },
            "disable" | "prefer" | "require" if authorities.is_some() => {
                return Err(UrlError::Authorities);
            }
            "disable" | "prefer" | "require" => Tls::Unverified,
            _ => return Err(UrlError::SslMode),
        };
        config.ssl_mode(match mode.unwrap_or("prefer") {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            _ => SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("commucat");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WAIT);
        }
        config
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE)
            .keepalives_interval(SILENCE / 5)
            .keepalives_retries(3)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(Self {
            config: Box::new(config),
            tls,
        })
    }
}

impl PostgresUrl {
    /// The same under another name than servers have, as PostgreSQL shows it of a session.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.config.application_name(name);
        self
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresUrl")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PostgresUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn sslmode_decides_about_encryption_and_trust() {
        let plain = parse("postgres://u:p@localhost/d").unwrap();
        let closed = parse("postgres://u@localhost/d?sslmode=disable").unwrap();
        let url =
            "postgresql://u@db.example:5433/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem";
        let verified = parse(url).unwrap();

        assert_eq!(plain.tls, Tls::Unverified);
        assert_eq!(plain.config.get_ssl_mode(), SslMode::Prefer);
        assert_eq!(closed.config.get_ssl_mode(), SslMode::Disable);
        assert_eq!(verified.config.get_ssl_mode(), SslMode::Require);
        let authorities = Some(PathBuf::from("/etc/ca.pem"));
        assert_eq!(verified.tls, Tls::Verified { authorities });
    }

    #[test]
    fn a_wrong_url_is_refused_with_its_reason() {
        let wrong = |text| parse(text).unwrap_err();

        assert_eq!(wrong("mysql://localhost/d"), UrlError::Scheme);
        assert_eq!(wrong("postgres://u@localhost:port/d"), UrlError::Form);
        assert_eq!(wrong("postgres://localhost/d?colour=blue"), UrlError::Form);
        assert_eq!(
            wrong("postgres://localhost/d?sslmode=verify-ca"),
            UrlError::SslMode
        );
        assert_eq!(
            wrong("postgres://localhost/d?sslmode=require&sslrootcert=x"),
            UrlError::Authorities
        );
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let url = parse("postgres://person:secret@localhost/d").unwrap();

        assert_eq!(format!("{url:?}"), "PostgresUrl");
    }
}
