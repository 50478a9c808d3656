-- Workflows of a CRM that stand still until they are told what has become of a record's deal.
CREATE TABLE callbacks (
    tenant   TEXT NOT NULL,
    callback TEXT NOT NULL, -- the CRM's name for it
    object   TEXT NOT NULL,
    record   TEXT NOT NULL,
    rule     TEXT NOT NULL, -- '' for any
    at       INTEGER NOT NULL,
    answer   INTEGER NOT NULL, -- when it is told how the deal stands if that has no end yet
    expires  INTEGER NOT NULL,
    tx       TEXT NOT NULL, -- '' until the record was looked at
    outcome  TEXT NOT NULL, -- '' until it is decided; never changed then
    tries    INTEGER NOT NULL,
    asked    INTEGER NOT NULL, -- when it was last begun to tell the CRM, 0 once its answer is known
    due      INTEGER NOT NULL, -- no attempt before
    problem  TEXT NOT NULL,
    fate     TEXT NOT NULL, -- '' while it is open
    ended    INTEGER NOT NULL,
    PRIMARY KEY (tenant, callback)
) STRICT, WITHOUT ROWID;
CREATE INDEX callbacks_open ON callbacks (tenant, due) WHERE fate = '';
CREATE INDEX callbacks_ended ON callbacks (ended) WHERE fate <> '';
CREATE INDEX callbacks_expires ON callbacks (expires);
CREATE INDEX callbacks_tx ON callbacks (tx);
