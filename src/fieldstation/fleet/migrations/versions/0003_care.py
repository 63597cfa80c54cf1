"""Devices out of service, and devices' histories."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create both; every device that is there is in service."""
    op.create_table(
        "fleet_out_of_service",
        sa.Column("serial", sa.Text, primary_key=True),
        sa.Column("health", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
    )
    op.create_table(
        "fleet_history",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("serial", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("fleet_history_serial", "fleet_history", ["serial", "id"])
