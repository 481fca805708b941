//! What is copied from SQLite to PostgreSQL: every table of the target, and where its rows come from.

use self::Kind::{Bytes, Flag, Integer, Long, Short, Text, Uuid};

/// A table of the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Its columns with their types there.
    pub(crate) columns: &'static [(&'static str, Kind)],
    /// The query at the source: the same columns, in an order that does not change.
    pub(crate) query: &'static str,
}

/// A type of PostgreSQL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Long,
    Integer,
    Short,
    Flag,
    Text,
    Bytes,
    Uuid,
}

/// A value of SQLite.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Cell {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Table {
    /// Whether the table numbers its rows by itself.
    pub(crate) fn has_identity(&self) -> bool {
        self.columns.first() == Some(&("id", Long))
    }
}

impl Cell {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Number(_) => 16,
            Self::Text(text) => text.len() + 32,
            Self::Bytes(bytes) => bytes.len() + 32,
        }
    }
}

/// In an order in which every row finds the rows that it refers to.
pub(crate) const TABLES: &[Table] = &[
    Table {
        name: "meta",
        columns: &[("name", Text), ("value", Bytes)],
        query: "SELECT name, value FROM meta ORDER BY name",
    },
    Table {
        name: "accounts",
        columns: &[
            ("id", Long),
            ("account", Text),
            ("account_key", Bytes),
            ("list_version", Long),
            ("list", Bytes),
        ],
        query: "SELECT id, account, account_key, list_version, list FROM accounts ORDER BY id",
    },
    Table {
        name: "queues",
        columns: &[
            ("id", Long),
            ("queue", Uuid),
            ("next_position", Long),
            ("entries", Long),
            ("bytes", Long),
            ("invites", Long),
            ("gap_position", Long),
            ("left_marks", Long),
            ("revoked", Flag),
        ],
        query: "SELECT id, queue, next_position, entries, bytes, invites, gap_position, left_marks,
                revoked FROM queues ORDER BY id",
    },
    Table {
        name: "devices",
        columns: &[
            ("id", Long),
            ("device", Text),
            ("account", Long),
            ("noise_key", Bytes),
            ("not_before", Long),
            ("not_after", Long),
            ("queue", Long),
            ("revoked", Flag),
        ],
        query: "SELECT id, device, account, noise_key, not_before, not_after, queue, revoked
                FROM devices ORDER BY id",
    },
    Table {
        name: "queue_groups",
        columns: &[
            ("queue", Uuid),
            ("group_id", Bytes),
            ("entries", Long),
            ("bytes", Long),
            ("left_at", Long),
        ],
        query: "SELECT q.queue, g.group_id, g.entries, g.bytes, g.left_at
                FROM queue_groups AS g JOIN queues AS q ON q.id = g.queue ORDER BY g.id",
    },
    // A body that several queues share is named by its hash there, so that copies become one.
    Table {
        name: "bodies",
        columns: &[("id", Uuid), ("bytes", Bytes)],
        query: "SELECT b.checksum, b.bytes FROM bodies AS b JOIN (
                    SELECT min(b.id) AS id FROM shared_bodies AS s JOIN bodies AS b ON b.id = s.body
                    GROUP BY b.checksum) AS first ON first.id = b.id
                ORDER BY b.checksum",
    },
    Table {
        name: "shared_bodies",
        columns: &[("body", Uuid), ("refs", Long)],
        query: "SELECT b.checksum, sum(s.refs) FROM shared_bodies AS s
                JOIN bodies AS b ON b.id = s.body GROUP BY b.checksum ORDER BY b.checksum",
    },
    // A body that one queue alone has is in its row there.
    Table {
        name: "queue_entries",
        columns: &[
            ("queue", Uuid),
            ("position", Long),
            ("key", Uuid),
            ("stored_at", Long),
            ("length", Integer),
            ("kind", Short),
            ("body", Uuid),
            ("checksum", Uuid),
            ("group_id", Bytes),
            ("bytes", Bytes),
        ],
        query: "SELECT q.queue, e.position, e.key, e.stored_at, e.length, e.kind,
                    CASE WHEN s.body IS NOT NULL THEN b.checksum END,
                    CASE WHEN s.body IS NULL THEN b.checksum END,
                    g.group_id,
                    CASE WHEN s.body IS NULL THEN b.bytes END
                FROM queue_entries AS e
                JOIN queues AS q ON q.id = e.queue
                LEFT JOIN queue_groups AS g ON g.id = e.grp
                LEFT JOIN bodies AS b ON b.id = e.body
                LEFT JOIN shared_bodies AS s ON s.body = e.body
                ORDER BY e.queue, e.position",
    },
    Table {
        name: "invites",
        columns: &[
            ("hash", Bytes),
            ("uses", Long),
            ("uses_left", Long),
            ("created", Long),
            ("expires", Long),
        ],
        query: "SELECT hash, uses, uses_left, created, expires FROM invites ORDER BY hash",
    },
    Table {
        name: "capabilities",
        columns: &[("account", Long), ("hash", Bytes)],
        query: "SELECT account, hash FROM capabilities ORDER BY account, hash",
    },
    Table {
        name: "key_packages",
        columns: &[
            ("id", Long),
            ("device", Long),
            ("hash", Bytes),
            ("last_resort", Flag),
            ("not_after", Long),
            ("package", Bytes),
        ],
        query: "SELECT id, device, hash, last_resort, not_after, package FROM key_packages
                ORDER BY id",
    },
    Table {
        name: "claims",
        columns: &[("claim", Bytes), ("claimed_at", Long)],
        query: "SELECT claim, claimed_at FROM claims ORDER BY claim",
    },
    Table {
        name: "claimed_packages",
        columns: &[
            ("claim", Bytes),
            ("device", Long),
            ("last_resort", Flag),
            ("package", Bytes),
        ],
        query: "SELECT claim, device, last_resort, package FROM claimed_packages
                ORDER BY claim, device",
    },
    Table {
        name: "claim_budgets",
        columns: &[("subject", Uuid), ("day", Long), ("used", Long)],
        query: "SELECT subject, day, used FROM claim_budgets ORDER BY day, subject",
    },
    Table {
        name: "groups",
        columns: &[
            ("id", Long),
            ("group_id", Bytes),
            ("request_hash", Bytes),
            ("head", Long),
            ("revision", Long),
            ("join_key", Bytes),
            ("closed_at", Long),
        ],
        query: "SELECT id, group_id, request_hash, head, revision, join_key, closed_at FROM groups
                ORDER BY id",
    },
    Table {
        name: "group_fanout",
        columns: &[
            ("id", Long),
            ("grp", Long),
            ("handle", Bytes),
            ("domain", Text),
            ("sealed_ref", Bytes),
            ("admin", Flag),
        ],
        query: "SELECT id, grp, handle, domain, sealed_ref, admin FROM group_fanout ORDER BY id",
    },
    Table {
        name: "group_gone",
        columns: &[("id", Long), ("grp", Long), ("handle", Bytes)],
        query: "SELECT id, grp, handle FROM group_gone ORDER BY id",
    },
    Table {
        name: "group_log",
        columns: &[
            ("grp", Long),
            ("position", Long),
            ("body_hash", Bytes),
            ("refused", Bytes),
            ("stored_at", Long),
            ("checksum", Uuid),
            ("entry", Bytes),
        ],
        query: "SELECT grp, position, body_hash, refused, stored_at, checksum, entry FROM group_log
                ORDER BY grp, position",
    },
    Table {
        name: "group_infos",
        columns: &[
            ("grp", Long),
            ("position", Long),
            ("checksum", Uuid),
            ("sealed", Bytes),
        ],
        query: "SELECT grp, position, checksum, sealed FROM group_infos ORDER BY grp, position",
    },
    Table {
        name: "peers",
        columns: &[
            ("domain", Text),
            ("domain_key", Bytes),
            ("serial", Long),
            ("previous_key", Bytes),
            ("previous_until", Long),
            ("status", Long),
            ("source", Long),
            ("endpoint", Text),
            ("first_contact", Long),
            ("last_contact", Long),
        ],
        query: "SELECT domain, domain_key, serial, previous_key, previous_until, status, source,
                endpoint, first_contact, last_contact FROM peers ORDER BY domain",
    },
    Table {
        name: "outbox_lanes",
        columns: &[
            ("id", Long),
            ("peer", Text),
            ("lane", Short),
            ("next_position", Long),
            ("entries", Long),
            ("bytes", Long),
        ],
        query: "SELECT id, peer, lane, next_position, entries, bytes FROM outbox_lanes ORDER BY id",
    },
    Table {
        name: "outbox",
        columns: &[
            ("lane", Long),
            ("position", Long),
            ("key", Uuid),
            ("stored_at", Long),
            ("checksum", Uuid),
            ("event", Bytes),
            ("return_to", Bytes),
        ],
        query: "SELECT lane, position, key, stored_at, checksum, event, return_to FROM outbox
                ORDER BY lane, position",
    },
];
