-- What an uplink still has to send, as ranges: `first` to `last` are numbers of messages of one rank, all of them owed.
-- The newest range of an uplink has no end (2^62): messages that are added fall into it and cost nothing here. It is
-- closed when one of another rank comes, so that a range never holds a number that is not owed.
CREATE TABLE owed_range (
    uplink INTEGER NOT NULL REFERENCES uplink (id),
    rank INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (uplink, rank, first)
) WITHOUT ROWID;
INSERT INTO owed_range (uplink, rank, first, last)
SELECT uplink, rank, min(seq), max(seq)
FROM (SELECT uplink, rank, seq, seq - row_number() OVER (PARTITION BY uplink, rank ORDER BY seq) AS island FROM delivery)
GROUP BY uplink, rank, island;
DROP TABLE delivery;
ALTER TABLE owed_range RENAME TO delivery;
