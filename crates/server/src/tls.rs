//! TLS of the listeners: 1.3 only, X25519MLKEM768 first, the certificate exchangeable while running.

pub mod certificate;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use commucat_proto::id::Domain;
use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;

use self::certificate::CertificateError;

/// The certificate in use and where it comes from. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    domain: Domain,
    current: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity {
    /// Reads certificate chain and key, which must name `domain`.
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn load(
        certificate: PathBuf,
        key: PathBuf,
        domain: &Domain,
    ) -> Result<Self, CertificateError> {
        let current = certificate::load(&certificate, &key, domain)?;
        let current = RwLock::new(Arc::new(current));
        Ok(Self(Arc::new(Inner {
            certificate,
            key,
            domain: domain.clone(),
            current,
        })))
    }

    /// Reads the files again; new connections get the new certificate.
    ///
    /// # Errors
    ///
    /// [`CertificateError`]; the certificate in use stays.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let own = &*self.0;
        let new = certificate::load(&own.certificate, &own.key, &own.domain)?;
        *own.current.write() = Arc::new(new);
        Ok(())
    }

    /// The files, certificate chain first.
    #[must_use]
    pub fn files(&self) -> [&PathBuf; 2] {
        [&self.0.certificate, &self.0.key]
    }

    /// What rustls needs to accept connections.
    ///
    /// # Errors
    ///
    /// [`rustls::Error`] if the provider lacks TLS 1.3, which it does not.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Resumption would spare a signature, and keep something that links two connections.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

#[derive(Debug)]
struct Resolver(Identity);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.0.current.read()))
    }
}
