-- What is to be done in a CRM because of what became of a deal, beside telling its record, and what came of it.
CREATE TABLE errands (
    id      INTEGER PRIMARY KEY,
    tx      TEXT NOT NULL,
    tenant  TEXT NOT NULL,
    kind    TEXT NOT NULL,
    status  TEXT NOT NULL, -- what became of the deal
    stage   TEXT NOT NULL, -- where its record is moved to
    made    INTEGER NOT NULL,
    tries   INTEGER NOT NULL, -- that were begun
    problem TEXT NOT NULL, -- why the last one did not do it
    fate    TEXT NOT NULL, -- empty: it is to be done
    outcome TEXT NOT NULL, -- for people
    ended   INTEGER NOT NULL -- 0: not yet
) STRICT;
CREATE INDEX errands_tx ON errands (tx);
CREATE INDEX errands_open ON errands (tenant, tx) WHERE fate = '';
