//! Text for people, made of the answers in JSON.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::Value;

use crate::args::{DeviceRequest, GroupRequest, PhraseRequest, Request, StrangerRequest};

/// The lines for one answer.
pub(crate) fn text(request: &Request, answer: &Value) -> Vec<String> {
    match request {
        Request::Me => me(answer),
        Request::Add { .. } => vec![format!(
            "added {}: {}@{}",
            field(answer, "name"),
            field(answer, "account"),
            field(answer, "domain")
        )],
        Request::Contacts => contacts(answer),
        Request::Send { .. } => vec![field(answer, "tick")],
        Request::History { .. } => items(answer, "messages").iter().map(message).collect(),
        Request::Safety { .. } => safety(answer),
        Request::Groups => groups(answer),
        Request::Group(GroupRequest::Create { name, .. }) => vec![format!("made group {name}")],
        Request::Stranger(StrangerRequest::List) => requests(answer),
        Request::Device(DeviceRequest::List) => devices(answer),
        Request::Device(DeviceRequest::Link { .. }) => link_answer(answer),
        Request::Group(_)
        | Request::Stranger(_)
        | Request::Device(DeviceRequest::Revoke { .. })
        | Request::Phrase(PhraseRequest::Enter { .. }) => {
            vec!["done".to_owned()]
        }
        Request::Phrase(PhraseRequest::Show) => phrase(answer),
        Request::Status => status(answer),
    }
}

/// The value of a field as plain text.
pub(crate) fn field(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Own account, with its link as a QR code.
pub(crate) fn me(answer: &Value) -> Vec<String> {
    let link = field(answer, "contact_link");
    let mut out = vec![
        format!("account       {}", field(answer, "address")),
        format!("this device   {}", field(answer, "device")),
        format!("contact link  {link}"),
    ];
    out.extend(qr(&link));
    out.push("Give this link to people who should be able to write to you.".to_owned());
    out
}

/// A QR code in half-block characters; nothing if the text is too long for one.
pub(crate) fn qr(text: &str) -> Option<String> {
    let code = QrCode::new(text.as_bytes()).ok()?;
    Some(code.render::<Dense1x2>().quiet_zone(true).build())
}

fn contacts(answer: &Value) -> Vec<String> {
    let all = items(answer, "contacts");
    if all.is_empty() {
        return vec!["no contacts yet: `commucat add <contact link> --as NAME`".to_owned()];
    }
    all.iter()
        .map(|contact| {
            let verified = contact.get("verified") == Some(&Value::Bool(true));
            format!(
                "{:<16} {}@{}  {} device(s){}",
                field(contact, "name"),
                field(contact, "account"),
                field(contact, "domain"),
                field(contact, "devices"),
                if verified { "  verified" } else { "" },
            )
        })
        .collect()
}

/// One message among those of other conversations: a group is named, a chat of two is not.
pub(crate) fn arrived(value: &Value) -> String {
    let group = group_name(&field(value, "group"));
    if group.is_empty() {
        return message(value);
    }
    format!("[{group}] {}", message(value))
}

/// One message as a line.
pub(crate) fn message(message: &Value) -> String {
    let tick = field(message, "tick");
    let tick = if tick.is_empty() {
        tick
    } else {
        format!("  [{tick}]")
    };
    format!(
        "{}: {}{tick}",
        field(message, "from"),
        printable(&field(message, "text"))
    )
}

/// The name of a group, on one line.
pub(crate) fn group_name(name: &str) -> String {
    printable(name).replace(['\n', '\t'], " ")
}

/// Text of others must not move the cursor or recolour the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

fn safety(answer: &Value) -> Vec<String> {
    let digits = field(answer, "digits");
    let groups: Vec<&str> = digits.split(' ').collect();
    let mut out: Vec<String> = groups.chunks(4).map(|row| row.join(" ")).collect();
    out.extend(qr(&field(answer, "qr")));
    let name = field(answer, "name");
    out.push(if answer.get("verified") == Some(&Value::Bool(true)) {
        format!("You marked {name} as verified.")
    } else {
        format!(
            "Compare with what `commucat safety` shows on {name}'s side, face to face or over a \
             call. If it is the same: `commucat safety {name} --verified`."
        )
    });
    out
}

fn groups(answer: &Value) -> Vec<String> {
    let all = items(answer, "groups");
    if all.is_empty() {
        return vec!["no conversations yet".to_owned()];
    }
    all.iter()
        .map(|group| {
            let members: Vec<_> = items(group, "members")
                .iter()
                .map(|member| field(member, "name"))
                .collect();
            format!(
                "{:<16} {}  {} device(s), suite {}{}",
                field(group, "name"),
                members.join(", "),
                field(group, "devices"),
                field(group, "suite"),
                if group.get("ready") == Some(&Value::Bool(true)) {
                    ""
                } else {
                    "  (not ready)"
                },
            )
        })
        .collect()
}

fn requests(answer: &Value) -> Vec<String> {
    let all = items(answer, "requests");
    if all.is_empty() {
        return vec!["no requests".to_owned()];
    }
    all.iter()
        .map(|request| format!("{}@{}", field(request, "account"), field(request, "domain")))
        .collect()
}

fn devices(answer: &Value) -> Vec<String> {
    items(answer, "devices")
        .iter()
        .map(|device| {
            let current = device.get("current") == Some(&Value::Bool(true));
            format!(
                "{}{}",
                field(device, "device"),
                if current { "  (this one)" } else { "" }
            )
        })
        .collect()
}

fn link_answer(answer: &Value) -> Vec<String> {
    let answer = field(answer, "answer");
    let mut out = vec![
        "Paste this answer on the new device:".to_owned(),
        answer.clone(),
    ];
    out.extend(qr(&answer));
    out
}

fn phrase(answer: &Value) -> Vec<String> {
    let phrase = field(answer, "phrase");
    let words: Vec<&str> = phrase.split(' ').collect();
    let mut out: Vec<String> = words
        .chunks(6)
        .enumerate()
        .map(|(row, words)| format!("{:>2}. {}", row * 6 + 1, words.join(" ")))
        .collect();
    out.push(
        "Write them on paper. Whoever has them has your account; we cannot restore them."
            .to_owned(),
    );
    out
}

fn status(answer: &Value) -> Vec<String> {
    let reason = field(answer, "reason");
    let reason = if reason.is_empty() {
        reason
    } else {
        format!(" ({reason})")
    };
    vec![
        format!("connection     {}{reason}", field(answer, "connection")),
        format!(
            "server         {} ({})",
            field(answer, "endpoint"),
            field(answer, "domain")
        ),
        format!("account        {}", field(answer, "account")),
        format!("this device    {}", field(answer, "device")),
        format!("outbox         {}", field(answer, "outbox")),
        format!("conversations  {}", field(answer, "conversations")),
        format!("contacts       {}", field(answer, "contacts")),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_names_its_group_and_nothing_more() {
        let mut value = json!({ "from": "bob", "text": "at eight" });
        assert_eq!(arrived(&value), "bob: at eight");

        // Members choose the name: it must not look like another line.
        value["group"] = "hiking\nalice: yes\u{1b}[2K".into();
        assert_eq!(
            arrived(&value),
            "[hiking alice: yes\u{fffd}[2K] bob: at eight"
        );
    }
}
