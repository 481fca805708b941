//! Plain HTTP requests that carry everything that a server could note of their sender.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use commucat_testkit::relay::Relay;
use commucat_testkit::server::http;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::names::Names;

/// Requests that say all about who asks, from the clients' address.
pub(crate) async fn ask(relay: &Relay, names: &Names) -> Result<()> {
    for path in [
        format!("/{}", names.path),
        format!("/?{}", names.path),
        "/metrics".to_owned(),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: {}\r\nx-forwarded-for: {}\r\n\
             forwarded: for={}\r\nauthorization: Bearer {}\r\ncookie: id={}\r\n\
             connection: close\r\n\r\n",
            names.host, names.agent, names.forwarded, names.forwarded, names.token, names.token
        );
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, relay.port()));
        let tcp = TcpStream::connect(address).await?;
        let name = rustls_pki_types::ServerName::try_from("localhost")?;
        let mut stream = http::connector(b"http/1.1")?.connect(name, tcp).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Without a TLS goodbye it is an answer all the same.
        stream.read_to_end(&mut answer).await.ok();
        ensure!(
            answer.starts_with(b"HTTP/1.1 "),
            "no answer over plain HTTP"
        );
    }
    Ok(())
}
