//! Every number of CCP-1 that two implementations must agree on or that a server announces.
//!
//! Constants named `*_DEFAULT` are defaults of settings (`limits.*`); the others are fixed by the
//! protocol. Sizes are bytes.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The greatest `len` of a frame (CCP-1 section 2).
pub const FRAME_LEN_MAX: usize = 16 * MIB;
/// The greatest payload of a clear frame, before the tunnel (CCP-1 section 2).
pub const CLEAR_PAYLOAD_MAX: usize = 32 * KIB;
/// `limits.max_payload`: the greatest ciphertext of a MSG (CCP-1 section 2).
pub const MESSAGE_CIPHERTEXT_DEFAULT: usize = 256 * KIB;
/// The greatest payload of a TYPING (CCP-1 section 2).
pub const TYPING_PAYLOAD_MAX: usize = KIB;
/// The greatest payload of KEY_UPDATE c->s and GROUP_CREATE (CCP-1 section 2).
pub const COMMIT_PAYLOAD_MAX: usize = 768 * KIB;
/// The greatest sealed GroupInfo in a KEY_UPDATE c->s or GROUP_CREATE (CCP-1 section 2).
pub const SEALED_GROUP_INFO_MAX: usize = 512 * KIB;
/// The greatest payload of KEY_UPDATE, GROUP_INVITE, ACK and ERROR s->c (CCP-1 section 2).
pub const ANSWER_PAYLOAD_MAX: usize = MIB;
/// The greatest payload of any other frame (CCP-1 section 2).
pub const CONTROL_PAYLOAD_MAX: usize = 256 * KIB;
/// The greatest `/.well-known/commucat` (CCP-1 section 8).
pub const WELL_KNOWN_MAX: usize = 64 * KIB;

/// How deep maps and arrays may nest in CBOR (CCP-1 section 2).
pub const CBOR_NESTING_MAX: u8 = 8;
/// The greatest unsigned integer in CBOR: below 2^63, so that every language can hold it.
pub const CBOR_INTEGER_MAX: u64 = (1 << 63) - 1;

/// Bytes of a frame's header at the most: type and three varints of ten bytes, which need not be
/// minimal.
pub const HEADER_LEN_MAX: usize = 1 + 3 * VARINT_LEN_MAX;
/// Bytes of a varint at the most (CCP-1 section 2).
pub const VARINT_LEN_MAX: usize = 10;

/// Sealed records: the greatest `u16be length` (CCP-1 section 3).
pub const RECORD_CIPHERTEXT_MAX: usize = 65_535;
/// Sealed records: the least `u16be length` (CCP-1 section 3).
pub const RECORD_CIPHERTEXT_MIN: usize = 17;
/// Sealed records: the greatest plaintext (CCP-1 section 3).
pub const RECORD_PLAINTEXT_MAX: usize = 65_519;
/// Sealed records: records under one key; record number 65,536 is the first under the next
/// (CCP-1 section 3).
pub const RECORDS_PER_KEY: u64 = 65_536;
/// The sizes that PADDING may fill a record's plaintext to (CCP-1 section 3).
pub const SIZE_CLASSES: [usize; 5] = [256, 1_024, 4_096, 16_384, RECORD_PLAINTEXT_MAX];

/// `limits.handshake_timeout`: when an unfinished handshake is closed (CCP-1 section 3).
pub const HANDSHAKE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// `limits.keepalive`: after how long a silent side sends PADDING (CCP-1 section 3).
pub const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(30);
/// The same while a client is idle (CCP-1 section 3).
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(240);
/// A side that received nothing for this many halves of the keep-alive (5: 2.5 times) closes.
pub const KEEPALIVE_LOST_HALVES: u32 = 5;
/// How long an old and a new Noise key of a server overlap (CCP-1 section 3).
pub const NOISE_KEY_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// `limits.streams`: `/connect` streams per connection of a trusted proxy (CCP-1 section 1).
pub const PROXY_STREAMS_DEFAULT: u32 = 1_024;
/// `/connect` streams per connection of anybody else (CCP-1 section 1).
pub const STREAMS_MAX: u32 = 8;

/// `limits.unacked`: MSG frames that a client may have unanswered (CCP-1 section 4).
pub const UNACKED_FRAMES_DEFAULT: u32 = 1_024;
/// Bytes of MSG frames that a client may have unanswered (CCP-1 section 4).
pub const UNACKED_BYTES_DEFAULT: usize = 4 * MIB;
/// How long a control request may take (CCP-1 section 4).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// `T`: how long the server waits for a connected device before it spools (CCP-1 section 4).
pub const SPOOL_AFTER_DEFAULT: Duration = Duration::from_millis(250);
/// Dedupe keys of acknowledged entries that a mailbox keeps in memory (CCP-1 section 4).
pub const ACKNOWLEDGED_KEYS_KEPT: usize = 1_024;
/// `limits.queue_bytes`: bytes that a queue holds (CCP-1 section 4).
pub const QUEUE_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// `limits.queue_entries`: entries that a queue holds (CCP-1 section 4).
pub const QUEUE_ENTRIES_DEFAULT: u64 = 20_000;
/// One group may use a quarter of a queue (CCP-1 section 4).
pub const QUEUE_GROUP_SHARE: u64 = 4;
/// Entries kept free for Welcomes in a full queue (CCP-1 section 4).
pub const QUEUE_WELCOME_RESERVE: u64 = 64;
/// `limits.relay_ttl`: when an entry expires (CCP-1 section 4).
pub const RELAY_TTL_DEFAULT: Duration = Duration::from_secs(30 * 86_400);
/// Epochs whose keys a client keeps (CCP-1 section 4).
pub const EPOCHS_KEPT: usize = 3;
/// How long a client waits before it FETCHes a missing position (CCP-1 section 5.2).
pub const GAP_PATIENCE: Duration = Duration::from_secs(2);
/// How long a client keeps a content back for one of the same author before it (CCP-1 section 5.5).
pub const ORDER_PATIENCE: Duration = Duration::from_secs(300);

/// `limits.group_handles`: entries of a group's fan-out list (CCP-1 section 5.0).
pub const GROUP_HANDLES_DEFAULT: u32 = 256;
/// Domains in a fan-out list (CCP-1 section 5.0).
pub const GROUP_DOMAINS_MAX: usize = 64;
/// The greatest channel that JOIN may bind (CCP-1 section 5.3).
pub const CHANNEL_MAX: u32 = 4_096;
/// Positions behind head at which a MSG is still accepted (CCP-1 section 5.3).
pub const POSITIONS_BEHIND_MAX: u64 = 2;
/// `limits.submit_rate`: MSG per second and handle (CCP-1 section 5.3).
pub const SUBMIT_RATE_DEFAULT: u32 = 200;
/// MSG that a handle may send at once (CCP-1 section 5.3).
pub const SUBMIT_BURST_DEFAULT: u32 = 2_000;
/// Bytes of missing entries inside a Conflict, and of entries in a page of FETCH
/// (CCP-1 sections 5.2 and 5.4).
pub const ENTRIES_PAGE_MAX: usize = 256 * KIB;
/// Log entries whose GroupInfo the hub keeps (CCP-1 section 5.2).
pub const GROUP_INFOS_KEPT: u64 = 16;
/// How long the hub keeps log entries (CCP-1 section 5.4).
pub const LOG_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Least time between two commits of a handle (CCP-1 section 5.2).
pub const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How far `created` of a `join read` may be from the hub's clock (CCP-1 section 5.4).
pub const JOIN_READ_WINDOW: Duration = Duration::from_secs(15 * 60);
/// How long an empty fork tag may stand against another before it counts (CCP-1 section 5.2).
pub const FORK_PATIENCE: Duration = Duration::from_secs(60);
/// Groups that a queue may have left for good (CCP-1 section 5.3).
pub const LEFT_GROUPS_MAX: usize = 4_096;

/// Certificates in a device list (CCP-1 section 6).
pub const DEVICES_MAX: usize = 16;
/// Capabilities of an account (CCP-1 section 6).
pub const CAPABILITIES_MAX: usize = 256;
/// Single-use key packages that a device keeps published (CCP-1 section 6).
pub const KEY_PACKAGES_MAX: usize = 100;
/// Key packages claimed per day and capability before the last resort (CCP-1 section 6).
pub const CLAIMS_PER_CAPABILITY: u32 = 20;
/// Key packages claimed per day and domain before the last resort (CCP-1 section 6).
pub const CLAIMS_PER_DOMAIN: u32 = 200;
/// How long a repeat of a claim id returns the same packages (CCP-1 section 6).
pub const CLAIM_REPEAT: Duration = Duration::from_secs(10 * 60);
