-- When a note on the timeline of a record was last asked for, until it is known what became of that; 0 once it is. A CRM may still
-- carry out what a process asked for that has ended since.
ALTER TABLE errands ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
