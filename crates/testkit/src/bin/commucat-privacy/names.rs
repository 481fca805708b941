//! The words of the canaries: long enough to be unique, new in each run.

use anyhow::Result;
use commucat_testkit::canary::{Allowed, Canary};
use data_encoding::BASE32_NOPAD;

/// What people call each other and write.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) alice: String,
    pub(crate) bob: String,
    pub(crate) carol: String,
    pub(crate) stranger: String,
    pub(crate) guest: String,
    pub(crate) group: String,
    pub(crate) texts: Vec<String>,
    /// What a request over plain HTTP says of its sender.
    pub(crate) agent: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) forwarded: String,
}

/// Texts that the flows send.
pub(crate) const TEXTS: usize = 12;

impl Names {
    pub(crate) fn new() -> Result<Self> {
        let texts = (0..TEXTS).map(|number| word(&format!("text-{number}")));
        Ok(Self {
            alice: word("alice")?,
            bob: word("bob")?,
            carol: word("carol")?,
            stranger: word("stranger")?,
            guest: word("guest")?,
            group: word("group")?,
            texts: texts.collect::<Result<_>>()?,
            agent: word("agent")?,
            host: format!("{}.example", word("host")?),
            path: word("path")?,
            token: word("bearer")?,
            forwarded: "203.0.113.177".to_owned(),
        })
    }

    /// The `number`-th text.
    pub(crate) fn text(&self, number: usize) -> &str {
        self.texts.get(number).map_or("", String::as_str)
    }

    /// Them all.
    pub(crate) fn canaries(&self) -> Vec<Canary> {
        let named = [
            ("petname of alice", &self.alice),
            ("petname of bob", &self.bob),
            ("petname of carol", &self.carol),
            ("petname of a stranger", &self.stranger),
            ("petname of a guest", &self.guest),
            ("name of the group", &self.group),
            ("user agent", &self.agent),
            ("host header", &self.host),
            ("requested path", &self.path),
            ("bearer token", &self.token),
            ("forwarded address", &self.forwarded),
        ];
        let named = named.map(|(name, text)| Canary::text(name, Allowed::Nowhere, text));
        let texts = self.texts.iter().enumerate();
        let texts = texts
            .map(|(number, text)| Canary::text(&format!("text {number}"), Allowed::Nowhere, text));
        named.into_iter().chain(texts).collect()
    }
}

fn word(kind: &str) -> Result<String> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    let random = BASE32_NOPAD.encode(&random).to_lowercase();
    Ok(format!("canary-{kind}-{random}"))
}
