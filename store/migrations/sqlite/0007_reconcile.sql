-- Comparing what the CRMs show with the ledger.

-- The newest pass of each tenant, and how far it has come.
CREATE TABLE passes (
    tenant TEXT PRIMARY KEY,
    state  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What a CRM does not show as the ledger has it, as of the last look. Names and IDs only.
CREATE TABLE discrepancies (
    tx         TEXT NOT NULL,
    kind       TEXT NOT NULL,
    tenant     TEXT NOT NULL,
    what       TEXT NOT NULL,
    since      INTEGER NOT NULL,
    dealt_with INTEGER NOT NULL, -- when a person has dealt with it; 0: not yet
    PRIMARY KEY (tx, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX discrepancies_open ON discrepancies (tenant, kind, since) WHERE dealt_with = 0;

-- What a pass looks at: sealings in the order in which they were done.
CREATE INDEX sealings_done ON sealings (tenant, step_at, seq) WHERE step = 'done';
