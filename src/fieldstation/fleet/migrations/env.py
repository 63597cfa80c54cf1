"""Alembic's entry: run the steps on the connection that `store.schema` opened."""

from alembic import context

from fieldstation.fleet.store.schema import VERSION_TABLE
from fieldstation.fleet.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE, transactional_ddl=False)
# The transaction is the caller's: either all steps are on disk, or none.
context.run_migrations()
