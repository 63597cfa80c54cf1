CREATE TABLE fence (
  serial TEXT PRIMARY KEY,
  fence INTEGER NOT NULL
);

-- `body` is the lease as control sent it. Its end is kept on the clock that no one can set (seconds since the machine
-- started, valid while `boot` is the same) and on the wall clock for when the machine was restarted in between.
CREATE TABLE lease (
  id TEXT PRIMARY KEY,
  body TEXT NOT NULL,
  boot TEXT NOT NULL,
  ends_uptime REAL NOT NULL,
  ends_wall REAL NOT NULL,
  ours INTEGER
);

CREATE TABLE event (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  lease TEXT NOT NULL,
  serial TEXT NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX event_lease ON event (lease);
