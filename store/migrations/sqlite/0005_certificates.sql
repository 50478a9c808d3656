-- The certificates that keys seal with. They are public: every sealed document holds its own.
CREATE TABLE certificates (
    key         TEXT NOT NULL, -- the key's name in the configuration
    sha256      TEXT NOT NULL, -- of the certificate
    spki        TEXT NOT NULL, -- SHA-256 of the only key that it may be used with
    serial      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    issuer      TEXT NOT NULL,
    purpose     TEXT NOT NULL,
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    chain       TEXT NOT NULL, -- JSON list of DER in base64, the certificate first
    state       TEXT NOT NULL CHECK (state IN ('next', 'active', 'retiring', 'revoked')),
    since       INTEGER NOT NULL, -- of this state
    activate_at INTEGER NOT NULL CHECK (activate_at = 0 OR state = 'next'), -- 0: when a person says so
    told_days   INTEGER NOT NULL, -- its end was told of at so many days, the fewest; 0: not yet
    checked     INTEGER NOT NULL, -- when its issuer was last asked whether it is revoked; 0: never
    answered    INTEGER NOT NULL, -- when there was last an answer; 0: never
    answer      TEXT NOT NULL,
    detail      TEXT NOT NULL,
    PRIMARY KEY (key, sha256)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX certificates_active ON certificates (key) WHERE state = 'active';
