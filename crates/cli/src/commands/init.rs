//! `init`: data directory, keys, store, first invite.

use std::path::{Path, PathBuf};

use commucat_admin::{Answer, Client, NewInvite, Request};
use commucat_config::{Config, Registration};
use commucat_crypto::keyring::{Keyring, KeyringError};
use commucat_proto::id::base32;
use commucat_storage::Migrations;
use serde::Serialize;

use super::invite;
use crate::clock;
use crate::door::{Direct, Door, other_answer};
use crate::output::Output;
use crate::report::Report;
use crate::site;

/// The first invite: the operator and the first friends, as the server's own.
const FIRST_INVITE_USES: u32 = 5;
const FIRST_INVITE_SECONDS: u64 = 30 * 86_400;

#[derive(Serialize)]
struct Made {
    domain: String,
    domain_key: String,
    data: PathBuf,
    keys: PathBuf,
    /// Whether the keys are new; if not, nothing was made.
    created: bool,
    schema_version: u32,
    invite: Option<NewInvite>,
}

/// Runs it.
pub(crate) async fn run(config: &Config, output: Output) -> Result<(), Report> {
    let data = &config.server.data;
    if Client::connect(data).await?.is_some() {
        let hint = "there is nothing to do: the server has made everything";
        return Err(Report::new("a server works on this directory").hint(hint));
    }
    make_directory(data)?;
    let (path, domain) = (config.keys_path(), &config.server.domain);
    let created = match Keyring::open(&path, domain) {
        Ok(_) => false,
        Err(KeyringError::Missing { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    let keyring = Keyring::open_or_create(&path, domain, clock::now())?;
    let store = site::open_store(config, Migrations::Apply).await?;
    let schema_version = store.schema_version();
    let mut door = Door::Direct(Box::new(Direct::new(config, store)?));
    let is_wanted = created && config.server.registration == Registration::Invite;
    let invite = if is_wanted {
        first_invite(&mut door).await.map(Some)
    } else {
        Ok(None)
    };
    door.close().await;
    let made = Made {
        domain: domain.as_str().to_owned(),
        domain_key: base32(keyring.domain_key().as_bytes()),
        data: data.clone(),
        keys: path,
        created,
        schema_version,
        invite: invite?,
    };
    output.show(&made, text)
}

async fn first_invite(door: &mut Door) -> Result<NewInvite, Report> {
    let request = Request::CreateInvite {
        uses: FIRST_INVITE_USES,
        lasts_seconds: FIRST_INVITE_SECONDS,
    };
    let Answer::Created(made) = door.ask(request).await? else {
        return Err(other_answer());
    };
    Ok(made)
}

fn make_directory(path: &Path) -> Result<(), Report> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|error| {
        let message = format!("cannot make the data directory `{}`", path.display());
        Report::new(message).hint(format!("{error}; name another one with --data"))
    })
}

fn text(made: &Made) -> String {
    let state = if made.created {
        "made"
    } else {
        "there already, left as they are"
    };
    let mut text = format!(
        "Domain      {}\nDomain key  {}\nData        {}\nKeys        {} ({state})\nStore       \
         schema version {}\n\n",
        made.domain,
        made.domain_key,
        made.data.display(),
        made.keys.display(),
        made.schema_version,
    );
    match &made.invite {
        Some(new) => text.push_str(&invite::created_text(new)),
        None => text.push_str("No invite was made; `commucat-cli invite create` makes one.\n"),
    }
    text.push_str(
        "\nBack up the keys: without them this domain is another one for every client.\n\
         Next: start the server with the same configuration: commucat-server\n",
    );
    text
}
