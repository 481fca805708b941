//! The store: through the server that has it open, or opened here.

use commucat_admin::{Answer, Client, Failure, Request, Response, SocketError};
use commucat_config::Config;
use commucat_storage::{Migrations, OpenError};

use super::check::{Check, Checks};
use crate::args;
use crate::report::{Report, store_hint};
use crate::site;

const NAME: &str = "store";
const SERVER: &str = "server";

/// Checks it; whether a server runs.
pub(super) async fn check(config: &Config, how: &args::Diagnose, checks: &mut Checks) -> bool {
    match Client::connect(&config.server.data).await {
        Ok(Some(mut client)) => {
            through_server(&mut client, how, checks).await;
            true
        }
        Ok(None) => {
            directly(config, how, checks).await;
            false
        }
        Err(error) => {
            let detail = Report::of(&error).line();
            checks.push(Check::fail(
                SERVER,
                detail,
                "run this as the server's user or as root",
            ));
            true
        }
    }
}

async fn through_server(client: &mut Client, how: &args::Diagnose, checks: &mut Checks) {
    match client.ask(&Request::Status).await {
        Ok(Response::Done(Answer::Status(status))) => {
            let ours = env!("CARGO_PKG_VERSION");
            let detail = format!("runs, release {}, {}", status.version, status.endpoint);
            checks.push(if status.version == ours {
                Check::ok(SERVER, detail)
            } else {
                Check::warn(SERVER, detail, format!("this program is of release {ours}"))
            });
            if status.ledger.failing {
                let detail = format!("takes no entries, {} failures", status.ledger.failures);
                checks.push(Check::fail(
                    "ledger",
                    detail,
                    "is its disk full? See `ledger.path`",
                ));
            }
            if status.corrupt_rows > 0 {
                let detail = format!("{} rows found damaged", status.corrupt_rows);
                checks.push(Check::fail(
                    NAME,
                    detail,
                    "is the disk failing? Make a backup now",
                ));
            }
        }
        other => checks.push(Check::fail(SERVER, said(other), "restart the server")),
    }
    let hint = "is the disk full or failing? The server's log says more";
    checks.push(match client.ask(&Request::Health).await {
        Ok(Response::Done(Answer::Healthy)) => Check::ok(NAME, "held by the server, takes writes"),
        other => Check::fail(NAME, said(other), hint),
    });
    if how.quick {
        return;
    }
    checks.push(match client.ask(&Request::CheckStore).await {
        Ok(Response::Done(Answer::Healthy)) => Check::ok(NAME, "structure is sound"),
        Err(SocketError::Slow) => Check::warn(
            NAME,
            "the check of the whole store takes long",
            "leave it out by --quick",
        ),
        other => Check::fail(NAME, said(other), hint),
    });
}

async fn directly(config: &Config, how: &args::Diagnose, checks: &mut Checks) {
    if site::location(config).is_ok_and(|location| !location.is_made()) {
        checks.push(Check::skip(
            NAME,
            "none yet; `commucat-cli init` or the server makes it",
        ));
        return;
    }
    let store = match site::open_store(config, Migrations::Refuse).await {
        Ok(store) => store,
        Err(error @ (OpenError::InUse | OpenError::OlderSchema { .. })) => {
            checks.push(Check::warn(
                NAME,
                Report::of(&error).line(),
                store_hint(&error),
            ));
            return;
        }
        Err(error) => {
            checks.push(Check::fail(
                NAME,
                Report::of(&error).line(),
                store_hint(&error),
            ));
            return;
        }
    };
    checks.push(Check::ok(
        NAME,
        format!("opens, schema version {}", store.schema_version()),
    ));
    if !how.quick {
        checks.push(match store.check_integrity().await {
            Ok(()) => Check::ok(NAME, "structure is sound"),
            Err(error) => Check::fail(NAME, Report::of(&error).line(), "go back to your backup"),
        });
    }
    store.close().await;
}

/// What a server answered that it should not have.
fn said(answer: Result<Response, SocketError>) -> String {
    match answer {
        Err(error) => Report::of(&error).line(),
        Ok(Response::Failed(Failure {
            message, causes, ..
        })) => [vec![message], causes].concat().join(": "),
        Ok(Response::Done(_)) => "the answer does not fit the request".to_owned(),
    }
}
