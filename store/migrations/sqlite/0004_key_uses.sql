-- How many digests each key was about to sign, by day in UTC. A digest counts once, however often its signature was tried.
CREATE TABLE key_uses (
    key  TEXT NOT NULL,    -- SHA-256 of the public key
    day  TEXT NOT NULL,
    uses INTEGER NOT NULL,
    PRIMARY KEY (key, day)
) STRICT, WITHOUT ROWID;

INSERT INTO key_uses (key, day, uses)
SELECT key, day, count(*) FROM (
    SELECT key, strftime('%Y-%m-%d', min(at) / 1000, 'unixepoch') AS day FROM intents WHERE what = 'sign' GROUP BY tx, digest, key
) GROUP BY key, day;
