//! The TLS certificate: made on first start, read, and looked into.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use commucat_proto::id::Domain;
use commucat_proto::time::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or holds something else.
    #[error("{} holds no {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key do not belong together, or the key has a kind that TLS 1.3 lacks.
    #[error("certificate and key do not fit together")]
    Mismatch(#[source] rustls::Error),
    /// The certificate is somebody else's: no client would take it for this server's.
    #[error("{} is not for `{}`, the domain of this server, but for: {names}", path.display(), domain.as_str())]
    Name {
        /// The certificate's file.
        path: PathBuf,
        /// `server.domain`
        domain: Domain,
        /// What it names.
        names: String,
    },
    /// A self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate")]
    Make(#[source] rcgen::Error),
}

/// What a certificate says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Certificate {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    ///
    /// [`CertificateError::File`] or [`CertificateError::Content`].
    pub fn read(path: &Path) -> Result<Self, CertificateError> {
        let chain = chain(path)?;
        let content = || CertificateError::Content {
            path: path.to_owned(),
            what: "certificate",
        };
        let first = chain.first().ok_or_else(content)?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|_| content())?;
        let mut own = Self {
            not_before: moment(parsed.validity().not_before.timestamp()),
            not_after: moment(parsed.validity().not_after.timestamp()),
            names: Vec::new(),
            addresses: Vec::new(),
        };
        let alternative = parsed.subject_alternative_name().map_err(|_| content())?;
        for name in alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            own.take(name);
        }
        Ok(own)
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

    /// Whether a client that connects to `host` (without port) accepts its names.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => name == host,
        })
    }

    /// What it names, for people.
    fn all_names(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let all: Vec<_> = self.names.iter().cloned().chain(addresses).collect();
        if all.is_empty() {
            // A common name is not enough: clients have not read it for years (RFC 9525).
            return "nothing, it has no subjectAltName".to_owned();
        }
        all.join(", ")
    }
}

fn moment(unix_seconds: i64) -> Timestamp {
    Timestamp::from_millis(
        u64::try_from(unix_seconds)
            .unwrap_or(0)
            .saturating_mul(1000),
    )
}

/// The host of a domain: without its port, without brackets.
#[must_use]
pub fn host_of(domain: &Domain) -> &str {
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

/// Makes a self-signed certificate for `domain` and this machine unless both files exist; returns
/// whether it made one.
///
/// # Errors
///
/// [`CertificateError`]; no file is left half-written, because each is written beside its place
/// and moved.
pub fn ensure(certificate: &Path, key: &Path, domain: &Domain) -> Result<bool, CertificateError> {
    if certificate.exists() && key.exists() {
        return Ok(false);
    }
    let mut names: Vec<String> = vec![host_of(domain).to_owned()];
    for name in ["localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    let pair = rcgen::KeyPair::generate().map_err(CertificateError::Make)?;
    let mut params = rcgen::CertificateParams::new(names).map_err(CertificateError::Make)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "CommuCat self-signed");
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let made = params.self_signed(&pair).map_err(CertificateError::Make)?;
    write(key, &pair.serialize_pem(), 0o600)?;
    write(certificate, &made.pem(), 0o644)?;
    Ok(true)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let failed = |source| CertificateError::File {
        path: path.to_owned(),
        source,
    };
    let beside = path.with_extension("new");
    if let Some(directory) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

/// Reads chain and key and checks that they belong together and to `domain`.
pub(super) fn load(
    certificate: &Path,
    key: &Path,
    domain: &Domain,
) -> Result<CertifiedKey, CertificateError> {
    let shown = Certificate::read(certificate)?;
    if !shown.covers(host_of(domain)) {
        return Err(CertificateError::Name {
            path: certificate.to_owned(),
            domain: domain.clone(),
            names: shown.all_names(),
        });
    }
    let chain = chain(certificate)?;
    let secret = read(key)?;
    let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|_| CertificateError::Content {
        path: key.to_owned(),
        what: "private key in PEM",
    })?;
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, secret, &provider).map_err(CertificateError::Mismatch)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let content = || CertificateError::Content {
        path: path.to_owned(),
        what: "certificate in PEM",
    };
    let text = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| content())?;
    if chain.is_empty() {
        Err(content())
    } else {
        Ok(chain)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_certificate_made_on_first_start_names_domain_and_machine() {
        let place = tempfile::tempdir().unwrap();
        let (certificate, key) = (
            place.path().join("tls/c.pem"),
            place.path().join("tls/k.pem"),
        );
        let domain = Domain::parse("chat.example.org:8443").unwrap();

        assert!(ensure(&certificate, &key, &domain).unwrap());
        let made = Certificate::read(&certificate).unwrap();

        for host in ["chat.example.org", "localhost", "127.0.0.1", "::1", "[::1]"] {
            assert!(made.covers(host), "{host}");
        }
        assert!(!made.covers("example.org") && !made.covers("127.0.0.2"));
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!ensure(&certificate, &key, &domain).unwrap());
        assert!(load(&certificate, &key, &domain).is_ok());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str| place.path().join(name);
        let domain = Domain::parse("localhost").unwrap();
        ensure(&file("a.crt"), &file("a.key"), &domain).unwrap();
        ensure(&file("b.crt"), &file("b.key"), &domain).unwrap();

        let error = load(&file("a.crt"), &file("b.key"), &domain)
            .map(drop)
            .unwrap_err();

        assert!(matches!(error, CertificateError::Mismatch(_)), "{error}");
    }

    #[test]
    fn a_certificate_of_another_domain_is_refused_with_what_it_names() {
        let place = tempfile::tempdir().unwrap();
        let (certificate, key) = (place.path().join("a.crt"), place.path().join("a.key"));
        let theirs = Domain::parse("other.example").unwrap();
        let ours = Domain::parse("chat.example:8443").unwrap();
        ensure(&certificate, &key, &theirs).unwrap();

        let error = load(&certificate, &key, &ours).map(drop).unwrap_err();

        let expected = format!(
            "{} is not for `chat.example:8443`, the domain of this server, but for: other.example, \
             localhost, 127.0.0.1, ::1",
            certificate.display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let certificate = Certificate {
            not_before: Timestamp::ZERO,
            not_after: Timestamp::ZERO,
            names: vec!["*.example.org".to_owned()],
            addresses: Vec::new(),
        };

        assert!(certificate.covers("chat.example.org"));
        assert!(!certificate.covers("a.chat.example.org") && !certificate.covers("example.org"));
    }

    #[test]
    fn the_host_of_a_domain_has_no_port() {
        for (domain, host) in [
            ("localhost", "localhost"),
            ("a.b:8443", "a.b"),
            ("[::1]:8443", "::1"),
            ("::1", "::1"),
            ("127.0.0.1:8443", "127.0.0.1"),
        ] {
            assert_eq!(host_of(&Domain::parse(domain).unwrap()), host);
        }
    }
}
