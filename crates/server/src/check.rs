//! `--check`: looks at everything that a start needs, changes nothing.

use std::error::Error;
use std::io::Write;

use commucat_config::{Config, LedgerSink};
use commucat_crypto::keyring::Keyring;
use commucat_storage::{Migrations, OpenError, Options, Store};

use crate::listen::ports;
use crate::tls::Identity;
use crate::tls::certificate::{Certificate, CertificateError, host_of};
use crate::{clock, cluster, start, telemetry};

/// A certificate that ends sooner is worth a word.
const RENEWAL_DAYS: u64 = 14;

/// One result.
enum Finding {
    Good(String),
    Notice(String),
    Bad(String),
}

/// Checks and prints a line for each result; whether all is well.
pub fn run(config: &Config, out: &mut dyn Write) -> bool {
    let mut findings = vec![Finding::Good("configuration".to_owned()), log(config)];
    findings.extend(certificate(config));
    findings.push(keys(config));
    findings.push(store(config));
    findings.extend(redis(config));
    findings.push(ledger(config));
    findings.push(ports(config));
    let mut is_good = true;
    for finding in &findings {
        let (mark, text) = match finding {
            Finding::Good(text) => ("ok    ", text),
            Finding::Notice(text) => ("note  ", text),
            Finding::Bad(text) => {
                is_good = false;
                ("wrong ", text)
            }
        };
        // A closed pipe does not change the result.
        writeln!(out, "{mark} {text}").ok();
    }
    is_good
}

fn bad(what: &str, error: &dyn Error) -> Finding {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    Finding::Bad(text)
}

fn log(config: &Config) -> Finding {
    match telemetry::check(&config.server.log) {
        Ok(()) => Finding::Good("log filter".to_owned()),
        Err(error) => bad("log filter", &error),
    }
}

fn certificate(config: &Config) -> Vec<Finding> {
    let (chain, key) = (config.tls_certificate_path(), config.tls_key_path());
    if config.server.tls_certificate.is_none() && !chain.exists() {
        let text = "certificate: a self-signed one will be made on first start";
        return vec![Finding::Notice(text.to_owned())];
    }
    let read = match Certificate::read(&chain) {
        Ok(read) => read,
        Err(error) => return vec![bad("certificate", &error)],
    };
    let mut findings = Vec::new();
    match Identity::load(chain, key, &config.server.domain) {
        Ok(_) => findings.push(Finding::Good("certificate and key fit together".to_owned())),
        // Said below for domain and endpoint.
        Err(CertificateError::Name { .. }) => {}
        Err(error) => findings.push(bad("certificate", &error)),
    }
    let endpoint = config.endpoint();
    for host in [host_of(&config.server.domain), host_of(&endpoint)] {
        findings.push(if read.covers(host) {
            Finding::Good(format!("certificate names {host}"))
        } else {
            Finding::Bad(format!("certificate does not name {host}"))
        });
    }
    findings.dedup_by(
        |one, other| matches!((one, other), (Finding::Good(a), Finding::Good(b)) if a == b),
    );
    findings.push(validity(&read));
    findings
}

fn validity(certificate: &Certificate) -> Finding {
    let now = clock::now();
    if certificate.not_before > now {
        return Finding::Bad("certificate is not valid yet (or this clock is behind)".to_owned());
    }
    let days = certificate.not_after.since(now).as_secs() / 86_400;
    match days {
        0 => Finding::Bad("certificate has expired or ends today".to_owned()),
        1..=RENEWAL_DAYS => Finding::Notice(format!("certificate ends in {days} days")),
        _ => Finding::Good("certificate is valid for more than two weeks".to_owned()),
    }
}

fn keys(config: &Config) -> Finding {
    let path = config.keys_path();
    if !path.exists() {
        return Finding::Notice("keys: will be made on first start".to_owned());
    }
    match Keyring::open(&path, &config.server.domain) {
        Ok(_) => Finding::Good("keys of the domain".to_owned()),
        Err(error) => bad("keys", &error),
    }
}

fn store(config: &Config) -> Finding {
    let url = config.store_url();
    let is_empty = |path: &std::path::Path| {
        let entries = path.read_dir();
        entries.map_or(true, |mut entries| entries.next().is_none())
    };
    if url.directory().is_some_and(is_empty) {
        return Finding::Notice("store: will be made on first start".to_owned());
    }
    let options = Options {
        migrations: Migrations::Refuse,
        ..start::options(config)
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return bad("store", &error),
    };
    let opened = runtime.block_on(async {
        let store = Store::open(start::location(config)?, options).await?;
        store.close().await;
        Ok::<_, OpenError>(())
    });
    match opened {
        Ok(()) => Finding::Good("store opens".to_owned()),
        Err(OpenError::InUse) => {
            Finding::Notice("store: in use, probably by the running server".to_owned())
        }
        Err(OpenError::OlderSchema { found: 0, .. }) => {
            Finding::Notice("store: its tables will be made on first start".to_owned())
        }
        Err(OpenError::OlderSchema { .. }) => {
            Finding::Notice("store: will be brought up to date on start".to_owned())
        }
        Err(error) => bad("store", &error),
    }
}

/// Its address only: without Redis a server starts, and serves.
fn redis(config: &Config) -> Option<Finding> {
    let url = config.storage.redis_url.as_ref()?;
    Some(match cluster::check_address(url) {
        Ok(()) => Finding::Good("address of Redis".to_owned()),
        Err(error) => bad("address of Redis", &error),
    })
}

fn ledger(config: &Config) -> Finding {
    let path = config.ledger_path();
    let is_file = config.ledger.sink == LedgerSink::File;
    let parent_is_there = path.parent().is_none_or(|parent| parent.exists());
    if is_file && !parent_is_there && config.ledger.path.is_some() {
        return Finding::Bad("ledger: its directory does not exist".to_owned());
    }
    Finding::Good(format!("ledger: {}", config.ledger.sink.as_str()))
}

fn ports(config: &Config) -> Finding {
    match ports::check(&config.server.listen) {
        Ok(addresses) => Finding::Good(format!("ports are free: {}", start::places(&addresses))),
        Err(error) => bad("ports", &error),
    }
}
