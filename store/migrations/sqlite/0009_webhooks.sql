-- Where events are delivered to, what is on its way there, and every attempt.
CREATE TABLE endpoints (
    id         TEXT PRIMARY KEY, -- tenant/name
    tenant     TEXT NOT NULL,
    configured INTEGER NOT NULL CHECK (configured IN (0, 1)), -- 1: the tenant file says what it is, 0: a person did
    endpoint   BLOB NOT NULL, -- ciphertext under the tenant's key: address, dialect, subscription, secrets
    state      TEXT NOT NULL CHECK (state IN ('active', 'disabled')), -- what is disabled keeps its deliveries
    reason     TEXT NOT NULL, -- why it is disabled
    since      INTEGER NOT NULL, -- of this state
    failures   INTEGER NOT NULL, -- failed attempts in a row
    succeeded  INTEGER NOT NULL, -- when it last took an event; 0: never
    tried      INTEGER NOT NULL -- when it was last tried; 0: never
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
    seq      INTEGER PRIMARY KEY,
    event    TEXT NOT NULL, -- a row of the outbox
    endpoint TEXT NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    sending  INTEGER NOT NULL CHECK (sending IN (0, 1)), -- 1: an attempt is under way
    due      INTEGER NOT NULL, -- while pending
    tries    INTEGER NOT NULL, -- all attempts
    failures INTEGER NOT NULL, -- failed ones since it was last begun
    ended    INTEGER NOT NULL, -- when it was delivered, or failed; 0: not yet
    UNIQUE (event, endpoint)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (endpoint, due, seq) WHERE state = 'pending';
CREATE INDEX deliveries_failed ON deliveries (endpoint, seq) WHERE state = 'failed';
CREATE INDEX deliveries_sending ON deliveries (seq) WHERE sending = 1;
CREATE INDEX deliveries_ended ON deliveries (ended) WHERE ended > 0;
CREATE INDEX deliveries_endpoint ON deliveries (endpoint, seq);

CREATE TABLE delivery_attempts (
    delivery INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    at       INTEGER NOT NULL, -- committed before it is made
    took     INTEGER NOT NULL, -- microseconds; 0: nobody knows, the daemon ended meanwhile
    status   INTEGER NOT NULL, -- of the answer; 0: there was none
    problem  TEXT NOT NULL,
    answer   BLOB NOT NULL, -- ciphertext under the tenant's key: the beginning of the answer
    PRIMARY KEY (delivery, n)
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_at ON outbox (at);
