//! `/connect` over HTTP/2: full duplex, small frames, floods, the end.

use bytes::Bytes;
use commucat_server::listen::Farewell;
use commucat_server::metrics::label::{Protocol, Refusal};
use h2::client::SendRequest;
use h2::{Ping, RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Server, soon};

struct Client {
    requests: SendRequest<Bytes>,
    pings: h2::PingPong,
}

async fn client(server: &Server) -> Client {
    let stream = soon(server.connect("h2")).await;
    let mut builder = h2::client::Builder::new();
    // The echo comes back in pieces as small as those sent.
    builder.data_frame_budget(1024 * 1024);
    let (requests, mut connection) = soon(builder.handshake(stream)).await.unwrap();
    let pings = connection.ping_pong().unwrap();
    server.tasks.spawn(async move {
        // Its end shows in the streams.
        connection.await.ok();
    });
    Client { requests, pings }
}

async fn connect(client: &mut Client) -> (RecvStream, SendStream<Bytes>) {
    let request = Request::builder()
        .method(Method::POST)
        .uri("https://localhost/connect")
        .header("content-type", "application/octet-stream")
        .body(())
        .unwrap();
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (response, body) = requests.send_request(request, false).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    (response.into_body(), body)
}

/// Sends all of `bytes` within the windows, reading nothing.
async fn send(body: &mut SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        body.reserve_capacity(bytes.len());
        let granted = std::future::poll_fn(|cx| body.poll_capacity(cx))
            .await
            .unwrap()
            .unwrap();
        let part = bytes.split_to(granted.min(bytes.len()));
        body.send_data(part, false).unwrap();
    }
}

async fn receive(body: &mut RecvStream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let bytes = soon(body.data()).await.unwrap().unwrap();
        body.flow_control().release_capacity(bytes.len()).unwrap();
        all.extend_from_slice(&bytes);
    }
    all
}

#[tokio::test]
async fn a_client_may_write_a_mebibyte_before_it_reads() {
    let server = Server::start(&[]).await;
    let mut client = client(&server).await;
    let (mut response, mut body) = connect(&mut client).await;
    let bytes: Vec<u8> = (0..1024 * 1024)
        .map(|index: u32| index.to_le_bytes()[1])
        .collect();

    soon(send(&mut body, Bytes::from(bytes.clone()))).await;
    let echoed = receive(&mut response, bytes.len()).await;

    assert!(echoed == bytes);
}

#[tokio::test]
async fn the_head_of_the_answer_comes_before_the_first_byte_of_the_request() {
    let server = Server::start_without_reading(&[]).await;
    let mut client = client(&server).await;

    let (_response, _body) = connect(&mut client).await;
}

#[tokio::test]
async fn many_small_frames_may_wait_unread() {
    const FRAMES: usize = 2_600;
    let server = Server::start_without_reading(&[]).await;
    let mut client = client(&server).await;
    let (mut response, mut body) = connect(&mut client).await;

    for _ in 0..FRAMES {
        soon(send(&mut body, Bytes::from_static(&[7; 100]))).await;
    }
    // The answer to a PING says that the server has taken everything before it.
    soon(client.pings.ping(Ping::opaque())).await.unwrap();
    server.engine.let_read();

    assert_eq!(
        receive(&mut response, FRAMES * 100).await.len(),
        FRAMES * 100
    );
}

#[tokio::test]
async fn the_end_of_the_request_ends_the_answer() {
    let server = Server::start(&[]).await;
    let mut client = client(&server).await;
    let (mut response, mut body) = connect(&mut client).await;

    body.send_data(Bytes::from_static(b"last"), true).unwrap();

    assert_eq!(receive(&mut response, 4).await, b"last");
    while let Some(rest) = soon(response.data()).await {
        assert!(rest.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_ninth_stream_is_refused_and_the_eight_go_on() {
    let server = Server::start(&[]).await;
    let mut client = client(&server).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(connect(&mut client).await);
    }

    let ninth = Request::post("https://localhost/connect").body(()).unwrap();
    let (answer, _body) = client.requests.send_request(ninth, false).unwrap();
    let answer = soon(answer).await.unwrap();

    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(server.metrics.refused.of(Refusal::Streams).get(), 1);
    for (response, body) in &mut open {
        soon(send(body, Bytes::from_static(b"still"))).await;
        assert_eq!(receive(response, 5).await, b"still");
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let server = Server::start(&[]).await;
    let mut client = client(&server).await;
    let request = Request::post("https://localhost/connect").header("content-type", "text/plain");

    let (answer, _body) = client
        .requests
        .send_request(request.body(()).unwrap(), false)
        .unwrap();

    assert_eq!(
        soon(answer).await.unwrap().status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
}

#[tokio::test]
async fn a_trusted_proxy_may_open_more_streams() {
    let flags = [
        ("server.trusted_proxies", "127.0.0.0/8"),
        ("limits.streams", "20"),
    ];
    let server = Server::start(&flags).await;
    let mut client = client(&server).await;

    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(connect(&mut client).await);
    }

    assert_eq!(open.len(), 20);
}

#[tokio::test]
async fn requests_are_answered_on_the_connection_of_a_session() {
    let server = Server::start(&[]).await;
    let mut client = client(&server).await;
    let (mut response, mut body) = connect(&mut client).await;

    let request = Request::get("https://localhost/healthz").body(()).unwrap();
    let (answer, _) = client.requests.send_request(request, true).unwrap();
    let answer = soon(answer).await.unwrap();

    assert_eq!(answer.status(), StatusCode::OK);
    soon(send(&mut body, Bytes::from_static(b"and on"))).await;
    assert_eq!(receive(&mut response, 6).await, b"and on");
}

/// The connection preface and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// PING with eight bytes.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingping";
/// SETTINGS without any.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

async fn flood(frame: &[u8]) -> u64 {
    let server = Server::start(&[("limits.control_frames_burst", "100")]).await;
    let mut stream = soon(server.connect("h2")).await;
    stream.write_all(HELLO).await.unwrap();

    let (mut reading, mut writing) = tokio::io::split(stream);
    let frames = frame.repeat(1_000);
    let sending = async move {
        // Cut off half-way, which is the point.
        writing.write_all(&frames).await.ok();
        writing.flush().await.ok();
    };
    let mut answers = Vec::new();
    let (_, _cut) = soon(async { tokio::join!(sending, reading.read_to_end(&mut answers)) }).await;

    server.metrics.refused.of(Refusal::ControlFrames).get()
}

#[tokio::test]
async fn a_flood_of_pings_is_cut_off() {
    assert_eq!(flood(PING).await, 1);
}

#[tokio::test]
async fn a_flood_of_settings_is_cut_off() {
    assert_eq!(flood(SETTINGS).await, 1);
}

#[tokio::test]
async fn after_stop_streams_end_and_so_does_the_connection() {
    let server = Server::start(&[]).await;
    let mut client = client(&server).await;
    let (mut response, mut body) = connect(&mut client).await;
    assert_eq!(server.metrics.connections.of(Protocol::Http2).get(), 1);

    server.shell.stop(Farewell::Now);
    body.send_data(Bytes::from_static(b"bye"), true).unwrap();

    assert_eq!(receive(&mut response, 3).await, b"bye");
    soon(server.shell.stopped()).await;
    assert_eq!(server.metrics.connections.of(Protocol::Http2).get(), 0);
}
