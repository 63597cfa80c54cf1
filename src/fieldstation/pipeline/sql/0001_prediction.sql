CREATE TABLE prediction (
  key TEXT PRIMARY KEY,
  document TEXT NOT NULL,
  creation_date INTEGER NOT NULL,
  product TEXT NOT NULL,
  version TEXT NOT NULL,
  workflow TEXT NOT NULL,
  workflow_type TEXT NOT NULL,
  process TEXT NOT NULL,
  request_id TEXT NOT NULL
);
CREATE INDEX prediction_by_date ON prediction (product, version, creation_date);
