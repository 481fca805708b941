//! The files of the TLS certificate: that they fit, whom they name, how long they last.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use commucat_config::Config;
use commucat_proto::id::Domain;
use commucat_proto::time::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::check::{Check, Checks};
use crate::clock;
use crate::time::show;

const NAME: &str = "certificate";

/// A certificate that ends sooner is worth a word.
const RENEWAL_DAYS: u64 = 14;

/// Checks the files that the configuration names.
pub(super) fn check(config: &Config, checks: &mut Checks) {
    let (path, key) = (config.tls_certificate_path(), config.tls_key_path());
    if config.server.tls_certificate.is_none() && !path.exists() {
        let detail = "none yet; the server makes a self-signed one when it starts";
        checks.push(Check::skip(NAME, detail));
        return;
    }
    let chain = match fits(&path, &key) {
        Ok(chain) => chain,
        Err((detail, hint)) => {
            checks.push(Check::fail(NAME, detail, hint));
            return;
        }
    };
    let Some(said) = chain.first().and_then(|first| Said::read(first)) else {
        let detail = format!("`{}` begins with no certificate", path.display());
        checks.push(Check::fail(
            NAME,
            detail,
            "the server's own certificate comes first",
        ));
        return;
    };
    checks.push(names(config, &said));
    checks.push(validity(&said));
    checks.push(mode(&key));
}

/// Chain and key, if they belong together; otherwise what is wrong and what to do.
fn fits(path: &Path, key: &Path) -> Result<Vec<CertificateDer<'static>>, (String, &'static str)> {
    const READ: &str =
        "check `server.tls_certificate` and `server.tls_key`, and run this as the server's user";
    let unread = |path: &Path, error: rustls_pki_types::pem::Error| {
        (
            format!("`{}` is not PEM or cannot be read: {error}", path.display()),
            READ,
        )
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unread(path, error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, error))?;
    let provider = aws_lc_rs::default_provider();
    match CertifiedKey::from_der(chain.clone(), secret, &provider) {
        Ok(_) => Ok(chain),
        Err(error) => {
            let hint = "the key must be the one that the certificate was made for";
            Err((
                format!("certificate and key do not fit together: {error}"),
                hint,
            ))
        }
    }
}

fn names(config: &Config, said: &Said) -> Check {
    let endpoint = config.endpoint();
    let hosts = [host_of(&config.server.domain), host_of(&endpoint)];
    match hosts.iter().find(|host| !said.covers(host)) {
        None => {
            let kind = if said.is_self_signed {
                ", self-signed"
            } else {
                ""
            };
            Check::ok(NAME, format!("names {}{kind}", hosts[1]))
        }
        Some(missing) => Check::fail(
            NAME,
            format!("does not name {missing}"),
            "get one for this name, or set `server.endpoint` to the name that it has",
        ),
    }
}

fn validity(said: &Said) -> Check {
    let now = clock::now();
    let until = show(said.not_after.as_millis());
    if said.not_before > now {
        let from = show(said.not_before.as_millis());
        return Check::fail(
            NAME,
            format!("holds from {from} only"),
            "is the clock right?",
        );
    }
    if said.not_after <= now {
        return Check::fail(
            NAME,
            format!("expired {until}"),
            "renew it; the server reads it again",
        );
    }
    let days = said.not_after.since(now).as_secs() / 86_400;
    if days < RENEWAL_DAYS {
        let hint = "renew it; the server reads it again by itself";
        return Check::warn(NAME, format!("expires {until}, in {days} days"), hint);
    }
    Check::ok(NAME, format!("valid until {until}"))
}

fn mode(key: &Path) -> Check {
    const KEY: &str = "certificate key";
    match fs::metadata(key) {
        Err(error) => Check::fail(KEY, error.to_string(), "run this as the server's user"),
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o007 == 0 {
                return Check::ok(KEY, format!("mode {mode:o}"));
            }
            let hint = format!("chmod 600 '{}'", key.display());
            Check::warn(
                KEY,
                format!("everybody here may read it (mode {mode:o})"),
                hint,
            )
        }
    }
}

/// What a certificate says.
struct Said {
    not_before: Timestamp,
    not_after: Timestamp,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    is_self_signed: bool,
}

impl Said {
    fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let mut said = Self {
            not_before: moment(parsed.validity().not_before.timestamp()),
            not_after: moment(parsed.validity().not_after.timestamp()),
            names: Vec::new(),
            addresses: Vec::new(),
            is_self_signed: parsed.subject() == parsed.issuer(),
        };
        let alternative = parsed.subject_alternative_name().ok()?;
        for name in alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            said.take(name);
        }
        Some(said)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other kinds of names name no server"
    )]
    fn take(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                self.addresses.extend(v4.or(v6).ok());
            }
            _ => {}
        }
    }

    fn covers(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => name == host,
        })
    }
}

fn moment(unix_seconds: i64) -> Timestamp {
    Timestamp::from_millis(
        u64::try_from(unix_seconds)
            .unwrap_or(0)
            .saturating_mul(1_000),
    )
}

/// The host of a domain: without its port, without brackets.
pub(super) fn host_of(domain: &Domain) -> &str {
    let text = domain.as_str();
    if text.parse::<IpAddr>().is_ok() {
        return text;
    }
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => text,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}
