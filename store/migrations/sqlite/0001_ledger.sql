-- The ledger: what was noticed, how far it came, what the CRM should show, and the proof of all of it.
-- Times are UTC milliseconds. Columns that hold ciphertext say so.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE activations (
    account  TEXT NOT NULL,
    rule     TEXT NOT NULL,
    object   TEXT NOT NULL,
    pipeline TEXT NOT NULL, -- empty: any
    stage    TEXT NOT NULL,
    tenant   TEXT NOT NULL,
    since    INTEGER NOT NULL, -- entries before it are never sealed unasked
    watched  INTEGER NOT NULL, -- until when the history was read with this watch
    PRIMARY KEY (account, rule, object, pipeline, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (
    tenant  TEXT NOT NULL,
    account TEXT NOT NULL,
    cursor  TEXT NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (tenant, account)
) STRICT, WITHOUT ROWID;

-- Plans are shared by all sealings that were noticed under the same configuration.
CREATE TABLE plans (
    hash TEXT PRIMARY KEY,
    plan TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One desired receipt per record and set of fields. The newest entry owns it.
CREATE TABLE receipts (
    id        INTEGER PRIMARY KEY,
    tenant    TEXT NOT NULL,
    account   TEXT NOT NULL,
    object    TEXT NOT NULL,
    record    TEXT NOT NULL,
    field     TEXT NOT NULL,
    owner     TEXT NOT NULL,
    owner_at  INTEGER NOT NULL,
    owner_seq INTEGER NOT NULL,
    status    TEXT NOT NULL,
    sequence  INTEGER NOT NULL,
    sent      INTEGER NOT NULL,
    due       INTEGER NOT NULL, -- since when the CRM has to be told, while sent < sequence
    UNIQUE (account, object, record, field)
) STRICT;
CREATE INDEX receipts_due ON receipts (due) WHERE sent < sequence;

CREATE TABLE sealings (
    seq          INTEGER PRIMARY KEY,
    tx           TEXT NOT NULL UNIQUE,
    tenant       TEXT NOT NULL,
    account      TEXT NOT NULL,
    object       TEXT NOT NULL,
    record       TEXT NOT NULL,
    rule         TEXT NOT NULL,
    at           INTEGER NOT NULL,
    change       TEXT NOT NULL,
    plan         TEXT NOT NULL REFERENCES plans (hash),
    step         TEXT NOT NULL,
    condition    TEXT NOT NULL,
    reason       TEXT NOT NULL,
    attempts     INTEGER NOT NULL,
    next         INTEGER NOT NULL,
    noticed      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    step_at      INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    facts        TEXT NOT NULL,
    private      BLOB NOT NULL, -- ciphertext under the data key; empty when there is none
    signature    INTEGER NOT NULL CHECK (signature IN (0, 1)),
    adopted      INTEGER NOT NULL CHECK (adopted IN (0, 1)),
    receipt      INTEGER REFERENCES receipts (id),
    events       INTEGER NOT NULL,
    last_entry   INTEGER NOT NULL, -- index of the newest audit entry
    lease_owner  TEXT NOT NULL,
    lease_until  INTEGER NOT NULL,
    retention    TEXT NOT NULL,
    legal_hold   INTEGER NOT NULL CHECK (legal_hold IN (0, 1)),
    delete_after INTEGER
) STRICT;
CREATE INDEX sealings_counts ON sealings (tenant, step, condition, updated);
CREATE INDEX sealings_tenant ON sealings (tenant, seq);
CREATE INDEX sealings_tenant_condition ON sealings (tenant, condition, seq);
CREATE INDEX sealings_condition ON sealings (condition, seq);
CREATE INDEX sealings_step ON sealings (step, seq);
CREATE INDEX sealings_record ON sealings (record, seq);
CREATE INDEX sealings_plan ON sealings (plan);
CREATE INDEX sealings_receipt ON sealings (receipt);
CREATE INDEX sealings_alive ON sealings (seq) WHERE condition IN ('running', 'retrying') AND step <> 'done';
CREATE INDEX sealings_leased ON sealings (seq) WHERE lease_until > 0;
CREATE INDEX sealings_due_for_deletion ON sealings (delete_after) WHERE delete_after IS NOT NULL;

-- Every name under which an entry is known, its own and those that it would have under older IDs of its record.
CREATE TABLE known (
    tx    TEXT PRIMARY KEY,
    owner TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Every ID that the record of a sealing is or was known by.
CREATE TABLE record_ids (
    account TEXT NOT NULL,
    object  TEXT NOT NULL,
    record  TEXT NOT NULL,
    rule    TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    PRIMARY KEY (account, object, record, rule, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX record_ids_seq ON record_ids (seq);

-- A missing row means that the key was destroyed.
CREATE TABLE data_keys (
    tx      TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL -- ciphertext under the tenant's key
) STRICT, WITHOUT ROWID;

-- The last guard of "one digest per transaction": at most one row per transaction is not superseded.
CREATE TABLE digests (
    tx         TEXT NOT NULL,
    digest     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    superseded INTEGER,
    PRIMARY KEY (tx, digest)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX digests_current ON digests (tx) WHERE superseded IS NULL;

CREATE TABLE intents (
    tx      TEXT NOT NULL,
    version INTEGER NOT NULL,
    step    TEXT NOT NULL,
    what    TEXT NOT NULL,
    digest  TEXT NOT NULL,
    key     TEXT NOT NULL,
    at      INTEGER NOT NULL,
    until   INTEGER NOT NULL,
    PRIMARY KEY (tx, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    n       INTEGER PRIMARY KEY,
    tx      TEXT NOT NULL,          -- empty for entries that concern no sealing
    shared  INTEGER NOT NULL CHECK (shared IN (0, 1)), -- 1: private is under the store's key, not a data key
    leaf    BLOB NOT NULL,          -- the exact bytes that the tree commits to
    private BLOB NOT NULL           -- ciphertext: salt, who, why, detail
) STRICT;
CREATE INDEX audit_tx ON audit (tx, n);

CREATE TABLE audit_hashes (
    i    INTEGER PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE checkpoints (
    size INTEGER PRIMARY KEY,
    at   INTEGER NOT NULL,
    note BLOB NOT NULL
) STRICT;

CREATE TABLE outbox (
    id   TEXT PRIMARY KEY,
    tx   TEXT NOT NULL,
    n    INTEGER NOT NULL,
    type TEXT NOT NULL,
    at   INTEGER NOT NULL,
    data BLOB NOT NULL, -- ciphertext under the data key
    UNIQUE (tx, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
    account TEXT NOT NULL,
    row     TEXT NOT NULL,
    object  TEXT NOT NULL,
    record  TEXT NOT NULL,
    reason  TEXT NOT NULL,
    at      INTEGER NOT NULL,
    seen    INTEGER NOT NULL,
    PRIMARY KEY (account, row)
) STRICT, WITHOUT ROWID;
CREATE INDEX quarantine_seen ON quarantine (seen);

CREATE TABLE memory (
    tenant  TEXT NOT NULL,
    key     TEXT NOT NULL,
    value   BLOB NOT NULL, -- ciphertext under the tenant's key
    version INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE polls (
    tenant TEXT PRIMARY KEY,
    state  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE counts (
    tenant    TEXT NOT NULL,
    step      TEXT NOT NULL,
    condition TEXT NOT NULL,
    n         INTEGER NOT NULL,
    PRIMARY KEY (tenant, step, condition)
) STRICT, WITHOUT ROWID;

CREATE TABLE daily (
    day    TEXT NOT NULL,
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (day, tenant, name)
) STRICT, WITHOUT ROWID;

-- bucket b counts durations below 2^b milliseconds and not below 2^(b-1).
CREATE TABLE latency (
    day    TEXT NOT NULL,
    tenant TEXT NOT NULL,
    step   TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (day, tenant, step, bucket)
) STRICT, WITHOUT ROWID;

-- What should run and when. The queue's own rows only carry it out.
CREATE TABLE jobs (
    kind   TEXT NOT NULL,
    key    TEXT NOT NULL, -- the transaction, or the receipt's id: one at a time per key
    tenant TEXT NOT NULL,
    due    INTEGER NOT NULL,
    wants  INTEGER NOT NULL, -- grows with each request, so that none is lost while the job runs
    job    INTEGER,          -- the queue's row
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
