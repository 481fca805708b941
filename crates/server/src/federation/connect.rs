//! HTTP/2 over TLS to another domain: certificates verified, addresses checked when they are used,
//! no redirects, every answer bounded.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commucat_proto::id::Domain;
use h2::client::SendRequest;
use http::{Request, Response};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

/// The port of a domain that names none.
const HTTPS: u16 = 443;

/// TCP, TLS and HTTP/2 together.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// Addresses tried of those that a name has.
const ADDRESSES_MAX: usize = 4;

/// Bytes of an answer's headers.
const HEADERS_MAX: u32 = 16 * 1024;

/// Why certificates cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// `federation.ca` cannot be read.
    #[error("`federation.ca` cannot be read")]
    File(#[source] rustls_pki_types::pem::Error),
    /// TLS cannot be set up.
    #[error("TLS to other domains cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Why a domain could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The name has no address that may be used.
    #[error("the name has no address that this server may connect to")]
    Address,
    /// No connection.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// HTTP/2 failed.
    #[error("the connection failed")]
    Http(#[from] h2::Error),
    /// Not in time.
    #[error("no answer in time")]
    Late,
    /// The answer is longer than it may be.
    #[error("the answer is too long")]
    TooLong,
    /// The request cannot be made.
    #[error("no such address")]
    Request(#[from] http::Error),
}

/// Makes connections.
pub(super) struct Connector {
    tls: TlsConnector,
    allow_private: bool,
    /// What drives open connections; each ends with its last request.
    tasks: TaskTracker,
}

/// A connection that requests share.
pub(super) type Connection = SendRequest<Bytes>;

impl Connector {
    pub(super) fn new(ca: Option<&Path>, allow_private: bool) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                for certificate in CertificateDer::pem_file_iter(path).map_err(TrustError::File)? {
                    roots.add(certificate.map_err(TrustError::File)?)?;
                }
            }
            None => {
                // A broken file in the system's store must not take the others away.
                let found = rustls_native_certs::load_native_certs().certs;
                roots.add_parsable_certificates(found);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            allow_private,
            tasks: TaskTracker::new(),
        })
    }

    /// Connects to a host and port.
    pub(super) async fn connect(&self, endpoint: &Domain) -> Result<Connection, RequestError> {
        timeout(CONNECT_WAIT, self.open(endpoint))
            .await
            .unwrap_or(Err(RequestError::Late))
    }

    async fn open(&self, endpoint: &Domain) -> Result<Connection, RequestError> {
        let (host, port) = host_and_port(endpoint.as_str());
        let name = ServerName::try_from(host.to_owned()).map_err(|_| RequestError::Address)?;
        let found = lookup_host((host, port))
            .await
            .map_err(RequestError::Connect)?;
        // Checked here, on the very addresses that are connected to: a name may change between a
        // check and its use.
        let usable = found.filter(|address| self.allow_private || is_public(address.ip()));
        let usable: Vec<SocketAddr> = usable.take(ADDRESSES_MAX).collect();
        if usable.is_empty() {
            return Err(RequestError::Address);
        }
        let tcp = TcpStream::connect(usable.as_slice())
            .await
            .map_err(RequestError::Connect)?;
        tcp.set_nodelay(true).map_err(RequestError::Connect)?;
        let tls = self.tls.connect(name, tcp).await;
        let tls = tls.map_err(RequestError::Connect)?;
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .max_header_list_size(HEADERS_MAX)
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(tls)
            .await?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a peer ended");
            }
        });
        Ok(sender)
    }
}

/// Sends one request and reads its answer, of at most `answer_max` bytes.
pub(super) async fn exchange(
    connection: Connection,
    request: Request<()>,
    mut body: Bytes,
    answer_max: usize,
) -> Result<Response<Bytes>, RequestError> {
    let mut connection = connection.ready().await?;
    let (response, mut stream) = connection.send_request(request, body.is_empty())?;
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let granted = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(granted) = granted.transpose()? else {
            break;
        };
        let part = body.split_to(granted.min(body.len()));
        stream.send_data(part, body.is_empty())?;
    }
    let (head, mut stream) = response.await?.into_parts();
    let mut answer = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        if answer.len() + chunk.len() > answer_max {
            return Err(RequestError::TooLong);
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(Response::from_parts(head, answer.freeze()))
}

/// `host:port`, `[v6]:port`, or a host alone.
fn host_and_port(endpoint: &str) -> (&str, u16) {
    let plain = |host: &str| {
        let len = host.len();
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .map_or(0..len, |_| 1..len - 1)
    };
    if endpoint.parse::<Ipv6Addr>().is_ok() {
        return (endpoint, HTTPS);
    }
    if let Some((host, port)) = endpoint.rsplit_once(':')
        && !port.ends_with(']')
        && let Ok(port) = port.parse()
    {
        return (host.get(plain(host)).unwrap_or(host), port);
    }
    (endpoint.get(plain(endpoint)).unwrap_or(endpoint), HTTPS)
}

/// Whether an address is one of the open network.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_special = first == 0
        || first >= 240
        || (first, second, third) == (192, 0, 0)
        || (first == 198 && (second == 18 || second == 19));
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_unspecified()
        || address.is_documentation()
        || is_shared
        || is_special)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, c, d, e, f, g, h] = segments;
    // RFC 8215 gives longer prefixes of NAT64 to networks of their own.
    let is_plain = [c, d, e, f] == [0; 4];
    let v4_of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    match (a, b) {
        // 6to4 and NAT64 lead to an IPv4 address.
        (0x2002, _) => is_public_v4(v4_of(b, c)),
        (0x0064, 0xff9b) => is_plain && is_public_v4(v4_of(g, h)),
        // Only global unicast; Teredo and documentation are in it.
        (0x2001, 0x0000 | 0x0db8) => false,
        (0x2000..0x4000, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_open_network_are_public() {
        for public in ["9.9.9.9", "192.0.1.1", "2620:fe::fe", "64:ff9b::909:909"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::909:909",
            "2002:7f00:1::",
            "2001:db8::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn an_endpoint_is_a_host_with_or_without_a_port() {
        assert_eq!(host_and_port("chat.example.org"), ("chat.example.org", 443));
        assert_eq!(
            host_and_port("chat.example.org:8443"),
            ("chat.example.org", 8443)
        );
        assert_eq!(host_and_port("127.0.0.1:1"), ("127.0.0.1", 1));
        assert_eq!(host_and_port("[::1]:8443"), ("::1", 8443));
        assert_eq!(host_and_port("[::1]"), ("::1", 443));
        assert_eq!(host_and_port("2620:fe::fe"), ("2620:fe::fe", 443));
    }
}
