//! TLS 1.3 to the server, hybrid key exchange first.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::error::ClientError;
use crate::settings::Trust;

/// A configuration for one connection, and whether its certificate check failed.
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

impl Tls {
    /// Prepares a connection that prefers what `trust` says. A certificate that does not verify
    /// is remembered and does not end it: every caller knows the domain key, which is verified.
    ///
    /// # Errors
    ///
    /// [`ClientError::Tls`] if a CA file cannot be read.
    pub(crate) fn new(trust: &Trust) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let inner = match trust {
            Trust::Insecure => None,
            Trust::System => verifier_of(system_roots(), &provider),
            Trust::Ca(path) => verifier_of(roots_of(path)?, &provider),
        };
        let verifier = Arc::new(Verifier {
            inner,
            provider: Arc::clone(&provider),
            insecure: *trust == Trust::Insecure,
            failed: AtomicBool::new(false),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| ClientError::Tls(std::io::Error::other(error)))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            verifier,
        })
    }

    /// Whether the certificate did not verify and the connection went on all the same.
    pub(crate) fn check_failed(&self) -> bool {
        self.verifier.failed.load(Ordering::Relaxed)
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // A broken file in the system's store must not take the others away.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn roots_of(path: &Path) -> Result<RootCertStore, ClientError> {
    let other =
        |error: rustls_pki_types::pem::Error| ClientError::Tls(std::io::Error::other(error));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(other)? {
        let added = roots.add(certificate.map_err(other)?);
        added.map_err(|error| ClientError::Tls(std::io::Error::other(error)))?;
    }
    if roots.is_empty() {
        let error = std::io::Error::other("the CA file holds no certificate");
        return Err(ClientError::Tls(error));
    }
    Ok(roots)
}

fn verifier_of(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Option<Arc<WebPkiServerVerifier>> {
    let provider = Arc::clone(provider);
    // Fails without any root; then no certificate verifies.
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .ok()
}

/// Checks certificates, but lets a pinned server pass; signatures are always checked.
#[derive(Debug)]
struct Verifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    insecure: bool,
    failed: AtomicBool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        let result = match &self.inner {
            Some(inner) => {
                inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer,
            )),
        };
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
            return Ok(ServerCertVerified::assertion());
        }
        result
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_group_is_offered_first() {
        let tls = Tls::new(&Trust::Insecure).unwrap();

        let first = tls.config.crypto_provider().kx_groups[0].name();

        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
    }
}
