//! Where the files of a server are, with the defaults that depend on the data directory.

use std::net::SocketAddr;
use std::path::PathBuf;

use commucat_proto::id::Domain;

use crate::{Config, StoreUrl};

impl Config {
    /// Where the durable state is.
    #[must_use]
    pub fn store_url(&self) -> StoreUrl {
        let made = || StoreUrl::embedded(&self.server.data);
        self.storage.url.clone().unwrap_or_else(made)
    }

    /// The directory of the key file.
    #[must_use]
    pub fn keys_path(&self) -> PathBuf {
        self.crypto
            .keys
            .clone()
            .unwrap_or_else(|| self.server.data.join("keys"))
    }

    /// The file of the ledger sink `file`.
    #[must_use]
    pub fn ledger_path(&self) -> PathBuf {
        self.ledger
            .path
            .clone()
            .unwrap_or_else(|| self.server.data.join("ledger.jsonl"))
    }

    /// The file of the TLS certificate chain.
    #[must_use]
    pub fn tls_certificate_path(&self) -> PathBuf {
        let made = || self.server.data.join("tls").join("certificate.pem");
        self.server.tls_certificate.clone().unwrap_or_else(made)
    }

    /// The file of the private key of the TLS certificate.
    #[must_use]
    pub fn tls_key_path(&self) -> PathBuf {
        let made = || self.server.data.join("tls").join("key.pem");
        self.server.tls_key.clone().unwrap_or_else(made)
    }

    /// Host and port that clients connect to: `server.endpoint`, or the domain with the port of the
    /// first listener unless the domain names a port or that port is 443.
    #[must_use]
    pub fn endpoint(&self) -> Domain {
        let domain = &self.server.domain;
        if let Some(endpoint) = &self.server.endpoint {
            return endpoint.clone();
        }
        match self.server.listen.first().map(SocketAddr::port) {
            None | Some(0 | 443) => domain.clone(),
            Some(port) => with_port(domain, port),
        }
    }
}

fn with_port(domain: &Domain, port: u16) -> Domain {
    let text = domain.as_str();
    let is_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let has_port = !is_ipv6 && !text.ends_with(']') && text.contains(':');
    if has_port {
        return domain.clone();
    }
    let joined = if is_ipv6 {
        format!("[{text}]:{port}")
    } else {
        format!("{text}:{port}")
    };
    Domain::parse(&joined).unwrap_or_else(|_| domain.clone())
}
