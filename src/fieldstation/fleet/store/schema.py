"""Migrations of the database, run by Alembic from `fleet/migrations`."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from fieldstation.core.errors import SchemaTooNewError

log = logging.getLogger(__name__)

# A table of its own: an iCEFARM installation's Flyway or another program's Alembic keep theirs.
VERSION_TABLE = "fleet_alembic_version"
_MIGRATIONS = Path(__file__).parent.parent / "migrations"
_LOCK = 0x66_6C_65_65_74  # "fleet": two controls that start together migrate one after the other


def revisions() -> list[str]:
    """Return the known revisions, oldest first."""
    return [script.revision for script in reversed(list(ScriptDirectory(str(_MIGRATIONS)).walk_revisions()))]


def upgrade(engine: Engine, shown: str, target: str = "head") -> tuple[str | None, str]:
    """Migrate in one transaction; returns the revisions before and after. A newer schema is refused untouched."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # our own line says what is done
    known = revisions()
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        found = context.get_current_revision()
        if found is not None and found not in known:
            raise SchemaTooNewError(path=shown, found=found, known=known[-1])
        wanted = known[-1] if target == "head" else target
        if found != wanted:
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, target)
            log.info("database %s: schema %s (was %s)", shown, wanted, found or "empty")
        return found, wanted
