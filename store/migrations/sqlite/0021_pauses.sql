-- Tenants that a person has paused: their entries are noticed, and nothing is made of them.
CREATE TABLE pauses (
    tenant TEXT PRIMARY KEY,
    since  INTEGER NOT NULL,
    who    TEXT NOT NULL,
    why    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
