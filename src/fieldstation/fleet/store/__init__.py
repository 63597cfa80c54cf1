"""The fleet's database: SQLite on one machine, PostgreSQL when control must outlive it."""

from fieldstation.fleet.store.database import Store

__all__ = ["Store"]
