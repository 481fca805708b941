//! Proxies that name their clients by the PROXY protocol, and others that only try to.

use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Server, soon};
use commucat_server::metrics::label::Refusal;

const PROXY: (&str, &str) = ("server.proxy_protocol", "127.0.0.1");

/// Connects as a proxy that speaks for `client`.
async fn connect_for(server: &Server, client: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(server.address).await?;
    let header = format!("PROXY TCP4 {client} 127.0.0.1 1000 443\r\n");
    stream.write_all(header.as_bytes()).await?;
    let mut config = server.client_config(&[&rustls::version::TLS13]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

#[tokio::test]
async fn limits_count_the_client_that_the_proxy_names() {
    let server = Server::start(&[PROXY, ("limits.connections_per_address", "1")]).await;

    let first = soon(connect_for(&server, "192.0.2.1")).await.unwrap();
    let same = soon(connect_for(&server, "192.0.2.1")).await;
    let other = soon(connect_for(&server, "192.0.2.2")).await;

    assert!(same.is_err() && other.is_ok());
    let refused = &server.metrics.refused;
    assert_eq!(refused.of(Refusal::ConnectionsPerAddress).get(), 1);
    drop(first);
}

#[tokio::test]
async fn a_proxy_that_names_nobody_is_refused() {
    let server = Server::start(&[PROXY, ("limits.tls_timeout", "100ms")]).await;

    let hello = soon(server.connect_with(server.client_config(&[&rustls::version::TLS13]))).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    soon(silent.read_to_end(&mut Vec::new())).await.ok();

    assert!(hello.is_err());
    assert_eq!(server.metrics.refused.of(Refusal::ProxyHeader).get(), 2);
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let server = Server::start(&[("server.proxy_protocol", "192.0.2.0/24")]).await;

    let named = soon(connect_for(&server, "192.0.2.1")).await;

    assert!(named.is_err());
    assert_eq!(server.metrics.refused.of(Refusal::TlsFailed).get(), 1);
}

#[tokio::test]
async fn a_client_that_is_named_is_not_on_this_machine() {
    let server = Server::start(&[PROXY]).await;

    let mut stream = soon(connect_for(&server, "127.0.0.1")).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A server that closes without a TLS goodbye has answered all the same.
    soon(stream.read_to_end(&mut answer)).await.ok();

    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert!(answer.starts_with(b"HTTP/1.1 4"));
}
