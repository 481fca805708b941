//! TLS 1.3 only, hybrid key exchange first, limits before it.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, NamedGroup};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::harness::{Server, soon};
use commucat_proto::id::Domain;
use commucat_server::metrics::label::Refusal;
use commucat_server::tls::certificate;

#[tokio::test]
async fn tls_1_2_is_refused() {
    let server = Server::start(&[]).await;

    let error = soon(server.connect_with(server.client_config(&[&TLS12])))
        .await
        .unwrap_err();

    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn x25519mlkem768_is_negotiated() {
    let server = Server::start(&[]).await;

    let stream = soon(server.connect("h2")).await;

    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn an_older_client_falls_back_to_x25519() {
    let server = Server::start(&[]).await;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .kx_groups
        .retain(|group| group.name() == NamedGroup::X25519);
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(server.roots())
        .with_no_client_auth();

    let stream = soon(server.connect_with(config)).await.unwrap();

    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519);
}

#[tokio::test]
async fn a_client_that_never_begins_its_handshake_is_cut_off() {
    let server = Server::start(&[("limits.tls_timeout", "100ms")]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();

    let read = soon(stream.read(&mut [0; 1])).await;

    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(server.metrics.refused.of(Refusal::TlsTimeout).get(), 1);
}

#[tokio::test]
async fn a_client_that_asks_nothing_after_its_handshake_is_cut_off() {
    let server = Server::start(&[("limits.tls_timeout", "100ms")]).await;

    for protocol in ["h2", "http/1.1"] {
        let mut stream = soon(server.connect(protocol)).await;
        // What comes before the end (SETTINGS, GOAWAY) does not matter, nor how it ends.
        soon(stream.read_to_end(&mut Vec::new())).await.ok();
    }
    assert_eq!(server.metrics.refused.of(Refusal::Idle).get(), 1);
}

#[tokio::test]
async fn an_address_at_its_bound_is_refused_before_tls() {
    let server = Server::start(&[("limits.connections_per_address", "1")]).await;
    let _first = soon(server.connect("h2")).await;

    let mut second = TcpStream::connect(server.address).await.unwrap();
    let read = soon(second.read(&mut [0; 1])).await;

    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(
        server
            .metrics
            .refused
            .of(Refusal::ConnectionsPerAddress)
            .get(),
        1
    );
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let server = Server::start(&[]).await;
    let old = soon(server.connect("h2")).await;
    let [chain, key] = server.identity.files().map(Clone::clone);
    std::fs::remove_file(&chain).unwrap();
    certificate::ensure(&chain, &key, &Domain::parse("localhost").unwrap()).unwrap();

    server.identity.reload().unwrap();
    let refused = soon(server.connect_with(server.client_config(&[&TLS13]))).await;

    // The client trusts the old certificate only; the old connection goes on.
    assert!(refused.is_err());
    assert!(old.get_ref().1.peer_certificates().is_some());
}

#[tokio::test]
async fn a_broken_certificate_leaves_the_old_one_in_use() {
    let server = Server::start(&[]).await;
    let [chain, _key] = server.identity.files();
    std::fs::write(chain, "not a certificate").unwrap();

    let reloaded = server.identity.reload();

    assert!(reloaded.is_err());
    soon(server.connect("h2")).await;
}
