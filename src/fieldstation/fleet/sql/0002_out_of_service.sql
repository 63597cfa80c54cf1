-- Devices that the worker leaves alone: a quarantine must outlive a restart also where no control keeps it.
CREATE TABLE out_of_service (
  serial TEXT PRIMARY KEY,
  health TEXT NOT NULL,
  reason TEXT NOT NULL
);
