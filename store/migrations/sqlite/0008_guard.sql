-- What the guard holds until a person decides, and what it counts.

-- 1: the guard holds it. Nothing of it was told to the CRM, and it has no receipt yet.
ALTER TABLE sealings ADD COLUMN guarded INTEGER NOT NULL DEFAULT 0 CHECK (guarded IN (0, 1));
CREATE INDEX sealings_guarded ON sealings (tenant, seq, rule) WHERE guarded = 1;

-- One row per rule, and one with an empty rule for the tenant as a whole.
CREATE TABLE guards (
    tenant TEXT NOT NULL,
    rule   TEXT NOT NULL,
    cause  TEXT NOT NULL,    -- why everything of it is held; empty: nothing is
    since  INTEGER NOT NULL, -- of the cause
    first  INTEGER NOT NULL CHECK (first IN (0, 1)), -- 1: its history was not yet read to the end
    seen   INTEGER NOT NULL, -- entries of the first run
    PRIMARY KEY (tenant, rule)
) STRICT, WITHOUT ROWID;

-- Entries that were let through, by what they have in common. forgiven is how many of them no longer count against a limit,
-- because a person has decided since.
CREATE TABLE guard_counts (
    tenant   TEXT NOT NULL,
    rule     TEXT NOT NULL,
    bucket   TEXT NOT NULL,
    n        INTEGER NOT NULL,
    forgiven INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, rule, bucket)
) STRICT, WITHOUT ROWID;
