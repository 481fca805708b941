//! Answers requests with an open client, as JSON; `render` makes text of it.

use std::time::Duration;

use commucat_client::{Client, ClientError, Connection, Contact, Decision, Message, Tick};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::args::{DeviceRequest, GroupRequest, PhraseRequest, Request, StrangerRequest, Wait};
use crate::report::Failure;

/// Runs one request; `within` bounds the waiting for the server.
pub(crate) async fn answer(
    client: &Client,
    request: Request,
    within: Duration,
) -> Result<Value, Failure> {
    match request {
        Request::Me => me(client).await,
        Request::Add { link, petname } => {
            let contact = client.add_contact(&link, &petname).await?;
            Ok(contact_json(&contact))
        }
        Request::Contacts => {
            let contacts = client.contacts().await?;
            Ok(json!({ "contacts": contacts.iter().map(contact_json).collect::<Vec<_>>() }))
        }
        Request::Send { to, text, wait } => send(client, (&to, &text), wait, within).await,
        Request::History { name, limit } => history(client, &name, limit).await,
        Request::Safety { name, verified } => safety(client, &name, verified, within).await,
        Request::Groups => groups(client).await,
        Request::Group(request) => group(client, request, within).await,
        Request::Stranger(request) => stranger(client, request).await,
        Request::Device(request) => device(client, request, within).await,
        Request::Phrase(PhraseRequest::Show) => {
            Ok(json!({ "phrase": client.recovery_phrase().await? }))
        }
        Request::Phrase(PhraseRequest::Enter { words }) => {
            client.enter_phrase(&words).await?;
            Ok(json!({ "done": true }))
        }
        Request::Status => status(client).await,
    }
}

pub(crate) async fn me(client: &Client) -> Result<Value, Failure> {
    let me = client.me().await?;
    Ok(json!({
        "account": me.account.as_str(),
        "domain": me.domain,
        "address": format!("{}@{}", me.account.as_str(), me.domain),
        "device": me.device.as_str(),
        "contact_link": me.contact_link,
        "holds_account_key": me.holds_account_key,
    }))
}

fn contact_json(contact: &Contact) -> Value {
    json!({
        "name": contact.petname,
        "account": contact.account.as_str(),
        "domain": contact.domain,
        "devices": contact.devices,
        "verified": contact.verified,
        "conversation": contact.conversation.map(|id| HEXLOWER.encode(id.as_bytes())),
    })
}

async fn send(
    client: &Client,
    (to, text): (&str, &str),
    wait: Wait,
    within: Duration,
) -> Result<Value, Failure> {
    let wanted = match wait {
        Wait::Queued => Tick::Queued,
        Wait::Stored => Tick::Stored,
        Wait::Delivered => Tick::Delivered,
        Wait::Read => Tick::Read,
    };
    let sent = client.send(to, text).await?;
    let tick = match client.wait(sent, wanted, within).await {
        Ok(tick) => tick,
        Err(ClientError::Timeout) => {
            let what = format!("message is not yet {}", wanted.as_str());
            return Err(later(client, &what));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(json!({
        "message": HEXLOWER.encode(sent.message.as_bytes()),
        "conversation": HEXLOWER.encode(sent.conversation.as_bytes()),
        "tick": tick.as_str(),
    }))
}

fn later(client: &Client, what: &str) -> Failure {
    let mut failure = Failure::new(
        format!("{what}; it is kept and tried again"),
        "`commucat status` shows the connection; `commucat listen` keeps trying",
    );
    if let Connection::Offline { reason } = client.connection() {
        failure.causes.push(reason);
    }
    failure.code = crate::report::LATER;
    failure
}

async fn history(client: &Client, name: &str, limit: usize) -> Result<Value, Failure> {
    let mut messages = Vec::new();
    let mut after = 0;
    loop {
        let page = client.history(name, after, 500).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        messages.extend(page);
        let surplus = messages.len().saturating_sub(limit);
        messages.drain(..surplus);
    }
    Ok(json!({ "messages": messages.iter().map(message_json).collect::<Vec<_>>() }))
}

/// A message as `listen --json` and `history --json` show it.
pub(crate) fn message_json(message: &Message) -> Value {
    json!({
        "number": message.number,
        "id": HEXLOWER.encode(message.id.as_bytes()),
        "conversation": HEXLOWER.encode(message.conversation.as_bytes()),
        "group": message.group_name,
        "from": message.author_name,
        "account": message.author.as_str(),
        "device": message.device.as_str(),
        "own": message.own,
        "sent": message.sent.as_millis(),
        "text": message.text,
        "tick": message.own.then(|| message.tick.as_str()),
    })
}

async fn safety(
    client: &Client,
    name: &str,
    verified: bool,
    within: Duration,
) -> Result<Value, Failure> {
    let number = match client.safety(name).await {
        // The contact's key comes with its device list, which needs the server once.
        Err(ClientError::NotNow(_)) => {
            client.caught_up(within).await?;
            client.safety(name).await?
        }
        other => other?,
    };
    if verified {
        client.mark_verified(name).await?;
    }
    let known = client
        .contacts()
        .await?
        .into_iter()
        .find(|contact| contact.petname == name);
    Ok(json!({
        "name": name,
        "digits": number.digits,
        "qr": number.qr,
        "verified": known.is_some_and(|contact| contact.verified),
    }))
}

async fn groups(client: &Client) -> Result<Value, Failure> {
    let all = client.conversations().await?;
    let all: Vec<_> = all
        .iter()
        .map(|conversation| {
            let members: Vec<_> = conversation
                .members
                .iter()
                .map(|(account, name)| json!({ "account": account.as_str(), "name": name }))
                .collect();
            json!({
                "id": HEXLOWER.encode(conversation.id.as_bytes()),
                "name": conversation.name,
                "group": conversation.group,
                "members": members,
                "devices": conversation.devices,
                "suite": format!("0x{:04X}", conversation.suite),
                "position": conversation.position,
                "ready": conversation.ready,
                "unsent": conversation.unsent,
            })
        })
        .collect();
    Ok(json!({ "groups": all }))
}

async fn group(client: &Client, request: GroupRequest, within: Duration) -> Result<Value, Failure> {
    match request {
        GroupRequest::Create { name, members } => {
            let members: Vec<&str> = members.iter().map(String::as_str).collect();
            let id = client.create_group(&name, &members).await?;
            return Ok(json!({ "group": HEXLOWER.encode(id.as_bytes()), "name": name }));
        }
        GroupRequest::Invite { group, name } => client.invite(&group, &name).await?,
        GroupRequest::Remove { group, name } => {
            client.remove(&group, &name).await?;
            match client.quiet(within).await {
                Err(ClientError::Timeout) => {
                    return Err(later(client, "member is not removed yet"));
                }
                other => other?,
            }
        }
        GroupRequest::Leave { group } => client.leave(&group).await?,
    }
    Ok(json!({ "done": true }))
}

async fn stranger(client: &Client, request: StrangerRequest) -> Result<Value, Failure> {
    let (who, decision) = match request {
        StrangerRequest::List => {
            // Requests that wait on the server belong to the list; offline it shows what is here.
            drop(client.caught_up(Duration::from_secs(3)).await);
            let all = client.requests().await?;
            let all: Vec<_> = all
                .iter()
                .map(|request| {
                    json!({
                        "account": request.from.as_str(),
                        "domain": request.domain,
                        "conversation": HEXLOWER.encode(request.conversation.as_bytes()),
                    })
                })
                .collect();
            return Ok(json!({ "requests": all }));
        }
        StrangerRequest::Accept { who, petname } => (who, Decision::Accept { petname }),
        StrangerRequest::Decline { who } => (who, Decision::Decline),
        StrangerRequest::Block { who } => (who, Decision::Block),
    };
    client.decide(&who, decision).await?;
    Ok(json!({ "done": true }))
}

async fn device(
    client: &Client,
    request: DeviceRequest,
    within: Duration,
) -> Result<Value, Failure> {
    match request {
        DeviceRequest::List => {
            let all = client.devices().await?;
            let all: Vec<_> = all
                .iter()
                .map(|device| json!({ "device": device.id.as_str(), "current": device.current }))
                .collect();
            Ok(json!({ "devices": all }))
        }
        DeviceRequest::Link { code } => {
            client.connected(within).await?;
            Ok(json!({ "answer": client.link_device(&code).await? }))
        }
        DeviceRequest::Revoke { device, yes } => {
            if !yes {
                return Err(Failure::new(
                    "this removes the device from the account for good",
                    "add `--yes` to do it",
                ));
            }
            client.connected(within).await?;
            client.revoke_device(&device).await?;
            Ok(json!({ "done": true }))
        }
    }
}

async fn status(client: &Client) -> Result<Value, Failure> {
    // A command that just started has not had the time to connect.
    drop(client.connected(Duration::from_secs(3)).await);
    let status = client.status().await?;
    let (connection, reason) = connection_words(&status.connection);
    Ok(json!({
        "connection": connection,
        "reason": reason,
        "account": status.me.account.as_str(),
        "domain": status.me.domain,
        "device": status.me.device.as_str(),
        "endpoint": status.endpoint,
        "outbox": status.outbox,
        "conversations": status.conversations,
        "contacts": status.contacts,
        "key_packages": status.key_packages,
    }))
}

/// The word for a state of the connection, and its reason.
pub(crate) fn connection_words(state: &Connection) -> (&'static str, Option<&str>) {
    match state {
        Connection::Connecting => ("connecting", None),
        Connection::Online => ("online", None),
        Connection::CaughtUp => ("caught up", None),
        Connection::Offline { reason } => ("offline", Some(reason)),
        Connection::Replaced => (
            "replaced",
            Some("another connection of this device took over"),
        ),
        Connection::Stopped { reason } => ("stopped", Some(reason)),
        Connection::Revoked => ("revoked", Some("this device was removed from the account")),
    }
}
