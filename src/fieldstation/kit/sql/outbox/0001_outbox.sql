CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order of sending; never used twice
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    refused TEXT                            -- why the broker will not have it; such a row is set aside
);
CREATE INDEX outbox_waiting ON outbox (id) WHERE refused IS NULL;
