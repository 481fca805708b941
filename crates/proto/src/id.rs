//! Identifiers. They travel on the wire and in the store, never in a log line.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use bytes::BufMut as _;
use data_encoding::{BASE32_NOPAD, HEXLOWER_PERMISSIVE};

/// A keyed hash of an identifier, for logs.
///
/// The key is random and dies with the process, so tags can be neither linked across restarts nor
/// found by hashing guesses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogTag(u64);

impl LogTag {
    fn of(kind: &str, raw: impl Hash) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(KEY.hash_one((kind, raw)))
    }
}

impl fmt::Display for LogTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 32)
    }
}

/// Why bytes are not an identifier. Carries names and sizes, never the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdError {
    /// Too short or too long.
    #[error("{what} of {len} bytes")]
    Length {
        /// What was parsed.
        what: &'static str,
        /// Bytes received.
        len: usize,
    },
    /// A character that the identifier does not allow.
    #[error("{what} holds a character that is not allowed")]
    Charset {
        /// What was parsed.
        what: &'static str,
    },
}

/// Declares an identifier of a fixed number of bytes whose `Debug` shows a tag only.
macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
        pub struct $name([u8; $len]);

        // Without the length that an array's hash has in front: it is always the same.
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write(&self.0);
            }
        }

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps exactly the bytes given.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Parses an identifier received from outside.
            ///
            /// # Errors
            ///
            /// [`IdError::Length`] unless `raw` has exactly [`Self::LEN`] bytes.
            pub fn parse(raw: &[u8]) -> Result<Self, IdError> {
                raw.try_into()
                    .map(Self)
                    .map_err(|_| IdError::Length { what: $what, len: raw.len() })
            }

            /// The bytes for the wire and the store. Not for logs.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// A tag for logs: same identifier, same tag, until the process restarts.
            #[must_use]
            pub fn tag(&self) -> LogTag {
                LogTag::of($what, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.tag())
            }
        }
    };
}

bytes_id! {
    /// A group: 32 random bytes chosen by its creator (CCP-1 section 5.1).
    GroupId, 32, "group id"
}
bytes_id! {
    /// A member's pseudonym in one group: an Ed25519 public key (CCP-1 section 5.0).
    Handle, 32, "handle"
}
bytes_id! {
    /// Names one durable frame; chosen at random by its author (CCP-1 section 4).
    MessageId, 16, "message id"
}
bytes_id! {
    /// One device's queue on its home server; never leaves it in clear (CCP-1 section 5.0).
    QueueId, 16, "queue id"
}
bytes_id! {
    /// Names one entry of a queue by its content (CCP-1 section 4, "Exactly once on screen").
    DedupeKey, 16, "dedupe key"
}
bytes_id! {
    /// A queue reference sealed by the queue's home server (CCP-1 section 5.0).
    SealedRef, 65, "sealed reference"
}
bytes_id! {
    /// An account's Ed25519 public key (CCP-1 section 6).
    AccountKey, 32, "account key"
}
bytes_id! {
    /// A device's Noise public key (X25519, CCP-1 section 3).
    NoiseKey, 32, "noise key"
}
bytes_id! {
    /// A domain's Ed25519 public key (CCP-1 section 3, "Server keys").
    DomainKey, 32, "domain key"
}
bytes_id! {
    /// The BLAKE3 hash under which a server keeps an invite token or a capability (CCP-1 section 6).
    TokenHash, 32, "token hash"
}
bytes_id! {
    /// The public half of a group's join key (Ed25519, CCP-1 section 5.4).
    JoinKey, 32, "join key"
}
bytes_id! {
    /// Names one claim of key packages, so that a repeat gets the same packages (CCP-1 section 6).
    ClaimId, 16, "claim id"
}

/// A secret of 16 random bytes that grants something once or to its holder: an invite token or a
/// capability (CCP-1 section 6). A server keeps its [`TokenHash`] only.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Token([u8; 16]);

impl Token {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// Wraps exactly the bytes given.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Parses a token received from outside.
    ///
    /// # Errors
    ///
    /// [`IdError::Length`] unless `raw` has exactly 16 bytes.
    pub fn parse(raw: &[u8]) -> Result<Self, IdError> {
        raw.try_into().map(Self).map_err(|_| IdError::Length {
            what: "token",
            len: raw.len(),
        })
    }

    /// The bytes for the wire or a link. Not for logs.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// What a server keeps of the token: its BLAKE3 hash.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::new(*blake3::hash(&self.0).as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Declares a secret of 32 bytes that stands in a join link and that nothing ever shows.
macro_rules! link_secret {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, PartialEq)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 32;

            /// Wraps exactly the bytes given.
            #[must_use]
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Parses a secret received from outside.
            ///
            /// # Errors
            ///
            /// [`IdError::Length`] unless `raw` has exactly 32 bytes.
            pub fn parse(raw: &[u8]) -> Result<Self, IdError> {
                raw.try_into()
                    .map(Self)
                    .map_err(|_| IdError::Length { what: $what, len: raw.len() })
            }

            /// The bytes for a link or a cipher. Not for logs.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

link_secret! {
    /// The seed of a group's join key, as a join link carries it (CCP-1 section 5.4).
    JoinSeed, "join key seed"
}
link_secret! {
    /// The key that a group's GroupInfo is sealed under (CCP-1 section 5.4).
    GroupKey, "group key"
}

/// What BLAKE3 hashes as one chunk. In one piece it costs half of what three updates of a hasher do.
const ONE_PIECE: usize = 1_024;

impl DedupeKey {
    /// The key of an entry: the first 16 bytes of BLAKE3 over `group_id | message_id | content`,
    /// where `content` is the ciphertext of a MSG and the payload of any other frame
    /// (CCP-1 section 4).
    #[must_use]
    pub fn of(group: &GroupId, message: &MessageId, content: &[u8]) -> Self {
        let parts = [group.as_bytes().as_slice(), message.as_bytes(), content];
        let length = GroupId::LEN + MessageId::LEN + content.len();
        let mut piece = [0; ONE_PIECE];
        let hash = if let Some(whole) = piece.get_mut(..length) {
            let mut rest = &mut *whole;
            parts.into_iter().for_each(|part| rest.put_slice(part));
            blake3::hash(whole)
        } else {
            let mut hasher = blake3::Hasher::new();
            for part in parts {
                hasher.update(part);
            }
            hasher.finalize()
        };
        Self(first_bytes(hash.as_bytes()))
    }
}

impl MessageId {
    /// The id of an entry that the hub makes: the first 16 bytes of BLAKE3 over `body`
    /// (CCP-1 section 5.2 for commits, key table for events).
    #[must_use]
    pub fn of_body(body: &[u8]) -> Self {
        Self(first_bytes(blake3::hash(body).as_bytes()))
    }
}

impl DomainKey {
    /// Reads a key as an operator passes it on: 64 hex digits, or [`base32`] as in invite links.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let hex = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        let raw = hex.or_else(|| from_base32(text))?;
        raw.try_into().ok().map(Self)
    }
}

/// Lower-case, unpadded RFC 4648 base32, the text form of every id (CCP-1 section 6).
#[must_use]
pub fn base32(raw: &[u8]) -> String {
    BASE32_NOPAD.encode(raw).to_ascii_lowercase()
}

/// Reads [`base32`]; `None` for anything else, upper case included.
#[must_use]
pub fn from_base32(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    BASE32_NOPAD
        .decode(text.to_ascii_uppercase().as_bytes())
        .ok()
}

fn first_bytes<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|index| hash.get(index).copied().unwrap_or_default())
}

/// Declares an identifier of bounded text whose `Debug` shows a tag only.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses an identifier received from outside.
            ///
            /// # Errors
            ///
            /// [`IdError`] if `raw` breaks the rules of the type.
            pub fn parse(raw: &str) -> Result<Self, IdError> {
                $check(raw)?;
                Ok(Self(raw.into()))
            }

            /// The text for the wire and the store. Not for logs.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// A tag for logs: same identifier, same tag, until the process restarts.
            #[must_use]
            pub fn tag(&self) -> LogTag {
                LogTag::of($what, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.tag())
            }
        }
    };
}

text_id! {
    /// A device, 1 to 64 printable ASCII characters; in version 2 the base32 of the first 16 bytes
    /// of BLAKE3 over its first Noise key (CCP-1 section 6).
    DeviceId, "device id", check_device
}
text_id! {
    /// An account: 32 characters of base32 over 20 bytes of BLAKE3 (CCP-1 section 6).
    AccountId, "account id", check_account
}
text_id! {
    /// A server's domain: a lower-case DNS name of A-labels or an IP literal, optionally with
    /// `:port`, at most 255 bytes, compared byte for byte (CCP-1 section 6).
    Domain, "domain", check_domain
}

impl DeviceId {
    /// The id of the device whose first Noise key is `key`.
    #[must_use]
    pub fn of_key(key: &NoiseKey) -> Self {
        let hash = blake3::hash(key.as_bytes());
        Self(base32(&first_bytes::<16>(hash.as_bytes())).into())
    }
}

impl AccountId {
    /// The id of the account that `key` controls.
    #[must_use]
    pub fn of_key(key: &AccountKey) -> Self {
        let hash = blake3::hash(key.as_bytes());
        Self(base32(&first_bytes::<20>(hash.as_bytes())).into())
    }
}

fn check_device(raw: &str) -> Result<(), IdError> {
    check_length("device id", raw, 64)?;
    if raw.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(IdError::Charset { what: "device id" })
}

fn check_account(raw: &str) -> Result<(), IdError> {
    if raw.len() != 32 {
        return Err(IdError::Length {
            what: "account id",
            len: raw.len(),
        });
    }
    match from_base32(raw) {
        Some(_) => Ok(()),
        None => Err(IdError::Charset { what: "account id" }),
    }
}

fn check_domain(raw: &str) -> Result<(), IdError> {
    let refuse = || IdError::Charset { what: "domain" };
    check_length("domain", raw, 255)?;
    if raw.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    let (host, port) = match raw.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (raw, None),
    };
    let port_is_good = port.is_none_or(|port| {
        !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if !port_is_good {
        return Err(refuse());
    }
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner
            .parse::<std::net::Ipv6Addr>()
            .map(drop)
            .map_err(|_| refuse());
    }
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if host.split('.').all(label_is_good) {
        Ok(())
    } else {
        Err(refuse())
    }
}

fn check_length(what: &'static str, raw: &str, max: usize) -> Result<(), IdError> {
    if (1..=max).contains(&raw.len()) {
        return Ok(());
    }
    Err(IdError::Length {
        what,
        len: raw.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_an_id_does_not_show_it() {
        let device = DeviceId::parse("alice-phone").unwrap();
        let group = GroupId::new([0xab; 32]);

        let shown = format!("{device:?} {group:?} {:?}", Token::new([0xcd; 16]));

        assert!(!shown.contains("alice") && !shown.contains("abab") && !shown.contains("cdcd"));
    }

    #[test]
    fn a_dedupe_key_is_one_hash_however_long_the_content_is() {
        let (group, message) = (GroupId::new([1; 32]), MessageId::new([2; 16]));
        let head = [group.as_bytes().as_slice(), message.as_bytes()].concat();
        for length in [0, 1, 976, 977, 5_000] {
            let content = vec![3; length];

            let key = DedupeKey::of(&group, &message, &content);

            let whole = [head.as_slice(), &content].concat();
            assert_eq!(key.as_bytes()[..], blake3::hash(&whole).as_bytes()[..16]);
        }
    }

    #[test]
    fn domains_are_lower_case_names_or_addresses_with_an_optional_port() {
        for good in [
            "localhost",
            "chat.example.org:8443",
            "127.0.0.1",
            "[::1]:8443",
            "::1",
        ] {
            assert!(Domain::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Chat.example",
            "a..b",
            "-a.b",
            "a_b",
            "a:0",
            "a:99999",
            "a:+1",
            "[::1",
            "a/b",
        ] {
            assert!(Domain::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_domain_key_is_read_as_hex_and_as_links_write_it() {
        let key = DomainKey::new([0xa7; 32]);

        assert_eq!(DomainKey::from_text(&"a7".repeat(32)), Some(key));
        assert_eq!(DomainKey::from_text(&"A7".repeat(32)), Some(key));
        assert_eq!(DomainKey::from_text(&base32(key.as_bytes())), Some(key));
        assert_eq!(DomainKey::from_text(&"a7".repeat(31)), None);
        assert_eq!(DomainKey::from_text(""), None);
    }

    #[test]
    fn an_account_id_is_32_characters_of_base32() {
        let id = AccountId::of_key(&AccountKey::new([7; 32]));

        assert_eq!(AccountId::parse(id.as_str()), Ok(id));
        assert!(AccountId::parse("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").is_err());
    }
}
