//! What the ledger says: one entry, one change.

use std::fmt;
use std::time::Duration;

use commucat_proto::id::{AccountId, DeviceId};
use commucat_proto::time::Timestamp;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// Entries tell the time by the minute: enough for an audit, too coarse to match with other traces.
const TIME_STEP: Duration = Duration::from_secs(60);

/// One kept change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Place in the ledger, counting from 0 without gaps.
    index: u64,
    /// When the change was recorded, in unix milliseconds, cut to the minute.
    at: u64,
    change: Change,
}

impl Entry {
    /// An entry at `index`; `at` is cut to the minute.
    #[must_use]
    pub fn new(index: u64, at: Timestamp, change: Change) -> Self {
        let step = u64::try_from(TIME_STEP.as_millis()).unwrap_or(u64::MAX);
        let at = at.as_millis();
        Self {
            index,
            at: at - at % step,
            change,
        }
    }

    /// Place in the ledger, counting from 0 without gaps.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// When the change was recorded, cut to the minute.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at)
    }

    /// What changed.
    #[must_use]
    pub const fn change(&self) -> &Change {
        &self.change
    }
}

/// What can happen to keys.
///
/// This is all that the ledger holds of people: marks of accounts and devices, the version and hash
/// of their signed lists, and the minute. An [`AccountMark`] is a plain hash, so that somebody who
/// knows an account's id can find and check its entries, as the verifiable log needs it. Account ids
/// are hashes of random keys, hence cannot be guessed; who does not know one learns nothing from its
/// mark but that the same account was meant twice.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// A device was registered under the named device list.
    DeviceRegistered {
        /// Whose device.
        account: AccountMark,
        /// Which device.
        device: DeviceMark,
        /// Version of the account's device list.
        version: u64,
        /// BLAKE3 of the list's signed body.
        list: Hash,
    },
    /// An account's device list was replaced.
    ListChanged {
        /// Whose list.
        account: AccountMark,
        /// Version of the new list.
        version: u64,
        /// BLAKE3 of the new list's signed body.
        list: Hash,
    },
    /// A device left its account's list.
    DeviceRevoked {
        /// Whose device.
        account: AccountMark,
        /// Which device.
        device: DeviceMark,
        /// Version of the first list without the device; absent if the operator revoked it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// An account deleted itself by an empty list.
    AccountDeleted {
        /// Which account.
        account: AccountMark,
        /// Version of the empty list.
        version: u64,
        /// BLAKE3 of the empty list's signed body.
        list: Hash,
    },
    /// A second list of a version that an account had used already was refused.
    Equivocation {
        /// Whose lists.
        account: AccountMark,
        /// The version that both claim.
        version: u64,
        /// BLAKE3 of the body of the list in force.
        kept: Hash,
        /// BLAKE3 of the body of the refused list.
        refused: Hash,
    },
    /// The server issued a new statement of its keys.
    ServerKeysChanged {
        /// Serial of the statement.
        serial: u64,
        /// BLAKE3 of the statement's signed body.
        statement: Hash,
    },
}

impl Change {
    /// The name of the kind, for logs and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::DeviceRegistered { .. } => "device_registered",
            Self::ListChanged { .. } => "list_changed",
            Self::DeviceRevoked { .. } => "device_revoked",
            Self::AccountDeleted { .. } => "account_deleted",
            Self::Equivocation { .. } => "equivocation",
            Self::ServerKeysChanged { .. } => "server_keys_changed",
        }
    }
}

/// Declares 32 bytes that are shown as hexadecimal in the ledger and nowhere else.
macro_rules! bytes_32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Deserialize, Eq, Hash, PartialEq, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let bytes = HEXLOWER.decode(text.as_bytes()).ok();
                bytes
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or("expected 64 lower-case hexadecimal digits")
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                HEXLOWER.encode(&value.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

bytes_32! {
    /// BLAKE3 of the body of a signed statement.
    Hash
}
bytes_32! {
    /// Stands for an account: a hash of its id.
    AccountMark
}
bytes_32! {
    /// Stands for a device: a hash of its account's id and its own.
    DeviceMark
}

impl Hash {
    /// The hash of a signed statement's body.
    #[must_use]
    pub fn of_body(body: &[u8]) -> Self {
        Self(*blake3::hash(body).as_bytes())
    }

    /// Wraps a hash that was made before.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl AccountMark {
    /// The mark of `account`.
    #[must_use]
    pub fn of(account: &AccountId) -> Self {
        Self(blake3::derive_key(
            "commucat/2 ledger account",
            account.as_str().as_bytes(),
        ))
    }
}

impl DeviceMark {
    /// The mark of `device` of `account`. Without the account's id it cannot be found by trying ids.
    #[must_use]
    pub fn of(account: &AccountId, device: &DeviceId) -> Self {
        // Account ids all have 32 characters, so the two cannot run into each other.
        let both = [account.as_str().as_bytes(), device.as_str().as_bytes()].concat();
        Self(blake3::derive_key("commucat/2 ledger device", &both))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change {
        let account = AccountId::parse("sc6655e5lutgjzxpgf6d7rg6yslv6ezi").unwrap();
        let device = DeviceId::parse("alice-phone").unwrap();
        Change::DeviceRegistered {
            account: AccountMark::of(&account),
            device: DeviceMark::of(&account, &device),
            version: 3,
            list: Hash::of_body(b"list"),
        }
    }

    #[test]
    fn an_entry_survives_its_text_form_and_names_nobody() {
        let entry = Entry::new(7, Timestamp::from_millis(1_767_225_661_234), change());

        let text = serde_json::to_string(&entry).unwrap();

        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
        assert!(text.starts_with(r#"{"index":7,"at":1767225660000,"change":{"kind":"device_reg"#));
        assert!(
            !text.contains("sc6655e5") && !text.contains("alice"),
            "{text}"
        );
        assert!(!format!("{entry:?}").contains("sc6655e5"));
    }

    #[test]
    fn the_kind_is_the_one_in_the_text_form() {
        let entry = Entry::new(0, Timestamp::ZERO, change());

        let text = serde_json::to_value(&entry).unwrap();

        assert_eq!(text["change"]["kind"], entry.change().kind());
    }

    #[test]
    fn one_device_id_has_different_marks_in_different_accounts() {
        let device = DeviceId::parse("phone").unwrap();
        let one = AccountId::parse("sc6655e5lutgjzxpgf6d7rg6yslv6ezi").unwrap();
        let two = AccountId::parse("tc6655e5lutgjzxpgf6d7rg6yslv6ezi").unwrap();

        assert_ne!(DeviceMark::of(&one, &device), DeviceMark::of(&two, &device));
        assert_ne!(AccountMark::of(&one), AccountMark::of(&two));
    }
}
