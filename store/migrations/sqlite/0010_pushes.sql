-- What reached us from outside and was recognised as the push of a sender, or refused. No body and no header is kept.
CREATE TABLE pushes (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    tenant  TEXT NOT NULL, -- '' when it is not known whom it was for
    source  TEXT NOT NULL,
    verdict TEXT NOT NULL,
    object  TEXT NOT NULL,
    record  TEXT NOT NULL, -- '' when it named none, or was refused
    n       INTEGER NOT NULL -- so many of the same request, or within a few seconds
) STRICT;

-- What was taken before: requests by what was signed, events by what their sender calls them.
CREATE TABLE nonces (
    nonce BLOB PRIMARY KEY,
    until INTEGER NOT NULL -- after which it cannot come again
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_until ON nonces (until);
