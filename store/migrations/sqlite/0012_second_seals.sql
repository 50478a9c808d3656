-- A certificate that another one follows may go on for a while beside it: documents then get a second seal with it.
ALTER TABLE certificates ADD COLUMN beside_until INTEGER NOT NULL DEFAULT 0 CHECK (beside_until = 0 OR state IN ('next', 'retiring')); -- of a next one: how long the one that it follows does

-- "One digest per transaction" becomes one for each of its seals. A second seal is over the first, whose digest therefore never changes any more.
ALTER TABLE digests ADD COLUMN seal INTEGER NOT NULL DEFAULT 1 CHECK (seal IN (1, 2));
DROP INDEX digests_current;
CREATE UNIQUE INDEX digests_current ON digests (tx, seal) WHERE superseded IS NULL;
