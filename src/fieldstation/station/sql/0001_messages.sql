-- A message is appended once and only aged out by retention: it is the archive.
-- `rank` orders deliveries: 0 for readings and config answers, 1 for logs. `owed` says whether an uplink ever had to
-- send it: what never was owed is the only copy and is not dropped when the disk is full.
CREATE TABLE message (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    timestamp REAL NOT NULL,
    rank INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    body TEXT NOT NULL,
    revision INTEGER -- of the config under which it was made
);
CREATE INDEX message_timestamp ON message (timestamp);

CREATE TABLE uplink (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    active INTEGER NOT NULL
);
INSERT INTO uplink (id, name, active) VALUES (1, 'backend', 1);

-- What an uplink still has to send. The key is also the order of sending, so that a look at the next rows costs the
-- same however many there are. An acknowledgement deletes the delivery and nothing else.
CREATE TABLE delivery (
    uplink INTEGER NOT NULL REFERENCES uplink (id),
    rank INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (uplink, rank, seq)
) WITHOUT ROWID;

-- What an uplink cannot send, set aside so that it blocks nothing.
CREATE TABLE parked (
    uplink INTEGER NOT NULL REFERENCES uplink (id),
    seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (uplink, seq)
) WITHOUT ROWID;
