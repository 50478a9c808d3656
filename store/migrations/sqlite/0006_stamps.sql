-- How many requests a time-stamp server that has a quota was sent, by day in UTC: a restart gives none of them back.
CREATE TABLE stamps (
    server   TEXT NOT NULL, -- its address without the query
    day      TEXT NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (server, day)
) STRICT, WITHOUT ROWID;
