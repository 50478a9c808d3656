-- Who may use the API. What is shown, a token or a certificate, is not kept, only its SHA-256.
CREATE TABLE tokens (
    fingerprint TEXT PRIMARY KEY, -- hexadecimal
    kind        TEXT NOT NULL, -- token | certificate
    name        TEXT NOT NULL,
    live        INTEGER NOT NULL,
    role        TEXT NOT NULL,
    tenants     TEXT NOT NULL, -- a JSON list; empty: all of the environment
    made        INTEGER NOT NULL,
    maker       TEXT NOT NULL,
    until       INTEGER NOT NULL,
    used        INTEGER NOT NULL, -- 0: never
    revoked     INTEGER NOT NULL  -- 0: not
) STRICT, WITHOUT ROWID;
