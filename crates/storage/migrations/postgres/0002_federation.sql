-- Other domains: who they are, and what waits for them.

-- status: 1 active, 2 pending, 3 blocked. source: 1 configuration, 2 operator, 3 discovered.
-- Contacts are days, not moments.
CREATE TABLE peers (
    domain         text     COLLATE "C" NOT NULL PRIMARY KEY,
    domain_key     bytea,
    serial         bigint   NOT NULL,
    previous_key   bytea,
    previous_until bigint,
    status         bigint   NOT NULL,
    source         bigint   NOT NULL,
    endpoint       text,
    first_contact  bigint,
    last_contact   bigint
);

-- One of the eight lanes of a peer. next_position starts at the time, so that a lane that is made
-- anew gives out no position again. Who needs several takes their locks in the order of (peer, lane).
CREATE TABLE outbox_lanes (
    id            bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    peer          text     COLLATE "C" NOT NULL,
    lane          smallint NOT NULL,
    next_position bigint   NOT NULL,
    entries       bigint   NOT NULL DEFAULT 0,
    bytes         bigint   NOT NULL DEFAULT 0,
    UNIQUE (peer, lane)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE outbox (
    lane      bigint NOT NULL,
    position  bigint NOT NULL,
    key       uuid   NOT NULL,
    stored_at bigint NOT NULL,
    checksum  uuid   NOT NULL,
    event     bytea  NOT NULL,
    return_to bytea,
    PRIMARY KEY (lane, position),
    UNIQUE (lane, key)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE outbox ALTER COLUMN event SET STORAGE EXTERNAL;

-- The node that sends to a peer, and until when it may by this database's clock.
CREATE TABLE outbox_holders (
    peer       text   COLLATE "C" NOT NULL PRIMARY KEY,
    node       uuid   NOT NULL,
    held_until bigint NOT NULL
);
