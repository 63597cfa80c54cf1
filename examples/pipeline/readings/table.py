"""Write batches into a SQLite table, each reading once, and each batch into a Parquet file."""

import os
import sqlite3
from pathlib import Path

import pyarrow as arrow
from google.protobuf.struct_pb2 import ListValue
from pyarrow import parquet

from fieldstation import pipeline

target = Path(os.environ.get("READINGS_TARGET", "table"))


@pipeline.exit
def table(sdk, rows: ListValue):
    readings = [{"id": row["id"], "source": row["source"], "value": row["value"]} for row in rows]
    with sqlite3.connect(target / "readings.sqlite") as database:
        database.executemany("INSERT OR IGNORE INTO reading VALUES (:id, :source, :value)", readings)
    database.close()
    # Named by its request: a batch that is handed out twice writes the same file.
    parquet.write_table(arrow.Table.from_pylist(readings), target / f"{sdk.get_request_id()}.parquet")


@table.initializer
def create(sdk):
    target.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(target / "readings.sqlite") as database:
        database.execute("CREATE TABLE IF NOT EXISTS reading (id TEXT PRIMARY KEY, source TEXT, value REAL)")
    database.close()
