-- Contracts that programs have asked for. The keys are those of the programs, hashed with a key of the tenant's.
CREATE TABLE requests (
    tx       TEXT PRIMARY KEY,
    tenant   TEXT NOT NULL,
    key      BLOB NOT NULL,
    asked    BLOB NOT NULL, -- what was asked for, hashed like the key
    at       INTEGER NOT NULL,
    endpoint TEXT NOT NULL, -- whose secret signs what is told to callback; empty: nobody is called back
    callback BLOB NOT NULL, -- ciphertext under the deal's data key: the address; empty when there is none
    UNIQUE (tenant, key)
) STRICT, WITHOUT ROWID;
