"""Fencing numbers of devices that are gone."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table; what devices had that are gone by now is known only to their workers."""
    op.create_table(
        "fleet_gone",
        sa.Column("serial", sa.Text, primary_key=True),
        sa.Column("fence", sa.BigInteger, nullable=False),
    )
