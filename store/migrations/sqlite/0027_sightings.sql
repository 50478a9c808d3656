-- In which stage records were seen last whose stages have no history, per tenant: an entry is inferred from what was seen before.
CREATE TABLE sightings (
    tenant  TEXT NOT NULL,
    account TEXT NOT NULL,
    object  TEXT NOT NULL,
    record  TEXT NOT NULL,
    stage   TEXT NOT NULL,
    entered INTEGER NOT NULL, -- the record's stamp when it was first seen in this stage
    origin  INTEGER NOT NULL, -- that of the stage before; 0: it was never seen before
    after   INTEGER NOT NULL, -- when it was certainly not yet in this stage; 0: never
    stamp   INTEGER NOT NULL, -- of the newest sighting
    PRIMARY KEY (tenant, account, object, record)
) STRICT, WITHOUT ROWID;

-- How a rule finds its entries ('' by the history), which names them: with another way the same entry would have two names.
ALTER TABLE activations ADD COLUMN detect TEXT NOT NULL DEFAULT '';

-- Whether all that there is to see was seen once since the rule was activated: what enters another stage later has entered since.
ALTER TABLE activations ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
