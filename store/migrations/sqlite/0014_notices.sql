-- What people are told of. An incident gathers events of a kind from the moment that the first of them became true until it
-- is over; each channel is told of it once, and of what is added to it in digests.
CREATE TABLE incidents (
    id      INTEGER PRIMARY KEY,
    kind    TEXT NOT NULL,
    tenant  TEXT NOT NULL, -- empty: the house
    subject TEXT NOT NULL, -- an endpoint, a certificate; empty where there is one incident of the kind and tenant at a time
    opened  INTEGER NOT NULL,
    latest  INTEGER NOT NULL, -- when its newest event became true
    closed  INTEGER NOT NULL, -- 0: it is not over
    events  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX incidents_open ON incidents (kind, tenant, subject) WHERE closed = 0;
CREATE INDEX incidents_same ON incidents (kind, tenant, subject, id);

CREATE TABLE incident_events (
    incident INTEGER NOT NULL,
    n        INTEGER NOT NULL, -- from 1
    event    TEXT NOT NULL, -- a row of the outbox
    PRIMARY KEY (incident, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE channels (
    name      TEXT PRIMARY KEY,
    since     INTEGER NOT NULL, -- what was over before is not told
    tries     INTEGER NOT NULL, -- failed attempts in a row
    problem   TEXT NOT NULL, -- of the last attempt
    due       INTEGER NOT NULL, -- no attempt before
    succeeded INTEGER NOT NULL -- when the last message was taken; 0: never
) STRICT, WITHOUT ROWID;

CREATE TABLE alerts (
    channel  TEXT NOT NULL,
    incident INTEGER NOT NULL,
    told     INTEGER NOT NULL, -- so many events of it
    over     INTEGER NOT NULL CHECK (over IN (0, 1)), -- 1: it was told to be over
    at       INTEGER NOT NULL, -- when it was last told
    PRIMARY KEY (channel, incident)
) STRICT, WITHOUT ROWID;

-- The templates that are published, to see which are new and which are gone.
CREATE TABLE published (
    template TEXT PRIMARY KEY, -- id@version
    hash     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The sequence of a receipt that was told to be one that the CRM does not take; 0: none.
ALTER TABLE receipts ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
