-- What the pages need to answer at once, however many deals there are: lists by any filter, a search by name, and charts.

-- One word for how a sealing is doing, and the day (UTC, since 1970) on which it was noticed.
ALTER TABLE sealings ADD COLUMN state TEXT GENERATED ALWAYS AS (CASE WHEN step = 'done' THEN 'done' ELSE condition END) VIRTUAL;
ALTER TABLE sealings ADD COLUMN day INTEGER GENERATED ALWAYS AS (noticed / 86400000) VIRTUAL;
DROP INDEX sealings_condition;
DROP INDEX sealings_tenant_condition;
CREATE INDEX sealings_state ON sealings (state, seq);
CREATE INDEX sealings_tenant_state ON sealings (tenant, state, seq);
CREATE INDEX sealings_day ON sealings (day, seq);
CREATE INDEX sealings_rule ON sealings (rule, seq);
CREATE INDEX record_ids_record ON record_ids (record, seq);

-- 1: it has waited for a person, or came from the archive, so that its duration says nothing of the daemon's.
ALTER TABLE sealings ADD COLUMN waited INTEGER NOT NULL DEFAULT 0 CHECK (waited IN (0, 1));

-- Keyed hashes of the words in the names of a sealing's record. They go with its data key. Sealings that were gathered
-- before this migration have none and are found by their IDs.
CREATE TABLE words (
    word INTEGER NOT NULL,
    seq  INTEGER NOT NULL,
    PRIMARY KEY (word, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX words_seq ON words (seq);

-- How long sealings took from noticed to reported, by the day on which that was. Bucket b counts durations up to 2^(b/8)
-- milliseconds and above 2^((b-1)/8); so does latency from now on.
CREATE TABLE flows (
    day    TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (day, bucket)
) STRICT, WITHOUT ROWID;
ALTER TABLE latency RENAME TO latency_by_octaves;
CREATE TABLE latency (
    day    TEXT NOT NULL,
    tenant TEXT NOT NULL,
    step   TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (day, tenant, step, bucket)
) STRICT, WITHOUT ROWID;
INSERT INTO latency (day, tenant, step, bucket, n) SELECT day, tenant, step, bucket * 8, n FROM latency_by_octaves;
DROP TABLE latency_by_octaves;
