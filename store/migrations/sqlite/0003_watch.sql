-- What whoever watches over the daemon needs to know.

-- How often the step has failed in a row, whether or not an attempt was used up by it.
ALTER TABLE sealings ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
UPDATE sealings SET failures = attempts WHERE condition = 'retrying';

-- When a person has seen the row and dealt with it; 0: not yet.
ALTER TABLE quarantine ADD COLUMN dealt_with INTEGER NOT NULL DEFAULT 0;
DROP INDEX quarantine_seen;
CREATE INDEX quarantine_open ON quarantine (seen) WHERE dealt_with = 0;
