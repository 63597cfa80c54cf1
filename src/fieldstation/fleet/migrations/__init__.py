"""Alembic's scripts for the fleet's database, one file per step."""
