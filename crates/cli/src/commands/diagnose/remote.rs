//! The running server as a client sees it: port, TLS, well-known document, Noise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use commucat_config::Config;
use commucat_crypto::keyring::Keyring;
use commucat_crypto::server_keys::{Pin, Statement};
use commucat_proto::well_known::WellKnown;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::certificate::host_of;
use super::check::{Check, Checks};
use super::probe::{Proof, Server};
use crate::clock;

const PORT: &str = "port";
const ENDPOINT: &str = "endpoint";
const TLS: &str = "tls";
const KEYS: &str = "well-known";
const NOISE: &str = "handshake";

/// Longest that a step waits.
const STEP: Duration = Duration::from_secs(5);

/// Checks what a running server shows to clients.
pub(super) async fn check(
    config: &Config,
    keyring: Option<&Keyring>,
    is_running: bool,
    checks: &mut Checks,
) {
    let mut open = None;
    for address in &config.server.listen {
        let address = reachable(*address);
        let is_open = matches!(timeout(STEP, TcpStream::connect(address)).await, Ok(Ok(_)));
        checks.push(match (is_open, is_running) {
            (true, true) => Check::ok(PORT, format!("{address} answers")),
            (true, false) => Check::warn(
                PORT,
                format!("{address} answers, but no server works on this data directory"),
                "another process has the port: stop it, or change `server.listen`",
            ),
            (false, true) => Check::fail(
                PORT,
                format!("{address} does not answer"),
                "was the server started with another `server.listen`?",
            ),
            (false, false) => {
                Check::skip(PORT, format!("{address} does not answer: no server runs"))
            }
        });
        open = open.or(is_open.then_some(address));
    }
    let Some(address) = open.filter(|_| is_running) else {
        for name in [TLS, KEYS, NOISE] {
            checks.push(Check::skip(name, "no server to ask"));
        }
        return;
    };
    checks.push(endpoint(config).await);
    match Server::dial(address, host_of(&config.endpoint()), STEP).await {
        Ok(mut server) => ask(config, keyring, &mut server, checks).await,
        Err(error) => {
            let hint = "is it another server, or a proxy that does not pass TLS on?";
            checks.push(Check::fail(TLS, error.to_string(), hint));
            checks.push(Check::skip(KEYS, "no TLS"));
            checks.push(Check::skip(NOISE, "no TLS"));
        }
    }
}

/// Whether the name in invites leads to an open port.
async fn endpoint(config: &Config) -> Check {
    let endpoint = config.endpoint();
    let text = endpoint.as_str();
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        (!host.contains(':') || host.ends_with(']')) && port.parse::<u16>().is_ok()
    });
    let place = if has_port {
        text.to_owned()
    } else if text.parse::<Ipv6Addr>().is_ok() {
        format!("[{text}]:443")
    } else {
        format!("{text}:443")
    };
    match timeout(STEP, TcpStream::connect(&place)).await {
        Ok(Ok(_)) => Check::ok(ENDPOINT, format!("{place} answers")),
        Ok(Err(_)) | Err(_) => Check::warn(
            ENDPOINT,
            format!("{place} does not answer from here"),
            "clients connect there: check DNS and firewall, or set `server.endpoint`",
        ),
    }
}

/// An address to listen on, as one to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => ip.into(),
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(config: &Config, keyring: Option<&Keyring>, server: &mut Server, checks: &mut Checks) {
    checks.push(tls(config, server));
    let fetched = timeout(STEP, server.well_known()).await;
    let document = match fetched {
        Ok(Ok(document)) => document,
        Ok(Err(error)) => {
            checks.push(Check::fail(
                KEYS,
                error.to_string(),
                "is it a CommuCat server?",
            ));
            checks.push(Check::skip(NOISE, "no keys of the server"));
            return;
        }
        Err(_) => {
            checks.push(Check::fail(
                KEYS,
                "no answer in time",
                "is the server overloaded?",
            ));
            checks.push(Check::skip(NOISE, "no keys of the server"));
            return;
        }
    };
    let (statement, check) = statement(config, keyring, &document);
    checks.push(check);
    match statement {
        Some(statement) => checks.push(noise(server, &statement).await),
        None => checks.push(Check::skip(NOISE, "no keys of the server")),
    }
}

fn tls(config: &Config, server: &Server) -> Check {
    let seen = server.seen();
    let detail = format!("TLS 1.3, {}", seen.group);
    if seen.is_trusted {
        return Check::ok(TLS, format!("{detail}, certificate verifies"));
    }
    if config.server.tls_certificate.is_none() {
        return Check::ok(
            TLS,
            format!("{detail}, self-signed; clients pin the domain key instead"),
        );
    }
    Check::warn(
        TLS,
        format!("{detail}, but the certificate does not verify here"),
        "is the chain complete? Clients that know the domain key warn and go on",
    )
}

/// The server's statement, if it can be believed.
fn statement(
    config: &Config,
    keyring: Option<&Keyring>,
    document: &WellKnown,
) -> (Option<Statement>, Check) {
    let wrong = |detail: &str, hint: &str| (None, Check::fail(KEYS, detail, hint));
    if document.domain != config.server.domain {
        let hint = "was the server started with another configuration?";
        return wrong("the server says that it is another domain", hint);
    }
    let statement = match keyring {
        None => Statement::verify(&document.server_keys).ok(),
        Some(keyring) => {
            let pin = Pin::first(config.server.domain.clone(), *keyring.domain_key());
            pin.follow(&document.chain, &document.server_keys).ok()
        }
    };
    let Some(statement) = statement else {
        let hint = "does the server use another directory of keys? Restart it";
        return wrong(
            "the keys that the server announces are not those in the files",
            hint,
        );
    };
    let serial = statement.serial();
    let check = match keyring.map(|keyring| keyring.statement().serial()) {
        Some(latest) if latest > serial => Check::warn(
            KEYS,
            format!("announces statement {serial}, the files have {latest}"),
            "the server reads its keys every few seconds; try again, or send it SIGHUP",
        ),
        Some(_) | None => Check::ok(KEYS, format!("announces statement {serial} of its keys")),
    };
    (Some(statement), check)
}

async fn noise(server: &mut Server, statement: &Statement) -> Check {
    let Some(key) = statement.noise_key(clock::now()) else {
        return Check::fail(
            NOISE,
            "no announced Noise key is valid now",
            "is the clock right?",
        );
    };
    match timeout(STEP, server.prove(statement.domain(), key)).await {
        Ok(Ok(Proof::Rejected)) => Check::ok(
            NOISE,
            "the server proved its Noise key, and refused a device that it does not know",
        ),
        Ok(Ok(Proof::Other(title))) => Check::warn(
            NOISE,
            format!("the server proved its Noise key, but answered `{title}`"),
            "its log says more",
        ),
        Ok(Err(error)) => Check::fail(
            NOISE,
            error.to_string(),
            "do the server's keys fit its statement? Restart it",
        ),
        Err(_) => Check::fail(NOISE, "no answer in time", "is the server overloaded?"),
    }
}
