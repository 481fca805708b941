//! `commucat listen`: what arrives, line by line, until Ctrl-C.

use std::collections::{HashMap, HashSet};

use commucat_client::{Change, Client, Connection, Event, Message};
use commucat_proto::id::GroupId;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::ask::{connection_words, message_json};
use crate::render;
use crate::report::{Failure, line, note};

/// How `listen` shows things.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) json: bool,
    pub(crate) read: bool,
    pub(crate) count: Option<u64>,
}

struct Listener<'a> {
    client: &'a Client,
    style: Style,
    shown: u64,
    /// Numbers of messages shown in this run: an event may repeat what the start-up list had.
    seen: HashSet<u64>,
    /// Names of groups, of those that were left meanwhile too.
    groups: HashMap<GroupId, String>,
}

/// Runs until `stop`, until the client ends, or until `count` messages were shown.
pub(crate) async fn run(
    client: &Client,
    style: Style,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut events = client.subscribe();
    let mut listener = Listener {
        client,
        style,
        shown: 0,
        seen: HashSet::new(),
        groups: HashMap::new(),
    };
    listener.learn_groups().await?;
    if listener.catch_up().await? {
        return Ok(());
    }
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            event = events.next() => event,
        };
        match event {
            None => return Err(Failure::new("client has stopped", "see the lines above")),
            Some(Event::Message(message)) => {
                if listener.show(&[message]).await? {
                    return Ok(());
                }
            }
            Some(Event::Behind { .. }) => {
                if listener.catch_up().await? {
                    return Ok(());
                }
            }
            Some(event) if event.is_notice() => {
                tell_notices(client, |event| listener.tell(event)).await?;
            }
            Some(Event::Conversation {
                conversation,
                change,
            }) => {
                if matches!(change, Change::Ready | Change::Settings) {
                    listener.learn_groups().await?;
                }
                listener.tell_change(conversation, change);
            }
            Some(event) => {
                let over = matches!(
                    event,
                    Event::Connection(
                        Connection::Replaced | Connection::Revoked | Connection::Stopped { .. }
                    )
                );
                listener.tell(&event);
                if over {
                    return Err(Failure::new("this device cannot stay connected", ""));
                }
            }
        }
    }
}

impl Listener<'_> {
    /// Shows what was stored but not shown; says whether it is enough.
    async fn catch_up(&mut self) -> Result<bool, Failure> {
        tell_notices(self.client, |event| self.tell(event)).await?;
        loop {
            let page = self.client.unshown(200).await?;
            if page.is_empty() {
                return Ok(false);
            }
            if self.show(&page).await? {
                return Ok(true);
            }
        }
    }

    async fn show(&mut self, messages: &[Message]) -> Result<bool, Failure> {
        let mut numbers = Vec::new();
        for message in messages {
            numbers.push(message.number);
            if message.own || !self.seen.insert(message.number) {
                continue;
            }
            if self.style.json {
                let mut value = message_json(message);
                tag(&mut value, "message");
                line(&value.to_string());
            } else {
                line(&render::arrived(&message_json(message)));
            }
            self.shown += 1;
        }
        self.client.mark_shown(numbers).await?;
        if self.style.read {
            let conversations: HashSet<_> = messages.iter().map(|m| m.conversation).collect();
            for conversation in conversations {
                self.client
                    .mark_read(&HEXLOWER.encode(conversation.as_bytes()))
                    .await?;
            }
        }
        Ok(self.style.count.is_some_and(|count| self.shown >= count))
    }

    /// Learns the names of groups; a listing for programs has their ids.
    async fn learn_groups(&mut self) -> Result<(), Failure> {
        if self.style.json {
            return Ok(());
        }
        let conversations = self.client.conversations().await?;
        let groups = conversations.into_iter().filter(|one| one.group);
        self.groups.extend(groups.map(|one| (one.id, one.name)));
        Ok(())
    }

    /// Tells of a group that one is in, or not any more.
    fn tell_change(&self, conversation: GroupId, change: Change) {
        if self.style.json {
            self.tell(&Event::Conversation {
                conversation,
                change,
            });
        } else if let Some(name) = self.groups.get(&conversation) {
            let name = render::group_name(name);
            match change {
                Change::Ready => note(&format!("(you are in the group {name})")),
                Change::Left => note(&format!("(you are not in the group {name} any more)")),
                Change::Closed => note(&format!("(the group {name} was closed)")),
                // Lost is a notice; the rest shows in `commucat groups`.
                Change::Members | Change::Settings | Change::Lost | _ => {}
            }
        }
    }

    fn tell(&self, event: &Event) {
        if self.style.json {
            if let Some(value) = event_json(event) {
                line(&value.to_string());
            }
        } else {
            say(event);
        }
    }
}

/// Tells what people have to hear of and have not yet, be it of an earlier run.
pub(crate) async fn tell_notices(client: &Client, tell: impl Fn(&Event)) -> Result<(), Failure> {
    let notices = client.notices().await?;
    notices.iter().for_each(|notice| tell(&notice.event));
    let numbers = notices.iter().map(|notice| notice.number).collect();
    Ok(client.mark_notices_shown(numbers).await?)
}

/// Says it in words, on stderr.
pub(crate) fn say(event: &Event) {
    if let Some(text) = event_text(event) {
        note(&text);
    }
}

fn tag(value: &mut Value, event: &str) {
    if let Value::Object(map) = value {
        map.insert("event".to_owned(), event.into());
    }
}

fn event_json(event: &Event) -> Option<Value> {
    let hex = |id: &[u8]| HEXLOWER.encode(id);
    Some(match event {
        Event::Tick {
            conversation,
            message,
            tick,
        } => json!({
            "event": "tick", "conversation": hex(conversation.as_bytes()),
            "message": hex(message.as_bytes()), "tick": tick.as_str(),
        }),
        Event::Request(request) => json!({
            "event": "request", "conversation": hex(request.conversation.as_bytes()),
            "account": request.from.as_str(), "domain": request.domain,
        }),
        Event::Conversation {
            conversation,
            change,
        } => json!({
            "event": "conversation", "conversation": hex(conversation.as_bytes()),
            "change": change_word(*change),
        }),
        Event::Connection(state) => {
            let (state, reason) = connection_words(state);
            json!({ "event": "connection", "state": state, "reason": reason })
        }
        Event::Gap { conversation } => json!({
            "event": "gap", "conversation": conversation.map(|id| hex(id.as_bytes())),
        }),
        Event::Fork { conversation } => {
            json!({ "event": "fork", "conversation": hex(conversation.as_bytes()) })
        }
        Event::Undelivered {
            conversation,
            message,
            reason,
        } => json!({
            "event": "undelivered", "conversation": hex(conversation.as_bytes()),
            "message": hex(message.as_bytes()), "reason": format!("{reason:?}").to_lowercase(),
        }),
        Event::Devices => json!({ "event": "devices" }),
        Event::CertificateWarning => json!({ "event": "certificate warning" }),
        // Shown otherwise, or of a later version of the library.
        Event::Message(_) | Event::Behind { .. } | _ => return None,
    })
}

const fn change_word(change: Change) -> &'static str {
    match change {
        Change::Ready => "ready",
        Change::Members => "members",
        Change::Settings => "settings",
        Change::Left => "left",
        Change::Lost => "lost",
        Change::Closed => "closed",
        _ => "other",
    }
}

fn event_text(event: &Event) -> Option<String> {
    Some(match event {
        Event::Request(request) => format!(
            "{} wants to talk to you: `commucat request accept {} --as NAME`, or decline, or block",
            request.from.as_str(),
            request.from.as_str().get(..8).unwrap_or_default(),
        ),
        Event::Connection(state) => match connection_words(state) {
            ("connecting", _) => return None,
            (state, None) => format!("({state})"),
            (state, Some(reason)) => format!("({state}: {reason})"),
        },
        Event::Gap { .. } => {
            "(some messages are missing: they waited too long or did not fit)".to_owned()
        }
        Event::Fork { .. } => {
            "WARNING: a group may be split: its members do not see the same history; start a new \
             group with the same people"
                .to_owned()
        }
        Event::Conversation {
            change: Change::Lost,
            ..
        } => "(this device cannot find back into a group and has left it: ask a member to add it \
              again)"
            .to_owned(),
        Event::Undelivered { reason, .. } if event.is_notice() => {
            format!(
                "(a message did not reach everybody: {})",
                format!("{reason:?}").to_lowercase()
            )
        }
        Event::Devices => {
            "(the devices of your account changed: `commucat device list`)".to_owned()
        }
        Event::CertificateWarning => crate::CERTIFICATE_WARNING.to_owned(),
        // Shown otherwise, or of a later version of the library.
        Event::Message(_)
        | Event::Tick { .. }
        | Event::Conversation { .. }
        | Event::Undelivered { .. }
        | Event::Behind { .. }
        | _ => return None,
    })
}
