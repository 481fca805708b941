-- The store of a CommuCat server. Every column is listed in docs/data-manifest.toml with its owner,
-- reason and lifetime. Times are unix milliseconds.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    id           INTEGER PRIMARY KEY,
    account      TEXT    NOT NULL UNIQUE,
    account_key  BLOB    NOT NULL,
    list_version INTEGER NOT NULL,
    list         BLOB    NOT NULL
) STRICT;

-- A row is never deleted: a revoked queue's id must stay known (CCP-1 section 5.0), and
-- next_position must never start again.
CREATE TABLE queues (
    id            INTEGER PRIMARY KEY,
    queue         BLOB    NOT NULL UNIQUE,
    next_position INTEGER NOT NULL DEFAULT 1,
    entries       INTEGER NOT NULL DEFAULT 0,
    bytes         INTEGER NOT NULL DEFAULT 0,
    invites       INTEGER NOT NULL DEFAULT 0,
    gap_position  INTEGER,
    left_marks    INTEGER NOT NULL DEFAULT 0,
    revoked       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE devices (
    id         INTEGER PRIMARY KEY,
    device     TEXT    NOT NULL UNIQUE,
    account    INTEGER NOT NULL REFERENCES accounts (id),
    noise_key  BLOB    NOT NULL UNIQUE,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    queue      INTEGER NOT NULL UNIQUE REFERENCES queues (id),
    revoked    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX devices_by_account ON devices (account);

-- The tables of waiting entries have no foreign keys: they are the hot path, and one module alone
-- writes them.

-- What one group uses of one queue, and the mark of a group left for good. A row goes when it says
-- neither.
CREATE TABLE queue_groups (
    id       INTEGER PRIMARY KEY,
    queue    INTEGER NOT NULL,
    group_id BLOB    NOT NULL,
    entries  INTEGER NOT NULL DEFAULT 0,
    bytes    INTEGER NOT NULL DEFAULT 0,
    left_at  INTEGER,
    UNIQUE (queue, group_id)
) STRICT;

-- kind is the frame type; 0 is a gap entry, which has neither group nor body.
CREATE TABLE queue_entries (
    queue     INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    key       BLOB    NOT NULL,
    kind      INTEGER NOT NULL,
    grp       INTEGER,
    body      INTEGER,
    length    INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    PRIMARY KEY (queue, position),
    UNIQUE (queue, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE bodies (
    id       INTEGER PRIMARY KEY,
    checksum BLOB NOT NULL,
    bytes    BLOB NOT NULL
) STRICT;

-- How many entries share a body. A body without a row here has one entry: most have.
CREATE TABLE shared_bodies (
    body INTEGER PRIMARY KEY,
    refs INTEGER NOT NULL
) STRICT;

CREATE TABLE invites (
    hash      BLOB    NOT NULL PRIMARY KEY,
    uses      INTEGER NOT NULL,
    uses_left INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE capabilities (
    account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    hash    BLOB    NOT NULL,
    PRIMARY KEY (account, hash)
) STRICT, WITHOUT ROWID;

-- A package that was handed out leaves its hash, so that a repeated publication does not bring it
-- back.
CREATE TABLE key_packages (
    id          INTEGER PRIMARY KEY,
    device      INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    hash        BLOB    NOT NULL,
    last_resort INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    package     BLOB,
    UNIQUE (device, hash)
) STRICT;
CREATE INDEX key_packages_by_end ON key_packages (not_after);

CREATE TABLE claims (
    claim      BLOB    NOT NULL PRIMARY KEY,
    claimed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_by_time ON claims (claimed_at);

CREATE TABLE claimed_packages (
    claim       BLOB    NOT NULL REFERENCES claims (claim) ON DELETE CASCADE,
    device      INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    last_resort INTEGER NOT NULL,
    package     BLOB    NOT NULL,
    PRIMARY KEY (claim, device)
) STRICT;
CREATE INDEX claimed_packages_by_device ON claimed_packages (device);

-- subject is a hash over account and capability or asking domain.
CREATE TABLE claim_budgets (
    subject BLOB    NOT NULL,
    day     INTEGER NOT NULL,
    used    INTEGER NOT NULL,
    PRIMARY KEY (day, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE groups (
    id           INTEGER PRIMARY KEY,
    group_id     BLOB    NOT NULL UNIQUE,
    request_hash BLOB    NOT NULL,
    head         INTEGER NOT NULL,
    revision     INTEGER NOT NULL,
    join_key     BLOB,
    closed_at    INTEGER
) STRICT;

CREATE TABLE group_fanout (
    id         INTEGER PRIMARY KEY,
    grp        INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    handle     BLOB    NOT NULL,
    domain     TEXT    NOT NULL,
    sealed_ref BLOB    NOT NULL,
    admin      INTEGER NOT NULL,
    UNIQUE (grp, handle)
) STRICT;

-- Handles taken off the list because their references were gone, until a commit removes the leaf.
CREATE TABLE group_gone (
    id     INTEGER PRIMARY KEY,
    grp    INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    handle BLOB    NOT NULL,
    UNIQUE (grp, handle)
) STRICT;

CREATE TABLE group_log (
    grp       INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    body_hash BLOB    NOT NULL,
    refused   BLOB    NOT NULL,
    stored_at INTEGER NOT NULL,
    checksum  BLOB    NOT NULL,
    entry     BLOB    NOT NULL,
    PRIMARY KEY (grp, position)
) STRICT;

CREATE TABLE group_infos (
    grp      INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    checksum BLOB    NOT NULL,
    sealed   BLOB    NOT NULL,
    PRIMARY KEY (grp, position)
) STRICT;
