"""Migrations of the database, run by Alembic from `fleet/migrations`."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from fieldstation.core.errors import SchemaTooNewError

log = logging.getLogger(__name__)

# A table of its own: an iCEFARM installation's Flyway or another program's Alembic keep theirs.
VERSION_TABLE = "fleet_alembic_version"
_MIGRATIONS = Path(__file__).parent.parent / "migrations"
_LOCK = 0x66_6C_65_65_74  # "fleet": two controls that start together migrate one after the other


def revisions() -> list[str]:
    """Return the known revisions, oldest first: the files' numbers."""
    return sorted(file.name.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def current(connection: Connection) -> str | None:
    """Return the database's revision, None for one that has never been ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - the name is ours
    return found


def upgrade(engine: Engine, shown: str, target: str = "head") -> tuple[str | None, str]:
    """Migrate in one transaction; returns the revisions before and after. A newer schema is refused untouched."""
    known = revisions()
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))  # big tables take their time
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        found = current(connection)
        if found is not None and found not in known:
            raise SchemaTooNewError(path=shown, found=found, known=known[-1])
        wanted = known[-1] if target == "head" else target
        if found != wanted:
            _run_alembic(connection, target)
            log.info("database %s: schema %s (was %s)", shown, wanted, found or "empty")
        return found, wanted


def _run_alembic(connection: Connection, target: str) -> None:
    # Imported here: it costs a quarter of a second, and most starts have nothing to migrate.
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)  # our own line says what is done
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, target)
