-- Entries that the filter of their rule has left out. Their names are in known, so that they are asked about once.
CREATE TABLE filtered (
    tx      TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    account TEXT NOT NULL,
    object  TEXT NOT NULL,
    record  TEXT NOT NULL,
    rule    TEXT NOT NULL,
    stage   TEXT NOT NULL,
    at      INTEGER NOT NULL,
    noticed INTEGER NOT NULL,
    filter  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX filtered_newest ON filtered (tenant, noticed);
CREATE INDEX filtered_record ON filtered (record);
