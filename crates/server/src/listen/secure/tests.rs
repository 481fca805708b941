use std::io::ErrorKind;

use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

type Client = TlsStream<DuplexStream>;

fn configs() -> (ClientConfig, Arc<ServerConfig>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    // As configured in earnest: a ticket would wait for a client that reads.
    server.send_tls13_tickets = 0;
    server.alpn_protocols = vec![b"h2".to_vec()];
    (client, Arc::new(server))
}

/// Both ends over a socket that holds so many bytes, when they have shaken hands.
async fn pair(room: usize) -> (Client, Secure<DuplexStream>) {
    let (mut client, server) = configs();
    client.alpn_protocols = vec![b"h2".to_vec()];
    pair_of(room, client, server).await
}

async fn pair_of(
    room: usize,
    client: ClientConfig,
    server: Arc<ServerConfig>,
) -> (Client, Secure<DuplexStream>) {
    let (near, far) = duplex(room);
    let name = ServerName::try_from("localhost").unwrap();
    let connect = TlsConnector::from(Arc::new(client)).connect(name, far);
    let (client, server) = tokio::join!(connect, accept(server, near));
    (client.unwrap(), server.unwrap())
}

fn text(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// Bytes of memory that wait for something to come or to go.
fn held(stream: &Secure<DuplexStream>) -> usize {
    let Plain {
        opened, outgoing, ..
    } = &stream.plain;
    stream.incoming.capacity() + opened.capacity() + outgoing.capacity()
}

#[tokio::test]
async fn bytes_pass_both_ways_however_the_socket_cuts_them() {
    for (room, length) in [(7, 20_000), (5_000, 300_000), (1_000_000, 900_000)] {
        let (client, server) = pair(room).await;
        let sent = text(length);
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let (mut from_client, mut to_client) = tokio::io::split(server);

        let (up, down) = (&mut vec![0; length], &mut vec![0; length]);
        tokio::try_join!(
            async {
                to_server.write_all(&sent).await?;
                to_server.flush().await
            },
            async {
                to_client.write_all(&sent).await?;
                to_client.flush().await
            },
            async { from_client.read_exact(up).await.map(drop) },
            async { from_server.read_exact(down).await.map(drop) },
        )
        .unwrap();

        assert!(*up == sent && *down == sent, "{room}");
    }
}

#[tokio::test]
async fn a_reader_with_little_room_gets_every_byte_in_order() {
    let (mut client, mut server) = pair(1_000_000).await;
    let sent = text(40_000);
    client.write_all(&sent).await.unwrap();
    client.flush().await.unwrap();

    let (mut got, mut part) = (Vec::new(), [0; 11]);
    while got.len() < sent.len() {
        let length = server.read(&mut part).await.unwrap();
        got.extend_from_slice(&part[..length]);
        if got.len() == 11 {
            // What is sent meanwhile must not disturb the records that wait.
            server.write_all(b"between").await.unwrap();
        }
    }

    assert!(got == sent);
    let mut between = [0; 7];
    client.read_exact(&mut between).await.unwrap();
    assert_eq!(&between, b"between");
}

#[tokio::test]
async fn an_idle_stream_keeps_no_buffer() {
    let (mut client, mut server) = pair(4_096).await;
    assert_eq!(server.protocol(), Some(b"h2".as_slice()));
    assert_eq!(held(&server), 0);

    for length in [1, 300, 16 * 1024] {
        let (sent, mut got) = (text(length), vec![0; length]);
        let writes = async {
            client.write_all(&sent).await?;
            client.flush().await
        };
        tokio::try_join!(writes, server.read_exact(&mut got)).unwrap();
        let writes = async {
            server.write_all(&sent).await?;
            server.flush().await
        };
        tokio::try_join!(writes, client.read_exact(&mut got)).unwrap();
    }

    assert_eq!(held(&server), 0);
}

#[tokio::test]
async fn the_parts_of_a_write_are_sealed_together() {
    let (mut client, mut server) = pair(1_000_000).await;
    let (head, body, rest) = (text(9), text(16 * 1024), text(2_000));

    let parts = [&head[..], &[], &body, &rest].map(IoSlice::new);
    let length = server.write_vectored(&parts).await.unwrap();
    server.flush().await.unwrap();

    assert_eq!(length, JOINED_MAX);
    let mut got = vec![0; length];
    client.read_exact(&mut got).await.unwrap();
    let sent = [head, body, rest].concat();
    assert!(got == sent[..length]);
}

#[tokio::test]
async fn keys_are_changed_when_the_client_asks() {
    let (mut client, mut server) = pair(100_000).await;
    let mut got = [0; 5];

    for _ in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(b"first").await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut got).await.unwrap();
        server.write_all(b"other").await.unwrap();
        client.read_exact(&mut got).await.unwrap();
    }

    assert_eq!(&got, b"other");
}

#[tokio::test]
async fn an_end_that_was_announced_is_an_end() {
    let (mut client, mut server) = pair(100_000).await;

    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();

    assert_eq!(
        (got.as_slice(), answer.as_slice()),
        (&b"last"[..], &b"answer"[..])
    );
}

#[tokio::test]
async fn an_end_that_was_not_announced_is_an_error() {
    let (client, mut server) = pair(100_000).await;

    drop(client);

    let error = server.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_record_that_does_not_open_ends_the_stream_with_an_alert() {
    let (mut client, mut server) = pair(100_000).await;

    let (socket, _) = client.get_mut();
    socket.write_all(&[23, 3, 3, 0, 32]).await.unwrap();
    socket.write_all(&[0; 32]).await.unwrap();

    let error = server.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(server.write_all(b"more").await.is_err());
    let told = client.read(&mut [0; 1]).await.unwrap_err();
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
}

/// What came before a record that does not open, and whether the client learns of it.
async fn broken_behind(client: &mut Client, records: &[&[u8]]) {
    for record in records {
        client.write_all(record).await.unwrap();
        client.flush().await.unwrap();
    }
    let (socket, _) = client.get_mut();
    socket.write_all(&[23, 3, 3, 0, 32]).await.unwrap();
    socket.write_all(&[0; 32]).await.unwrap();
}

#[tokio::test]
async fn what_came_before_a_record_that_does_not_open_is_read() {
    for room in [4, 100] {
        let (mut client, mut server) = pair(100_000).await;
        broken_behind(&mut client, &[b"last"]).await;

        let mut got = vec![0; room];
        assert_eq!(server.read(&mut got).await.unwrap(), 4);

        let error = server.read(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let told = client.read(&mut [0; 1]).await.unwrap_err();
        assert!(told.to_string().contains("BadRecordMac"), "{told}");
    }
}

#[tokio::test]
async fn a_write_that_meets_a_record_that_does_not_open_fails_with_an_alert() {
    let (mut client, mut server) = pair(100_000).await;
    let record = text(4_096);
    broken_behind(&mut client, &[record.as_slice(); 3]).await;
    let mut got = vec![0; 2 * record.len()];
    server.read_exact(&mut got).await.unwrap();

    assert!(server.write_all(b"between").await.is_err());

    server.read_exact(&mut got[..record.len()]).await.unwrap();
    let error = server.read(&mut got).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    server.shutdown().await.unwrap();
    let told = client.read(&mut [0; 1]).await.unwrap_err();
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
}

#[tokio::test]
async fn a_reader_does_not_take_the_place_of_a_writer() {
    let (client, server) = pair(1_000).await;
    let (mut from_server, mut to_server) = tokio::io::split(client);
    let (mut from_client, mut to_client) = tokio::io::split(server);
    let sent = text(50_000);
    let (expected, tasks) = (sent.clone(), tokio_util::task::TaskTracker::new());
    tasks.spawn(async move {
        to_client.write_all(&sent).await.unwrap();
        to_client.flush().await.unwrap();
    });
    let (tell, told) = tokio::sync::oneshot::channel();
    tasks.spawn(async move {
        let mut got = [0; 5];
        from_client.read_exact(&mut got).await.unwrap();
        tell.send(got).unwrap();
        // Waits for more, and so can be woken in place of the writer.
        from_client.read_exact(&mut got).await.unwrap_err();
    });

    to_server.write_all(b"hello").await.unwrap();
    to_server.flush().await.unwrap();
    assert_eq!(&told.await.unwrap(), b"hello");
    let mut got = vec![0; expected.len()];
    let reads = from_server.read_exact(&mut got);
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, reads)
        .await
        .unwrap()
        .unwrap();

    assert!(got == expected);
}

#[tokio::test]
async fn a_hello_larger_than_a_record_is_understood() {
    let (mut client, server) = configs();
    client.alpn_protocols = (0..100).map(|_| vec![b'x'; 250]).collect();
    client.alpn_protocols.push(b"h2".to_vec());

    let (_client, server) = pair_of(1_000, client, server).await;

    assert_eq!(server.protocol(), Some(b"h2".as_slice()));
    assert_eq!(held(&server), 0);
}

#[tokio::test]
async fn a_hello_that_never_ends_is_given_up() {
    let (_, config) = configs();
    let (near, mut far) = duplex(1_000_000);
    // A ClientHello of 50,000 bytes, one in each record.
    far.write_all(&[22, 3, 1, 0, 4, 1, 0, 0xC3, 0x50])
        .await
        .unwrap();
    let record = [22, 3, 1, 0, 1, 0];
    far.write_all(&record.repeat(20_000)).await.unwrap();

    let error = accept(config, near).await.err().unwrap();

    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn whoever_speaks_something_else_is_told_so() {
    let (_, config) = configs();
    let (near, mut far) = duplex(100_000);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();

    let error = accept(config, near).await.err().unwrap();

    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let mut told = Vec::new();
    far.read_to_end(&mut told).await.unwrap();
    assert_eq!(told.first(), Some(&21), "an alert");
}
