//! `diagnose federation`: every step of the way to another domain.

use std::net::SocketAddr;
use std::time::Duration;

use commucat_admin::{Answer, Peer, Request};
use commucat_config::{Config, FederationPolicy};
use commucat_crypto::server_keys::{Pin, Statement};
use commucat_proto::id::{Domain, DomainKey, base32};
use commucat_proto::well_known::WellKnown;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::certificate::host_of;
use super::check::{Check, Checks};
use super::probe::Server;
use crate::door::Door;

const POLICY: &str = "policy";
const ADDRESS: &str = "address";
const TLS: &str = "tls";
const KEYS: &str = "well-known";
const ECHO: &str = "echo";

/// Longest that a step waits.
const STEP: Duration = Duration::from_secs(10);

/// Looks at the way to `domain`.
pub(super) async fn check(config: &Config, domain: &str, checks: &mut Checks) {
    let Ok(domain) = Domain::parse(domain) else {
        let hint = "a lower-case DNS name or an IP address, optionally with :port";
        checks.push(Check::fail("name", "not a domain", hint));
        return;
    };
    let mut door = Door::open(config).await.ok();
    let known = match &mut door {
        Some(door) => show(door, &domain).await,
        None => None,
    };
    checks.push(policy(config, known.as_ref()));
    look(config, &domain, known.as_ref(), checks).await;
    checks.push(match &mut door {
        Some(door) => echo(door, &domain).await,
        None => Check::skip(ECHO, "the store and the server cannot be reached"),
    });
    if let Some(door) = door {
        door.close().await;
    }
}

async fn show(door: &mut Door, domain: &Domain) -> Option<Peer> {
    let domain = domain.as_str().to_owned();
    match door.ask(Request::ShowPeer { domain }).await {
        Ok(Answer::Peer(peer)) => Some(peer),
        Ok(_) | Err(_) => None,
    }
}

fn policy(config: &Config, known: Option<&Peer>) -> Check {
    use commucat_admin::PeerStanding::{Active, Blocked, Pending};
    let standing = known.map(|peer| peer.standing);
    match (config.federation.policy, standing) {
        (_, Some(Blocked)) => Check::fail(
            POLICY,
            "the domain is blocked",
            "`commucat-cli peer allow` talks to it again",
        ),
        (FederationPolicy::Closed, _) => Check::fail(
            POLICY,
            "`federation.policy` is closed",
            "set it to open or allowlist",
        ),
        (FederationPolicy::Allowlist, None | Some(Pending)) => Check::fail(
            POLICY,
            "`federation.policy` is allowlist, and nobody named the domain",
            "`commucat-cli peer add` names it",
        ),
        (FederationPolicy::Open | FederationPolicy::Allowlist, Some(Active)) => {
            Check::ok(POLICY, "this server talks to it")
        }
        (FederationPolicy::Open, None | Some(Pending)) => {
            Check::ok(POLICY, "this server talks to everybody who is not blocked")
        }
    }
}

async fn look(config: &Config, domain: &Domain, known: Option<&Peer>, checks: &mut Checks) {
    let address = match address_of(domain).await {
        Ok(address) => address,
        Err(hint) => {
            checks.push(Check::fail(ADDRESS, "the name has no address", hint));
            skip(checks);
            return;
        }
    };
    checks.push(Check::ok(ADDRESS, address.to_string()));
    let mut server = match Server::dial(address, host_of(domain), STEP).await {
        Ok(server) => server,
        Err(error) => {
            let hint = "does a server listen there, and does a firewall let you through?";
            checks.push(Check::fail(TLS, error.to_string(), hint));
            checks.push(Check::skip(KEYS, "no TLS"));
            return;
        }
    };
    checks.push(tls(config, &server));
    checks.push(match timeout(STEP, server.well_known()).await {
        Ok(Ok(document)) => keys(domain, known, &document),
        Ok(Err(error)) => Check::fail(KEYS, error.to_string(), "is it a CommuCat server?"),
        Err(_) => Check::fail(KEYS, "no answer in time", "is the server overloaded?"),
    });
}

fn skip(checks: &mut Checks) {
    checks.push(Check::skip(TLS, "no address"));
    checks.push(Check::skip(KEYS, "no address"));
}

async fn address_of(domain: &Domain) -> Result<SocketAddr, String> {
    let text = domain.as_str();
    let host = host_of(domain);
    let port = match text.rsplit_once(':') {
        Some((before, port)) if !before.contains(':') || before.ends_with(']') => {
            port.parse().unwrap_or(443)
        }
        Some(_) | None => 443,
    };
    let found = timeout(STEP, lookup_host((host, port))).await;
    let mut addresses = found
        .map_err(|_| "the name server did not answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    addresses
        .next()
        .ok_or_else(|| "the name exists without an address".to_owned())
}

fn tls(config: &Config, server: &Server) -> Check {
    let seen = server.seen();
    let detail = format!("TLS 1.3, {}", seen.group);
    if seen.is_trusted {
        return Check::ok(TLS, format!("{detail}, certificate verifies"));
    }
    if config.federation.ca.is_some() {
        return Check::warn(
            TLS,
            format!("{detail}, not a certificate of the system's authorities"),
            "the server checks it by `federation.ca`; the echo below tells",
        );
    }
    Check::fail(
        TLS,
        format!("{detail}, but the certificate does not verify"),
        "its operator needs a certificate of a public authority, or you name yours in `federation.ca`",
    )
}

fn keys(domain: &Domain, known: Option<&Peer>, document: &WellKnown) -> Check {
    if document.domain != *domain {
        let detail = "the server there says that it is another domain";
        return Check::fail(KEYS, detail, "is the name spelt as its operator spells it?");
    }
    let pinned = known
        .and_then(|peer| peer.domain_key.as_deref())
        .and_then(DomainKey::from_text);
    let statement = match pinned {
        None => Statement::verify(&document.server_keys).ok(),
        Some(key) => Pin::first(domain.clone(), key)
            .follow(&document.chain, &document.server_keys)
            .ok(),
    };
    match (statement, pinned) {
        (Some(statement), _) => Check::ok(
            KEYS,
            format!(
                "statement {} by {}",
                statement.serial(),
                base32(statement.domain_key().as_bytes())
            ),
        ),
        (None, Some(_)) => Check::fail(
            KEYS,
            "its keys do not follow from the pinned one",
            "ask its operator for the key by another way, then `commucat-cli peer add --key`",
        ),
        (None, None) => Check::fail(
            KEYS,
            "its keys are not signed as they must be",
            "its operator should run `commucat-cli diagnose`",
        ),
    }
}

async fn echo(door: &mut Door, domain: &Domain) -> Check {
    if !door.is_server() {
        return Check::skip(ECHO, "no server runs here");
    }
    let request = Request::PingPeer {
        domain: domain.as_str().to_owned(),
    };
    match door.ask(request).await {
        Ok(Answer::Pinged(ping)) => Check::ok(
            ECHO,
            format!("a signed answer came after {} ms", ping.milliseconds),
        ),
        Ok(_) => Check::fail(ECHO, "the answer does not fit", "restart the server"),
        Err(report) => Check::fail(
            ECHO,
            report.line(),
            "the steps above tell more; a wrong clock and a block at the other end show here only",
        ),
    }
}
