-- From which message on which day it is (days since 1970, UTC). One row a day, more when the clock jumps: an index of all
-- times would cost each message as much as the message itself.
CREATE TABLE day (
    first INTEGER PRIMARY KEY,
    day INTEGER NOT NULL
);
INSERT INTO day (first, day)
SELECT seq, day FROM (
    SELECT seq, day, lag(day) OVER (ORDER BY seq) AS before
    FROM (SELECT seq, CAST(timestamp / 86400 AS INTEGER) AS day FROM message)
) WHERE before IS NULL OR before <> day;
DROP INDEX message_timestamp;
