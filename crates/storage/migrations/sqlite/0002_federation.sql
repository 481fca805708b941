-- Other domains: who they are, and what waits for them.

-- status: 1 active, 2 pending, 3 blocked. source: 1 configuration, 2 operator, 3 discovered.
-- Contacts are days, not moments.
CREATE TABLE peers (
    domain         TEXT    NOT NULL PRIMARY KEY,
    domain_key     BLOB,
    serial         INTEGER NOT NULL,
    previous_key   BLOB,
    previous_until INTEGER,
    status         INTEGER NOT NULL,
    source         INTEGER NOT NULL,
    endpoint       TEXT,
    first_contact  INTEGER,
    last_contact   INTEGER
) STRICT, WITHOUT ROWID;

-- One of the eight lanes of a peer. next_position starts at the time, so that a lane that is made
-- anew gives out no position again.
CREATE TABLE outbox_lanes (
    id            INTEGER PRIMARY KEY,
    peer          TEXT    NOT NULL,
    lane          INTEGER NOT NULL,
    next_position INTEGER NOT NULL,
    entries       INTEGER NOT NULL DEFAULT 0,
    bytes         INTEGER NOT NULL DEFAULT 0,
    UNIQUE (peer, lane)
) STRICT;

CREATE TABLE outbox (
    lane      INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    key       BLOB    NOT NULL,
    stored_at INTEGER NOT NULL,
    checksum  BLOB    NOT NULL,
    event     BLOB    NOT NULL,
    return_to BLOB,
    PRIMARY KEY (lane, position),
    UNIQUE (lane, key)
) STRICT;
