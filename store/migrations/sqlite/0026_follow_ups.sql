-- Deals without an outcome whose records are to say so when that has lasted too long. What is due later than a day is no job of the queue.
CREATE TABLE follow_ups (
    tx    TEXT PRIMARY KEY,
    since INTEGER NOT NULL, -- when the wait began
    due   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
