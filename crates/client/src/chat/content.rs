//! What people say: the plaintext of an application message (CCP-1 section 5.5).

use bytes::Bytes;
use commucat_proto::id::{AccountKey, Domain, MessageId, Token};
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader, required};
use commucat_proto::wire::writer::Writer;

/// Why a plaintext is not a content. The message counts as invalid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("content of a message is malformed")]
pub struct ContentError(#[from] CborError);

/// One message as people mean it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    /// What it is.
    pub body: Body,
    /// The author's clock when it was written.
    pub sent: Timestamp,
    /// The message that this one answers.
    pub reply_to: Option<MessageId>,
    /// Which counted content of this device in this group it is, from 1; a content that is sealed
    /// again keeps its counter. 0 is not counted: nobody misses it.
    pub counter: u64,
    /// Every counter of this device up to this one was settled when this was sealed: the hub had the
    /// content, or it was given up. Whoever has not got it by now never will.
    pub settled: Option<u64>,
}

/// What a message is (key 0) with what it says (key 1).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Body {
    /// 1: text.
    Text(String),
    /// 2: the recipient's device stored or showed messages.
    Receipt {
        /// How far they came.
        stage: Stage,
        /// Which ones.
        messages: Vec<MessageId>,
    },
    /// 3: a reaction to a message; an empty text takes it back.
    Reaction {
        /// The message reacted to.
        to: MessageId,
        /// The reaction.
        text: String,
    },
    /// 4: a new text for one's own message.
    Edit {
        /// The message that changes.
        of: MessageId,
        /// Its new text.
        text: String,
    },
    /// 5: one's own message is withdrawn.
    Delete(MessageId),
    /// 7: lets the group's other members claim key packages of an account.
    Capability {
        /// Whose account.
        account: AccountKey,
        /// Its home.
        domain: Domain,
        /// What grants it.
        capability: Token,
    },
    /// 8: settings of the group.
    Settings {
        /// What the group is called.
        name: String,
    },
    /// Any other kind: kept, not shown. A newer client may read it later.
    Unknown {
        /// Its number.
        kind: u64,
        /// The CBOR item at key 1, as received.
        body: Bytes,
    },
}

/// How far a message came on the recipient's device.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// 1: it is in the device's store.
    Stored,
    /// 2: it was shown.
    Read,
}

impl Body {
    /// The number of the kind.
    #[must_use]
    pub const fn kind(&self) -> u64 {
        match self {
            Self::Text(_) => 1,
            Self::Receipt { .. } => 2,
            Self::Reaction { .. } => 3,
            Self::Edit { .. } => 4,
            Self::Delete(_) => 5,
            Self::Capability { .. } => 7,
            Self::Settings { .. } => 8,
            Self::Unknown { kind, .. } => *kind,
        }
    }
}

impl Content {
    /// The deterministic encoding, which [`crate::chat::Chat::seal`] encrypts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Cbor::encode(self)
    }

    /// Reads what another device wrote.
    ///
    /// # Errors
    ///
    /// [`ContentError`] with the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        Ok(<Self as Cbor>::decode(bytes)?)
    }
}

impl Cbor for Content {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.body.kind());
            self.body.write(map.key(1));
            map.put(2, &self.sent);
            map.put_some(3, self.reply_to.as_ref());
            map.put(4, &self.counter);
            map.put_some(5, self.settled.as_ref());
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut kind, mut body, mut sent) = (None, None, None);
        let (mut reply_to, mut counter, mut settled) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => kind = Some(from.uint()?),
                1 => body = Some(from.item()?),
                2 => sent = Some(Timestamp::read(from)?),
                3 => reply_to = Some(MessageId::read(from)?),
                4 => counter = Some(from.uint()?),
                5 => settled = Some(from.uint()?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            body: Body::read(required(kind, 0)?, &required(body, 1)?)?,
            sent: required(sent, 2)?,
            reply_to,
            counter: required(counter, 4)?,
            settled,
        })
    }
}

impl Body {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Text(text) => to.text(text),
            Self::Receipt { stage, messages } => {
                to.array(2);
                to.uint(match stage {
                    Stage::Stored => 1u8,
                    Stage::Read => 2,
                });
                to.list(messages);
            }
            Self::Reaction { to: message, text } | Self::Edit { of: message, text } => {
                to.map(|map| {
                    map.put(0, message);
                    map.key(1).text(text);
                });
            }
            Self::Delete(message) => message.write(to),
            Self::Capability {
                account,
                domain,
                capability,
            } => to.map(|map| {
                map.put(0, account);
                map.put(1, domain);
                map.put(2, capability);
            }),
            Self::Settings { name } => to.map(|map| map.key(0).text(name)),
            Self::Unknown { body, .. } => to.raw(body),
        }
    }

    /// Reads the one item that is at key 1.
    fn read(kind: u64, item: &Bytes) -> Result<Self, CborError> {
        let from = &mut Reader::new(item);
        Ok(match kind {
            1 => Self::Text(from.text()?.to_owned()),
            2 => from.tuple(2, |from| {
                let stage = match from.uint()? {
                    1 => Stage::Stored,
                    2 => Stage::Read,
                    _ => return Err(CborError::Range("the stage of a receipt")),
                };
                Ok(Self::Receipt {
                    stage,
                    messages: from.list(MessageId::read)?,
                })
            })?,
            3 => {
                let (to, text) = message_and_text(from)?;
                Self::Reaction { to, text }
            }
            4 => {
                let (of, text) = message_and_text(from)?;
                Self::Edit { of, text }
            }
            5 => Self::Delete(MessageId::read(from)?),
            7 => capability(from)?,
            8 => {
                let mut name = None;
                from.map(|key, from| {
                    match key {
                        0 => name = Some(from.text()?.to_owned()),
                        _ => from.skip()?,
                    }
                    Ok(())
                })?;
                Self::Settings {
                    name: required(name, 0)?,
                }
            }
            _ => Self::Unknown {
                kind,
                body: item.clone(),
            },
        })
    }
}

fn message_and_text(from: &mut Reader<'_>) -> Result<(MessageId, String), CborError> {
    let (mut message, mut text) = (None, None);
    from.map(|key, from| {
        match key {
            0 => message = Some(MessageId::read(from)?),
            1 => text = Some(from.text()?.to_owned()),
            _ => from.skip()?,
        }
        Ok(())
    })?;
    Ok((required(message, 0)?, required(text, 1)?))
}

fn capability(from: &mut Reader<'_>) -> Result<Body, CborError> {
    let (mut account, mut domain, mut capability) = (None, None, None);
    from.map(|key, from| {
        match key {
            0 => account = Some(AccountKey::read(from)?),
            1 => domain = Some(Domain::read(from)?),
            2 => capability = Some(Token::read(from)?),
            _ => from.skip()?,
        }
        Ok(())
    })?;
    Ok(Body::Capability {
        account: required(account, 0)?,
        domain: required(domain, 1)?,
        capability: required(capability, 2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(body: Body) -> Content {
        Content {
            body,
            sent: Timestamp::from_millis(1_700_000_000_000),
            reply_to: Some(MessageId::new([7; 16])),
            counter: 3,
            settled: Some(1),
        }
    }

    #[test]
    fn every_kind_survives_a_round_trip() {
        let bodies = [
            Body::Text("grüß dich".to_owned()),
            Body::Receipt {
                stage: Stage::Read,
                messages: vec![MessageId::new([1; 16])],
            },
            Body::Reaction {
                to: MessageId::new([1; 16]),
                text: "👍".to_owned(),
            },
            Body::Edit {
                of: MessageId::new([1; 16]),
                text: "b".to_owned(),
            },
            Body::Delete(MessageId::new([1; 16])),
            Body::Capability {
                account: AccountKey::new([2; 32]),
                domain: Domain::parse("example.org").unwrap(),
                capability: Token::new([3; 16]),
            },
            Body::Settings {
                name: "friends".to_owned(),
            },
            Body::Unknown {
                kind: 99,
                body: vec![0x82, 0x01, 0x02].into(),
            },
        ];

        for body in bodies {
            let sent = content(body);
            assert_eq!(Content::decode(&sent.encode()), Ok(sent));
        }
    }

    #[test]
    fn a_text_has_the_bytes_of_the_protocol() {
        let bytes = Content {
            body: Body::Text("hi".to_owned()),
            sent: Timestamp::from_millis(1000),
            reply_to: None,
            counter: 1,
            settled: None,
        }
        .encode();

        assert_eq!(
            bytes,
            [0xa4, 0, 1, 1, 0x62, b'h', b'i', 2, 0x19, 0x03, 0xe8, 4, 1]
        );
    }

    #[test]
    fn content_cut_at_any_byte_is_malformed() {
        let bytes = content(Body::Text("hello".to_owned())).encode();

        for end in 0..bytes.len() {
            assert!(Content::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn duplicate_keys_floats_tags_and_trailing_bytes_are_malformed() {
        let duplicate = [0xa5, 0, 1, 0, 1, 1, 0x61, b'x', 2, 1, 4, 1];
        let float = [0xa4, 0, 0x18, 99, 1, 0xf9, 0, 0, 2, 1, 4, 1];
        let tag = [0xa4, 0, 0x18, 99, 1, 0xc0, 0, 2, 1, 4, 1];
        let indefinite = [0xa4, 0, 0x18, 99, 1, 0x9f, 0xff, 2, 1, 4, 1];
        let trailing = [0xa4, 0, 1, 1, 0x61, b'x', 2, 1, 4, 1, 0];

        for bytes in [&duplicate[..], &float, &tag, &indefinite, &trailing] {
            assert!(Content::decode(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn unknown_keys_are_ignored() {
        let bytes = [0xa5, 0, 1, 1, 0x61, b'x', 2, 1, 4, 1, 0x18, 40, 0x80];

        assert_eq!(
            Content::decode(&bytes).unwrap().body,
            Body::Text("x".to_owned())
        );
    }
}
