//! HTTP, WebSocket and TLS with what is not theirs, too slow, or cut off.

use std::time::Duration;

use anyhow::{Context as _, Result};
use commucat_testkit::server::http;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::carrier::WAIT;
use crate::suite::Suite;

/// A WebSocket's beginning.
const UPGRADE: &str = "GET /connect HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
     upgrade: websocket\r\nsec-websocket-version: 13\r\n\
     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// A body in chunks.
const POST: &str = "POST /connect HTTP/1.1\r\nhost: localhost\r\n\
     content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Writes bytes and reads to the end; `None` if the server keeps the connection.
async fn said<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Option<Vec<u8>> {
    let exchanged = async {
        // It may close before it has read all.
        drop(stream.write_all(bytes).await);
        drop(stream.flush().await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        answer
    };
    timeout(WAIT, exchanged).await.ok()
}

/// The status line's code, 0 for an end without an answer.
fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let code = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

async fn judge(
    suite: &mut Suite,
    name: &str,
    wanted: &[u16],
    answer: Option<Vec<u8>>,
) -> Result<()> {
    let outcome = match answer {
        None => Err("the connection goes on".to_owned()),
        Some(answer) if wanted.contains(&status(&answer)) => Ok(()),
        Some(answer) => Err(format!("status {} instead of {wanted:?}", status(&answer))),
    };
    suite.record(name, outcome).await
}

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    websockets(suite).await?;
    requests(suite).await?;
    bytes(suite).await?;
    slow(suite).await
}

/// A masked frame (mask of zeros).
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap_or(125).min(125);
    [&[first, 0x80 | len, 0, 0, 0, 0][..], payload].concat()
}

async fn websockets(suite: &mut Suite) -> Result<()> {
    let large = [
        &[0x82, 0xff][..],
        &(1_u64 << 62).to_be_bytes(),
        &[0; 4],
        &[7; 4_096],
    ]
    .concat();
    let table = [
        ("a text message", masked(0x81, b"hello")),
        ("an empty text message", masked(0x81, b"")),
        ("a message without a mask", vec![0x82, 2, 1, 2]),
        ("a reserved bit", masked(0xc2, b"x")),
        ("an unknown opcode", masked(0x83, b"x")),
        ("a continuation of nothing", masked(0x80, b"x")),
        ("a ping in pieces", masked(0x09, b"x")),
        (
            "a ping of 126 bytes",
            [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat(),
        ),
        ("a close of one byte", masked(0x88, b"x")),
        ("a close", masked(0x88, &[3, 0xe8])),
        ("a message of 2^62 bytes", large),
        ("a frame in clear that is none", masked(0x82, &[0xff; 40])),
    ];
    for (name, frame) in table {
        let mut stream = http::connect(&suite.world.server, b"http/1.1").await?;
        let bytes = [UPGRADE.as_bytes(), &frame].concat();
        let answer = said(&mut stream, &bytes).await;
        judge(suite, &format!("WebSocket with {name}"), &[101], answer).await?;
    }
    Ok(())
}

async fn requests(suite: &mut Suite) -> Result<()> {
    let close = "connection: close\r\n\r\n";
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{close}");
    let table: Vec<(&str, String, &[u16])> = vec![
        ("an unknown path", get("/nothing"), &[404]),
        ("a path upwards", get("/../../etc/passwd"), &[400, 404]),
        (
            "an encoded path upwards",
            get("/%2e%2e/%2e%2e/etc/passwd"),
            &[400, 404],
        ),
        ("GET /connect", get("/connect"), &[400, 405, 426]),
        (
            "DELETE",
            format!("DELETE /connect HTTP/1.1\r\nhost: a\r\n{close}"),
            &[405],
        ),
        ("no request", "hello\r\n\r\n".to_owned(), &[0, 400]),
        ("zeros", "\0".repeat(200), &[0, 400]),
        ("HTTP/0.9", "GET /\r\n\r\n".to_owned(), &[0, 400]),
        (
            "headers of 100 KiB",
            format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100 << 10)),
            &[0, 400, 431],
        ),
        (
            "1,000 headers",
            format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1_000)),
            &[0, 400, 431],
        ),
        (
            "a line of 100 KiB",
            get(&"/x".repeat(50 << 10)),
            &[0, 400, 414, 431],
        ),
        (
            "a chunk of no size",
            format!("{POST}zz\r\n"),
            &[0, 200, 400],
        ),
        (
            "a chunk of 2^64 bytes",
            format!("{POST}fffffffffffffffff\r\n"),
            &[0, 200, 400],
        ),
        (
            "a chunk that is longer than it says",
            format!("{POST}1\r\nabc\r\n"),
            &[0, 200, 400],
        ),
        (
            "chunks and a length",
            POST.replace(
                "content-type: application/octet-stream",
                "content-length: 5",
            ),
            &[0, 200, 400],
        ),
        (
            "a chunk of zeros",
            format!("{POST}4\r\n\0\0\0\0\r\n"),
            &[200],
        ),
        ("the end at once", format!("{POST}0\r\n\r\n"), &[200]),
        (
            "another web socket version",
            UPGRADE.replace("version: 13", "version: 8"),
            &[400, 426],
        ),
        (
            "a web socket without a key",
            UPGRADE.replace("sec-websocket-key", "x-key"),
            &[400, 426],
        ),
    ];
    for (name, text, wanted) in table {
        let mut stream = http::connect(&suite.world.server, b"http/1.1").await?;
        let answer = said(&mut stream, text.as_bytes()).await;
        judge(suite, &format!("HTTP/1.1 with {name}"), wanted, answer).await?;
    }
    Ok(())
}

/// Bytes that are no TLS, and no HTTP/2 inside of TLS.
async fn bytes(suite: &mut Suite) -> Result<()> {
    let port = suite.world.server.port();
    let plain: [(&str, Vec<u8>); 4] = [
        (
            "HTTP without TLS",
            b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        ),
        ("zeros", vec![0; 1_000]),
        (
            "a TLS record of 64 KiB",
            [&[22, 3, 1, 255, 255][..], &[1; 9_000]].concat(),
        ),
        (
            "a ClientHello of zeros",
            [&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[0; 194]].concat(),
        ),
    ];
    for (name, bytes) in plain {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let answer = said(&mut stream, &bytes).await;
        judge(suite, &format!("{name} on the port"), &[0], answer).await?;
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let within: [(&str, Vec<u8>); 7] = [
        ("no preface", vec![0; 100]),
        ("HTTP/1.1 in HTTP/2", b"GET / HTTP/1.1\r\n\r\n".repeat(3)),
        (
            "a frame of 16 MiB",
            [&settings[..], &[255, 255, 255, 0, 0, 0, 0, 0, 1]].concat(),
        ),
        (
            "DATA on stream 0",
            [&settings[..], &[0, 0, 1, 0, 0, 0, 0, 0, 0, 7]].concat(),
        ),
        (
            "DATA on a stream that is not open",
            [&settings[..], &[0, 0, 1, 0, 0, 0, 0, 0, 1, 7]].concat(),
        ),
        (
            "headers that do not decode",
            [
                &settings[..],
                &[0, 0, 4, 1, 4, 0, 0, 0, 1, 255, 255, 255, 255],
            ]
            .concat(),
        ),
        (
            "CONTINUATION of nothing",
            [&settings[..], &[0, 0, 1, 9, 4, 0, 0, 0, 1, 0x82]].concat(),
        ),
    ];
    for (name, bytes) in within {
        let mut stream = http::connect(&suite.world.server, b"h2").await?;
        let answer = said(&mut stream, &bytes).await;
        judge(suite, &format!("HTTP/2 with {name}"), &[0], answer).await?;
    }
    Ok(())
}

/// Clients that begin and do not go on: each is cut off in its time.
async fn slow(suite: &mut Suite) -> Result<()> {
    let server = &suite.world.server;
    let port = server.port();
    let silent = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        anyhow::Ok(said(&mut stream, b"").await)
    };
    let half_tls = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        anyhow::Ok(said(&mut stream, &[22, 3, 1, 2, 0, 1, 0, 1]).await)
    };
    let no_request = async {
        let mut stream = http::connect(server, b"http/1.1").await?;
        anyhow::Ok(said(&mut stream, b"").await)
    };
    let dripping = drip(http::connect(server, b"http/1.1").await?);
    let no_hello = async {
        let mut stream = http::connect(server, b"http/1.1").await?;
        anyhow::Ok(said(&mut stream, POST.as_bytes()).await)
    };
    let half_hello = async {
        let mut stream = http::connect(server, b"http/1.1").await?;
        anyhow::Ok(
            said(
                &mut stream,
                format!("{POST}3\r\n\u{7f}\u{1}\0\r\n").as_bytes(),
            )
            .await,
        )
    };
    let no_preface = async {
        let mut stream = http::connect(server, b"h2").await?;
        anyhow::Ok(said(&mut stream, b"PRI * HTT").await)
    };
    let all = tokio::join!(
        silent, half_tls, no_request, dripping, no_hello, half_hello, no_preface
    );
    judge(suite, "a silent connection", &[0], all.0?).await?;
    judge(suite, "half of a TLS handshake", &[0], all.1?).await?;
    judge(suite, "TLS and no request", &[0, 408], all.2?).await?;
    judge(suite, "headers one byte a second", &[0, 408], all.3?).await?;
    judge(suite, "no HELLO", &[200], all.4?).await?;
    judge(suite, "half of a HELLO", &[200], all.5?).await?;
    judge(suite, "half of an HTTP/2 preface", &[0], all.6?).await
}

/// Writes headers a byte a time for as long as it is let.
async fn drip<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<Option<Vec<u8>>> {
    let text = b"GET / HTTP/1.1\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
    for byte in text {
        let written = stream.write_all(&[*byte]).await.is_ok() && stream.flush().await.is_ok();
        let mut answer = [0; 512];
        match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
            Err(_) if written => {}
            Err(_) | Ok(Err(_) | Ok(0)) => return Ok(Some(Vec::new())),
            Ok(Ok(len)) => return Ok(Some(answer.get(..len).context("an answer")?.to_vec())),
        }
    }
    Ok(None)
}
