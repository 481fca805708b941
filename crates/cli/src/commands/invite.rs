//! `invite`: made, listed, revoked.

use commucat_admin::{Answer, Hidden, Invite, NewInvite, Request};
use commucat_config::{Config, Registration};
use commucat_proto::link::InviteLink;
use data_encoding::HEXLOWER;
use serde::Serialize;

use crate::args;
use crate::clock;
use crate::door::{Door, other_answer};
use crate::output::{Output, table};
use crate::qr;
use crate::report::Report;
use crate::time::show;

/// Digits of an invite's name.
const ID_LEN: usize = 16;

#[derive(Serialize)]
struct Listed {
    invites: Vec<Invite>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: Invite,
}

/// Runs it.
pub(crate) async fn run(
    config: &Config,
    command: args::Invite,
    output: Output,
) -> Result<(), Report> {
    let mut door = Door::open(config).await?;
    let done = match command {
        args::Invite::Create { uses, expires, qr } => {
            let request = Request::CreateInvite {
                uses,
                lasts_seconds: expires.as_secs(),
            };
            let made = door.ask(request).await;
            made.and_then(|made| created(config, made, qr, output))
        }
        args::Invite::List => list(&mut door, output).await,
        args::Invite::Revoke { invite } => revoke(&mut door, &invite, output).await,
    };
    door.close().await;
    done
}

fn created(config: &Config, made: Answer, with_code: bool, output: Output) -> Result<(), Report> {
    let Answer::Created(made) = made else {
        return Err(other_answer());
    };
    output.show(&made, |made| {
        let mut text = created_text(made);
        match config.server.registration {
            Registration::Invite => {}
            Registration::Open => text.push_str("Note: registration is open; nobody needs it.\n"),
            Registration::Closed => {
                text.push_str(
                    "Note: registration is closed; nobody can use it until you open it.\n",
                );
            }
        }
        if with_code {
            let code = qr::draw(made.link.as_str());
            text.push('\n');
            text.push_str(&code.unwrap_or_else(|| "the link is too long for a QR code".to_owned()));
        }
        text
    })
}

/// What is printed for a new invite, also by `init`.
pub(super) fn created_text(made: &NewInvite) -> String {
    let accounts = match made.invite.uses {
        1 => "one account".to_owned(),
        uses => format!("{uses} accounts"),
    };
    format!(
        "Invite {} for {accounts}, until {}. Whoever has the link can join; it cannot be shown \
         again.\n\n  commucat join '{}'\n",
        made.invite.id,
        show(made.invite.expires_ms),
        made.link.as_str(),
    )
}

async fn list(door: &mut Door, output: Output) -> Result<(), Report> {
    let mut listed = Listed {
        invites: Vec::new(),
    };
    loop {
        let skip = u64::try_from(listed.invites.len()).unwrap_or(u64::MAX);
        let Answer::Invites(page) = door.ask(Request::ListInvites { skip }).await? else {
            return Err(other_answer());
        };
        let is_end = !page.more || page.invites.is_empty();
        listed.invites.extend(page.invites);
        if is_end {
            break;
        }
    }
    output.show(&listed, |listed| {
        if listed.invites.is_empty() {
            return "no invites; `commucat-cli invite create` makes one\n".to_owned();
        }
        let rows: Vec<_> = listed.invites.iter().map(row).collect();
        table(["INVITE", "USES LEFT", "MADE", "EXPIRES", "STATE"], &rows)
    })
}

fn row(invite: &Invite) -> [String; 5] {
    let state = if invite.uses_left == 0 {
        "used up"
    } else if invite.expires_ms <= clock::now().as_millis() {
        "expired"
    } else {
        "live"
    };
    [
        invite.id.clone(),
        format!("{} of {}", invite.uses_left, invite.uses),
        show(invite.created_ms),
        show(invite.expires_ms),
        state.to_owned(),
    ]
}

async fn revoke(door: &mut Door, invite: &str, output: Output) -> Result<(), Report> {
    let invite = Hidden::new(name_of(invite));
    let Answer::InviteRevoked(revoked) = door.ask(Request::RevokeInvite { invite }).await? else {
        return Err(other_answer());
    };
    output.show(&Revoked { revoked }, |Revoked { revoked }| {
        format!(
            "Invite {} is revoked. Accounts that it opened stay.\n",
            revoked.id
        )
    })
}

/// The name of the invite that a text means: its link, or its name.
fn name_of(text: &str) -> String {
    match InviteLink::parse(text) {
        Ok(link) => {
            let mut name = HEXLOWER.encode(link.token.hash().as_bytes());
            name.truncate(ID_LEN);
            name
        }
        Err(_) => text.trim().to_ascii_lowercase(),
    }
}
