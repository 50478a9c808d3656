-- When a note on the timeline of a record was last asked for, until it is known what became of that; 0 once it is. A CRM may still
-- carry out what a process asked for that has ended since.
ALTER TABLE errands ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
-- Waits for an outcome are looked for every few minutes by when they end, and by when they began in case the clock was set back.
CREATE INDEX follow_ups_due ON follow_ups (due);
CREATE INDEX follow_ups_since ON follow_ups (since);
