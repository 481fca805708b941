//! ERROR: an RFC 9457 problem, in CBOR in the tunnel and in JSON before it (CCP-1 section 7).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::handshake::JsonError;
use super::key_update::LogEntry;
use crate::error::Title;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// A failure as it is told to the other side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Keys 0, 1 and 2.
    pub title: Title,
    /// Key 3: for people; never repeats what the other side sent.
    pub detail: Cow<'static, str>,
    /// Key 4.
    pub extra: Box<ProblemExtra>,
    /// Key 5: the request or MSG that it concerns. Without it the connection ends.
    pub sequence: Option<u32>,
}

impl Problem {
    /// A problem that ends the connection.
    #[must_use]
    pub fn new(title: Title, detail: &'static str) -> Self {
        let extra = Box::default();
        Self {
            title,
            detail: Cow::Borrowed(detail),
            extra,
            sequence: None,
        }
    }

    /// The same problem of one request or MSG: the connection goes on.
    #[must_use]
    pub const fn of_frame(mut self, sequence: u32) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// The same problem with the time to wait.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.extra.retry_after = Some(seconds);
        self
    }
}

/// What a program needs to go on after a problem.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProblemExtra {
    /// Key 0: seconds.
    pub retry_after: Option<u64>,
    /// Key 1: the head of the group's log.
    pub head: Option<u64>,
    /// Key 2: `[position, entry]` of the entries that the author lacks.
    pub missing: Vec<LogEntry>,
    /// Key 3: there are more of them; FETCH.
    pub more: bool,
    /// Key 4: the versions that the server speaks.
    pub versions: Vec<u64>,
}

impl Cbor for Problem {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.key(0).text(self.title.urn());
            map.key(1).text(self.title.as_str());
            map.key(2).uint(self.title.status());
            map.key(3).text(&self.detail);
            if *self.extra != ProblemExtra::default() {
                map.put(4, &*self.extra);
            }
            map.put_some(5, self.sequence.as_ref());
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut title, mut name, mut status, mut detail) = (None, None, None, None);
        let (mut extra, mut sequence) = (Box::<ProblemExtra>::default(), None);
        from.map(|key, from| {
            match key {
                0 => title = Some(read_title(from.text()?)?),
                1 => name = Some(from.text()?),
                2 => status = Some(from.uint()?),
                3 => detail = Some(from.text()?.to_owned()),
                4 => *extra = ProblemExtra::read(from)?,
                5 => sequence = Some(u32::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        required(name, 1)?;
        required(status, 2)?;
        Ok(Self {
            title: required(title, 0)?,
            detail: Cow::Owned(required(detail, 3)?),
            extra,
            sequence,
        })
    }
}

fn read_title(urn: &str) -> Result<Title, CborError> {
    Title::of_urn(urn).ok_or(CborError::Range("the type of a problem"))
}

impl Cbor for ProblemExtra {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put_some(0, self.retry_after.as_ref());
            map.put_some(1, self.head.as_ref());
            if !self.missing.is_empty() {
                let list = map.key(2);
                list.array(self.missing.len());
                for entry in &self.missing {
                    list.array(2);
                    entry.position.write(list);
                    entry.write(list);
                }
            }
            map.put_flag(3, self.more);
            map.put_list(4, &self.versions);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut extra = Self::default();
        from.map(|key, from| {
            match key {
                0 => extra.retry_after = Some(from.uint()?),
                1 => extra.head = Some(from.uint()?),
                2 => extra.missing = from.list(read_missing)?,
                3 => extra.more = from.flag()?,
                4 => extra.versions = from.list(u64::read)?,
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(extra)
    }
}

fn read_missing(from: &mut Reader<'_>) -> Result<LogEntry, CborError> {
    from.tuple(2, |from| {
        let position = from.uint()?;
        let entry = LogEntry::read(from)?;
        if entry.position == position {
            Ok(entry)
        } else {
            Err(CborError::Range("the position of an entry"))
        }
    })
}

/// The form before the tunnel.
#[derive(Deserialize, Serialize)]
struct ProblemJson<'a> {
    #[serde(rename = "type", borrow)]
    urn: Cow<'a, str>,
    #[serde(borrow)]
    title: Cow<'a, str>,
    status: u16,
    #[serde(borrow)]
    detail: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    versions: Vec<u64>,
}

impl Problem {
    /// The JSON form before the tunnel. Of the extras it has the versions only.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let json = ProblemJson {
            urn: Cow::Borrowed(self.title.urn()),
            title: Cow::Borrowed(self.title.as_str()),
            status: self.title.status(),
            detail: Cow::Borrowed(&self.detail),
            versions: self.extra.versions.clone(),
        };
        super::handshake::to_json(&json)
    }

    /// Reads the JSON form before the tunnel.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if it is not such a document or its type is unknown.
    pub fn of_json(raw: &[u8]) -> Result<Self, JsonError> {
        let json: ProblemJson<'_> = super::handshake::of_json(raw)?;
        let title = Title::of_urn(&json.urn).ok_or(JsonError::Member("type"))?;
        let extra = Box::new(ProblemExtra {
            versions: json.versions,
            ..ProblemExtra::default()
        });
        let detail = Cow::Owned(json.detail.into_owned());
        Ok(Self {
            title,
            detail,
            extra,
            sequence: None,
        })
    }
}
