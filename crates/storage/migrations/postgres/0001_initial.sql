-- The store of a CommuCat server on PostgreSQL 12 and later. Every column is listed in
-- docs/data-manifest.toml with its owner, reason and lifetime. Times are unix milliseconds. Random
-- identifiers and halves of hashes, 16 bytes each, are kept as uuid: the one type of that size.

CREATE TABLE meta (
    name  text  NOT NULL PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE accounts (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account      text   NOT NULL UNIQUE,
    account_key  bytea  NOT NULL,
    list_version bigint NOT NULL,
    list         bytea  NOT NULL
);

-- A row is never deleted: a revoked queue's id must stay known (CCP-1 section 5.0), and
-- next_position must never start again. The row's lock is the right to insert into the queue and to
-- delete from it; who needs several takes them in the order of `queue`. Half of each page stays
-- free, so that a new version of a row finds room beside the old one and no index is touched.
CREATE TABLE queues (
    id            bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue         uuid    NOT NULL UNIQUE,
    next_position bigint  NOT NULL DEFAULT 1,
    entries       bigint  NOT NULL DEFAULT 0,
    bytes         bigint  NOT NULL DEFAULT 0,
    invites       bigint  NOT NULL DEFAULT 0,
    gap_position  bigint,
    gap_shown     boolean NOT NULL DEFAULT false,
    left_marks    bigint  NOT NULL DEFAULT 0,
    revoked       boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE devices (
    id         bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device     text    COLLATE "C" NOT NULL UNIQUE,
    account    bigint  NOT NULL REFERENCES accounts (id),
    noise_key  bytea   NOT NULL UNIQUE,
    not_before bigint  NOT NULL,
    not_after  bigint  NOT NULL,
    queue      bigint  NOT NULL UNIQUE REFERENCES queues (id),
    revoked    boolean NOT NULL DEFAULT false
);
CREATE INDEX devices_by_account ON devices (account);

-- The tables of waiting entries have no foreign keys: they are the hot path, and one module alone
-- writes them. Their rows live for moments, so vacuum comes early.

-- What one group uses of one queue, and the mark of a group left for good. A row goes when it says
-- neither.
CREATE TABLE queue_groups (
    queue    uuid   NOT NULL,
    group_id bytea  NOT NULL,
    entries  bigint NOT NULL DEFAULT 0,
    bytes    bigint NOT NULL DEFAULT 0,
    left_at  bigint,
    PRIMARY KEY (queue, group_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- kind is the frame type; 0 is a gap entry, which has neither group nor body. A body that one queue
-- alone has is here, with its checksum; one that several share is in `bodies`, and `body` names it.
CREATE TABLE queue_entries (
    queue     uuid     NOT NULL,
    position  bigint   NOT NULL,
    key       uuid     NOT NULL,
    stored_at bigint   NOT NULL,
    length    integer  NOT NULL,
    kind      smallint NOT NULL,
    body      uuid,
    checksum  uuid,
    group_id  bytea,
    bytes     bytea,
    PRIMARY KEY (queue, position),
    UNIQUE (queue, key)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- id is the first half of the BLAKE3 of the bytes.
CREATE TABLE bodies (
    id    uuid  NOT NULL PRIMARY KEY,
    bytes bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- How many entries share a body: beside it, for a new version of the row would copy the body.
CREATE TABLE shared_bodies (
    body uuid   NOT NULL PRIMARY KEY,
    refs bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE invites (
    hash      bytea  NOT NULL PRIMARY KEY,
    uses      bigint NOT NULL,
    uses_left bigint NOT NULL,
    created   bigint NOT NULL,
    expires   bigint NOT NULL
);

CREATE TABLE capabilities (
    account bigint NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    hash    bytea  NOT NULL,
    PRIMARY KEY (account, hash)
);

-- A package that was handed out leaves its hash, so that a repeated publication does not bring it
-- back.
CREATE TABLE key_packages (
    id          bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device      bigint  NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    hash        bytea   NOT NULL,
    last_resort boolean NOT NULL,
    not_after   bigint  NOT NULL,
    package     bytea,
    UNIQUE (device, hash)
);
CREATE INDEX key_packages_by_end ON key_packages (not_after);

CREATE TABLE claims (
    claim      bytea  NOT NULL PRIMARY KEY,
    claimed_at bigint NOT NULL
);
CREATE INDEX claims_by_time ON claims (claimed_at);

CREATE TABLE claimed_packages (
    claim       bytea   NOT NULL REFERENCES claims (claim) ON DELETE CASCADE,
    device      bigint  NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    last_resort boolean NOT NULL,
    package     bytea   NOT NULL,
    PRIMARY KEY (claim, device)
);
CREATE INDEX claimed_packages_by_device ON claimed_packages (device);

-- subject is a hash over account and capability or asking domain.
CREATE TABLE claim_budgets (
    subject uuid   NOT NULL,
    day     bigint NOT NULL,
    used    bigint NOT NULL,
    PRIMARY KEY (day, subject)
);

CREATE TABLE groups (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_id     bytea  NOT NULL UNIQUE,
    request_hash bytea  NOT NULL,
    head         bigint NOT NULL,
    revision     bigint NOT NULL,
    join_key     bytea,
    closed_at    bigint
);

CREATE TABLE group_fanout (
    id         bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grp        bigint  NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    handle     bytea   NOT NULL,
    domain     text    NOT NULL,
    sealed_ref bytea   NOT NULL,
    admin      boolean NOT NULL,
    UNIQUE (grp, handle)
);

-- Handles taken off the list because their references were gone, until a commit removes the leaf.
CREATE TABLE group_gone (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grp    bigint NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    handle bytea  NOT NULL,
    UNIQUE (grp, handle)
);

CREATE TABLE group_log (
    grp       bigint NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    position  bigint NOT NULL,
    body_hash bytea  NOT NULL,
    refused   bytea  NOT NULL,
    stored_at bigint NOT NULL,
    checksum  uuid   NOT NULL,
    entry     bytea  NOT NULL,
    PRIMARY KEY (grp, position)
);

CREATE TABLE group_infos (
    grp      bigint NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    position bigint NOT NULL,
    checksum uuid   NOT NULL,
    sealed   bytea  NOT NULL,
    PRIMARY KEY (grp, position)
);

-- What is sealed does not compress.
ALTER TABLE queue_entries ALTER COLUMN bytes SET STORAGE EXTERNAL;
ALTER TABLE bodies ALTER COLUMN bytes SET STORAGE EXTERNAL;
ALTER TABLE group_log ALTER COLUMN entry SET STORAGE EXTERNAL;
ALTER TABLE group_infos ALTER COLUMN sealed SET STORAGE EXTERNAL;
