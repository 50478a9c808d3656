-- A certificate may be for the key pair of another key of the configuration than the one that profiles name: empty for the same.
ALTER TABLE certificates ADD COLUMN pair TEXT NOT NULL DEFAULT '';
