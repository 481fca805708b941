//! `migrate`: brings the store up to date.

use commucat_admin::Client;
use commucat_config::Config;
use commucat_crypto::keyring::Keyring;
use commucat_storage::{Migrations, OpenError};
use serde::Serialize;

use crate::output::Output;
use crate::report::Report;
use crate::site;

#[derive(Serialize)]
struct Migrated {
    from: u32,
    to: u32,
}

/// Runs it.
pub(crate) async fn run(config: &Config, output: Output) -> Result<(), Report> {
    if Client::connect(&config.server.data).await?.is_some() {
        let hint = "there is nothing to do: the server migrates when it starts";
        return Err(Report::new("a server works on this store").hint(hint));
    }
    Keyring::open(&config.keys_path(), &config.server.domain)?;
    let migrated = match site::open_store(config, Migrations::Refuse).await {
        Ok(store) => {
            let version = store.schema_version();
            store.close().await;
            Migrated {
                from: version,
                to: version,
            }
        }
        Err(OpenError::OlderSchema { found, .. }) => {
            let store = site::open_store(config, Migrations::Apply).await?;
            let version = store.schema_version();
            store.close().await;
            Migrated {
                from: found,
                to: version,
            }
        }
        Err(error) => return Err(error.into()),
    };
    output.show(&migrated, |Migrated { from, to }| {
        if from == to {
            format!("the store has schema version {to} already")
        } else {
            format!("the store has schema version {to} now; it had {from}")
        }
    })
}
