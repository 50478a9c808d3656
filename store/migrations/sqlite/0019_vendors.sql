-- What vendors that sign in our place have told of their envelopes, also of those that no deal is known to have.
CREATE TABLE vendor_events (
    seq      INTEGER PRIMARY KEY,
    tenant   TEXT NOT NULL,
    vendor   TEXT NOT NULL,
    envelope TEXT NOT NULL,
    digest   BLOB NOT NULL, -- SHA-256 of the body: the same again is the same event
    news     TEXT NOT NULL,
    at       INTEGER NOT NULL, -- by the vendor's clock
    came     INTEGER NOT NULL,
    private  BLOB NOT NULL, -- under the tenant's key: where the document is, what somebody who declined has said
    UNIQUE (tenant, vendor, envelope, digest)
) STRICT;
CREATE INDEX vendor_events_came ON vendor_events (came);

-- Whose an envelope is: one deal's, for ever, unless a person has dropped that one.
CREATE TABLE envelopes (
    tenant   TEXT NOT NULL,
    vendor   TEXT NOT NULL,
    envelope TEXT NOT NULL,
    tx       TEXT NOT NULL,
    PRIMARY KEY (tenant, vendor, envelope)
) STRICT, WITHOUT ROWID;
CREATE INDEX envelopes_tx ON envelopes (tx);
