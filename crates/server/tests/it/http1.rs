//! `/connect` over HTTP/1.1: chunked in both directions, and WebSockets.

use bytes::Bytes;
use commucat_server::metrics::label::Refusal;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Server, soon};

/// Reads until the text read ends with `end`.
async fn read_until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(soon(stream.read_u8()).await.unwrap()));
    }
    text
}

#[tokio::test]
async fn chunks_are_answered_while_the_request_goes_on() {
    let server = Server::start(&[]).await;
    let mut stream = soon(server.connect("http/1.1")).await;
    let head = "POST /connect HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\
                content-type: application/octet-stream\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();

    let answer = read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"5\r\nhello\r\n").await.unwrap();
    let first = read_until(&mut stream, "5\r\nhello\r\n").await;
    stream.write_all(b"3\r\nbye\r\n0\r\n\r\n").await.unwrap();
    let rest = read_until(&mut stream, "0\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("transfer-encoding: chunked\r\n"),
        "{answer}"
    );
    assert_eq!(first, "5\r\nhello\r\n");
    assert_eq!(rest, "3\r\nbye\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_mebibyte_may_be_written_before_anything_is_read() {
    let server = Server::start(&[]).await;
    let stream = soon(server.connect("http/1.1")).await;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let head = "POST /connect HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    writing.write_all(head.as_bytes()).await.unwrap();

    for _ in 0..16 {
        soon(async {
            writing.write_all(b"10000\r\n").await.unwrap();
            writing.write_all(&[9; 65_536]).await.unwrap();
            writing.write_all(b"\r\n").await.unwrap();
        })
        .await;
    }
    writing.write_all(b"0\r\n\r\n").await.unwrap();
    let mut nines = 0;
    let mut buffer = vec![0; 65_536];
    while nines < 1024 * 1024 {
        let count = soon(reading.read(&mut buffer)).await.unwrap();
        assert!(count > 0);
        nines += buffer[..count].iter().filter(|byte| **byte == 9).count();
    }

    assert_eq!(nines, 1024 * 1024);
}

async fn websocket(server: &Server) -> WebSocketStream<TlsStream<TcpStream>> {
    let stream = soon(server.connect("http/1.1")).await;
    let url = "wss://localhost/connect";
    let joining = Box::pin(tokio_tungstenite::client_async(url, stream));
    let (socket, answer) = soon(joining).await.unwrap();
    assert_eq!(answer.status(), 101);
    socket
}

#[tokio::test]
async fn a_websocket_carries_binary_messages() {
    let server = Server::start(&[]).await;
    let mut socket = websocket(&server).await;

    socket
        .send(Message::Ping(Bytes::from_static(b"there?")))
        .await
        .unwrap();
    socket
        .send(Message::Binary(Bytes::from_static(b"hello")))
        .await
        .unwrap();
    let pong = soon(socket.next()).await.unwrap().unwrap();
    let echo = soon(socket.next()).await.unwrap().unwrap();
    socket.close(None).await.unwrap();
    let end = soon(socket.next()).await;

    assert_eq!(pong, Message::Pong(Bytes::from_static(b"there?")));
    assert_eq!(echo, Message::Binary(Bytes::from_static(b"hello")));
    assert!(matches!(end, Some(Ok(Message::Close(_))) | None), "{end:?}");
}

#[tokio::test]
async fn a_text_message_ends_a_websocket() {
    let server = Server::start(&[]).await;
    let mut socket = websocket(&server).await;

    socket.send(Message::text("hello")).await.unwrap();
    let end = soon(socket.next()).await;

    assert!(
        matches!(end, Some(Ok(Message::Close(_)) | Err(_)) | None),
        "{end:?}"
    );
}

#[tokio::test]
async fn get_connect_without_a_websocket_says_what_is_missing() {
    let server = Server::start(&[]).await;
    let mut stream = soon(server.connect("http/1.1")).await;

    let request = "GET /connect HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "}").await;

    assert!(
        answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
        "{answer}"
    );
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
}

#[tokio::test]
async fn headers_beyond_the_bound_are_refused() {
    let server = Server::start(&[("limits.header_bytes", "8KiB")]).await;
    let mut stream = soon(server.connect("http/1.1")).await;

    let head = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "y".repeat(20_000)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Cut off, perhaps before everything was read.
    soon(stream.read_to_end(&mut answer)).await.ok();

    assert!(answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    assert_eq!(server.metrics.refused.of(Refusal::Http).get(), 1);
}

#[tokio::test]
async fn whoever_asks_and_takes_no_answer_is_let_go() {
    let server = Server::start(&[("limits.tls_timeout", "100ms")]).await;
    let mut stream = soon(server.connect("http/1.1")).await;

    let requests = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1_000);
    // Until nothing fits between the two, and then until the server gives up.
    soon(async { while stream.write_all(requests.as_bytes()).await.is_ok() {} }).await;

    let idle = server.metrics.refused.of(Refusal::Idle);
    assert_eq!(idle.get(), 1);
}
