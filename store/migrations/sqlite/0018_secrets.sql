-- Since when the secrets of tenants are known, so that one that nobody has changed for long is found. A commitment is an HMAC
-- under a key of the tenant's: the database alone tells nothing of a secret, and not that two tenants have the same.
CREATE TABLE secrets (
    tenant     TEXT NOT NULL,
    commitment BLOB NOT NULL,
    first      INTEGER NOT NULL,
    last       INTEGER NOT NULL, -- to the day
    PRIMARY KEY (tenant, commitment)
) STRICT, WITHOUT ROWID;
