//! What crosses between domains, taken apart: each event, each answer, and what is around them, held
//! against the schema of the protocol, in which nothing is left open.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use commucat_federation::Outcome;
use commucat_federation::batch::{Batch, Settled};
use commucat_federation::discovery::{EVENTS_PATH, WELL_KNOWN_PATH};
use commucat_federation::event::{Body, Class, Delivered, Event, EventId, Requested};
use commucat_proto::frame::directory::DirectoryResult;
use commucat_proto::frame::fetch::{Fetch, FetchAccess};
use commucat_proto::frame::key_package::KeyPackage;
use commucat_proto::frame::key_update::KeyUpdate;
use commucat_proto::identity::DeviceList;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader};
use commucat_testkit::cddl::Schema;
use commucat_testkit::tap::Exchange;

/// Headers beside those that HTTP/2 cannot do without (CCP-1 section 8.2).
const ASKED: [&str; 1] = ["content-type"];
const ANSWERED: [&str; 4] = [
    "content-type",
    "content-length",
    "cache-control",
    "retry-after",
];
const DOCUMENT_ANSWERED: [&str; 4] = [
    "content-type",
    "content-length",
    "cache-control",
    "access-control-allow-origin",
];
/// Members of a refusal of the whole request (CCP-1 section 8.2).
const REFUSAL: [&str; 4] = ["status", "time", "title", "type"];
/// Members of the well-known document (CCP-1 section 3.6).
const DOCUMENT: [&str; 7] = [
    "chain",
    "domain",
    "endpoint",
    "ledger",
    "registration",
    "server_keys",
    "versions",
];

const DOCUMENT_PLACE: (&str, &str) = ("GET", WELL_KNOWN_PATH);

/// What it is that crosses.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum What {
    /// Heads, and of batches and answers all but their events.
    Around,
    Message,
    Typing,
    Commit,
    Welcome,
    Notice,
    Submit,
    SubmitTyping,
    Return,
    Tag,
    Change,
    Log,
    Claim,
    Directory,
}

impl What {
    /// Those that the world of the suite makes; its clients never tell that somebody types.
    pub(crate) const PLAYED: [Self; 12] = [
        Self::Around,
        Self::Message,
        Self::Commit,
        Self::Welcome,
        Self::Notice,
        Self::Submit,
        Self::Return,
        Self::Tag,
        Self::Change,
        Self::Log,
        Self::Claim,
        Self::Directory,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Around => "what is around events",
            Self::Message => "deliver MSG",
            Self::Typing => "deliver TYPING",
            Self::Commit => "deliver KEY_UPDATE",
            Self::Welcome => "deliver GROUP_INVITE",
            Self::Notice => "deliver GROUP_EVENT",
            Self::Submit => "submit MSG",
            Self::SubmitTyping => "submit TYPING",
            Self::Return => "return",
            Self::Tag => "tag",
            Self::Change => "request KEY_UPDATE",
            Self::Log => "request FETCH",
            Self::Claim => "request KEY_PACKAGE",
            Self::Directory => "request DIRECTORY",
        }
    }

    fn of(body: &Body) -> Self {
        match body {
            Body::Deliver(deliver) => match deliver.frame {
                Delivered::Message => Self::Message,
                Delivered::Typing => Self::Typing,
                Delivered::KeyUpdate => Self::Commit,
                Delivered::GroupInvite => Self::Welcome,
                Delivered::GroupEvent => Self::Notice,
            },
            Body::Submit(submit) => match submit.class {
                Class::Durable => Self::Submit,
                Class::Ephemeral => Self::SubmitTyping,
            },
            Body::Return(_) => Self::Return,
            Body::Tag(_) => Self::Tag,
            Body::Request(request) => match request.frame {
                Requested::KeyUpdate => Self::Change,
                Requested::Fetch => Self::Log,
                Requested::KeyPackage => Self::Claim,
                Requested::Directory => Self::Directory,
            },
        }
    }

    /// The rule of what a `request` gets.
    fn result(self) -> Result<&'static str> {
        Ok(match self {
            Self::Change => "key-update-result",
            Self::Log => "fetch-result",
            Self::Claim => "claim-result",
            Self::Directory => "directory-result",
            Self::Around
            | Self::Message
            | Self::Typing
            | Self::Commit
            | Self::Welcome
            | Self::Notice
            | Self::Submit
            | Self::SubmitTyping
            | Self::Return
            | Self::Tag => bail!("a result for {}", self.name()),
        })
    }
}

/// Which way it goes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Way {
    Asked,
    Answered,
}

/// One thing that crossed.
#[derive(Clone, Debug)]
pub(crate) struct Crossing {
    pub(crate) what: What,
    pub(crate) way: Way,
    /// Who asks; empty where that is not said.
    pub(crate) origin: String,
    /// Who is asked.
    pub(crate) destination: String,
    /// The event, or its result.
    pub(crate) bytes: Bytes,
    /// The event, both ways.
    pub(crate) body: Option<Body>,
}

impl Crossing {
    /// The domain that learns it.
    pub(crate) fn reader(&self) -> &str {
        match self.way {
            Way::Asked => &self.destination,
            Way::Answered => &self.origin,
        }
    }

    pub(crate) fn name(&self) -> String {
        let way = match self.way {
            Way::Asked => "",
            Way::Answered => "the answer to ",
        };
        format!("{way}{}", self.what.name())
    }
}

/// Takes apart what was asked of the domain `asked`.
pub(crate) fn read(exchange: &Exchange, asked: &str, schema: &Schema) -> Result<Vec<Crossing>> {
    let (method, path) = (exchange.method.as_str(), exchange.path.as_str());
    known(exchange.asked.keys().map(http_name), &ASKED).context("a request's headers")?;
    let answered = if (method, path) == DOCUMENT_PLACE {
        DOCUMENT_ANSWERED
    } else {
        ANSWERED
    };
    known(exchange.answered.keys().map(http_name), &answered).context("an answer's headers")?;
    let head = format!("{method} {path} {:?}", exchange.asked);
    let mut found = vec![around("", asked, Way::Asked, head.into())];
    let head = format!("{} {:?}", exchange.status, exchange.answered);
    found.push(around("", asked, Way::Answered, head.into()));
    if (method, path) == DOCUMENT_PLACE {
        ensure!(exchange.request.is_empty(), "a GET with a body");
        if exchange.status == 200 {
            members(&exchange.answer, &DOCUMENT)?;
        }
        found.push(around("", asked, Way::Answered, exchange.answer.clone()));
        return Ok(found);
    }
    ensure!(
        (method, path) == ("POST", EVENTS_PATH),
        "{method} {path} between domains"
    );
    let batch = Batch::decode(&exchange.request)?;
    schema.check("signed", &exchange.request)?;
    schema.check("federation-request", &batch.signed.body)?;
    ensure!(batch.destination.as_str() == asked, "a batch for another");
    let origin = batch.origin.as_str();
    let rest = without(&batch.signed.body, 4)?;
    found.push(around(origin, asked, Way::Asked, rest));
    let mut events = BTreeMap::new();
    for raw in &batch.events {
        let event = raw.decode()?;
        check_event(&event, schema)?;
        let crossing = Crossing {
            what: What::of(&event.body),
            way: Way::Asked,
            origin: origin.to_owned(),
            destination: asked.to_owned(),
            bytes: raw.encoded().clone(),
            body: Some(event.body),
        };
        events.insert(event.id, crossing);
    }
    found.append(&mut answers(exchange, &events, schema)?);
    found.extend(events.into_values());
    Ok(found)
}

/// Whether an event of this kind is in it.
pub(crate) fn holds(exchange: &Exchange, what: What) -> bool {
    let batch = Batch::decode(&exchange.request);
    let events = batch.map(|batch| batch.events).unwrap_or_default();
    let mut events = events.iter().filter_map(|raw| raw.decode().ok());
    events.any(|event| What::of(&event.body) == what)
}

/// The answer to a batch, from whom `asked` was.
fn answers(
    exchange: &Exchange,
    events: &BTreeMap<EventId, Crossing>,
    schema: &Schema,
) -> Result<Vec<Crossing>> {
    let whole = |bytes: Bytes| {
        let first = events.values().next();
        let (origin, asked) = first.map_or(("", ""), |one| (&one.origin, &one.destination));
        around(origin, asked, Way::Answered, bytes)
    };
    match exchange.status {
        // It died.
        0 => return Ok(Vec::new()),
        200 => {}
        _ => {
            members(&exchange.answer, &REFUSAL)?;
            return Ok(vec![whole(exchange.answer.clone())]);
        }
    }
    let signed = Signed::decode_shared(&exchange.answer)?;
    schema.check("signed", &exchange.answer)?;
    schema.check("federation-answer", &signed.body)?;
    let mut found = vec![whole(without(&signed.body, 3)?)];
    let mut settled = Vec::new();
    Reader::new(&signed.body).map(|key, from| match key {
        3 => from.list(|from| from.item()).map(|all| settled = all),
        _ => from.skip(),
    })?;
    for raw in settled {
        let one = Settled::decode_shared(&raw)?;
        let asked = events.get(&one.event).context("an answer to nothing")?;
        let result = result_of(&raw)?;
        let what = asked.what.name();
        let fits = match (&one.outcome, &result) {
            (Outcome::Custody(unsettled), Some(result)) if !unsettled.is_empty() => {
                ensure!(
                    asked.what < What::Submit,
                    "references in the answer to {what}"
                );
                schema.check("unsettled", result)
            }
            (Outcome::Result(_), Some(result)) => {
                schema.check(asked.what.result()?, result)?;
                check_result(asked.what, result, schema)
            }
            (Outcome::Refused(_), Some(result)) => schema.check("problem", result),
            (Outcome::Custody(_) | Outcome::Gone | Outcome::Later, None) => Ok(()),
            _ => bail!("an outcome with a result that it does not have"),
        };
        fits.with_context(|| format!("the answer to {what}"))?;
        found.push(Crossing {
            way: Way::Answered,
            bytes: raw,
            ..asked.clone()
        });
    }
    Ok(found)
}

fn around(origin: &str, destination: &str, way: Way, bytes: Bytes) -> Crossing {
    Crossing {
        what: What::Around,
        way,
        origin: origin.to_owned(),
        destination: destination.to_owned(),
        bytes,
        body: None,
    }
}

/// The third item of `[event id, outcome, ?result]`.
fn result_of(raw: &Bytes) -> Result<Option<Bytes>> {
    let items = Reader::new(raw).list(|from| from.item())?;
    let result = items.get(2).map(|item| Reader::new(item).bytes());
    Ok(result.transpose()?)
}

/// An event and what is inside it, as deep as anything can be read.
fn check_event(event: &Event, schema: &Schema) -> Result<()> {
    let what = What::of(&event.body);
    let checked = || {
        schema.check("event", event.encoded())?;
        match &event.body {
            Body::Deliver(deliver) => match deliver.frame {
                Delivered::KeyUpdate => schema.check("entry", &deliver.payload),
                Delivered::GroupInvite => schema.check("group-invite", &deliver.payload),
                Delivered::GroupEvent => schema.check("group-event", &deliver.payload),
                Delivered::Message | Delivered::Typing => Ok(()),
            },
            Body::Request(request) => check_request(request.frame, &request.payload, schema),
            Body::Submit(_) | Body::Return(_) | Body::Tag(_) => Ok(()),
        }
    };
    checked().with_context(|| what.name())
}

fn check_request(frame: Requested, payload: &Bytes, schema: &Schema) -> Result<()> {
    match frame {
        Requested::KeyUpdate => {
            schema.check("key-update-up", payload)?;
            let update = KeyUpdate::decode_shared(payload)?;
            schema.check("bundle", &update.bundle.body)
        }
        Requested::Fetch => {
            schema.check("fetch", payload)?;
            match Fetch::decode_shared(payload)?.access {
                FetchAccess::Joiner(read) => schema.check("join-read", &read.body),
                FetchAccess::Member { .. } => Ok(()),
            }
        }
        Requested::KeyPackage => {
            let is_claim = matches!(KeyPackage::decode_shared(payload)?, KeyPackage::Claim(_));
            ensure!(is_claim, "an operation that is for the home server");
            schema.check("claim", payload)
        }
        Requested::Directory => schema.check("get", payload),
    }
}

/// What is signed inside a result.
fn check_result(what: What, result: &Bytes, schema: &Schema) -> Result<()> {
    if what != What::Directory {
        return Ok(());
    }
    let list = DirectoryResult::decode_shared(result)?.list;
    schema.check("device-list", &list.body)?;
    for certificate in DeviceList::decode_shared(&list.body)?.certificates {
        schema.check("device-certificate", &certificate.body)?;
    }
    Ok(())
}

/// The values of a map, without that of one key.
fn without(map: &Bytes, key: u64) -> Result<Bytes> {
    let mut rest = Vec::new();
    Reader::new(map).map(|own, from| -> Result<_, CborError> {
        let item = from.item()?;
        if own != key {
            rest.extend_from_slice(&item);
        }
        Ok(())
    })?;
    Ok(rest.into())
}

fn members(json: &[u8], allowed: &[&str]) -> Result<()> {
    let object: BTreeMap<String, serde_json::Value> = serde_json::from_slice(json)?;
    known(object.keys().map(String::as_str), allowed)
}

fn known<'a>(names: impl Iterator<Item = &'a str>, allowed: &[&str]) -> Result<()> {
    let more: Vec<_> = names.filter(|name| !allowed.contains(name)).collect();
    ensure!(more.is_empty(), "not listed: {more:?}");
    Ok(())
}

fn http_name(name: &http::HeaderName) -> &str {
    name.as_str()
}
