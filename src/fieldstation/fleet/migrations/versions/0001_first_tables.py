"""Workers, devices, leases, reservations, tokens, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "fleet_worker",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("kinds", sa.JSON, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("seen_at", _TIME),
    )
    op.create_table(
        "fleet_device",
        sa.Column("serial", sa.Text, primary_key=True),
        sa.Column("worker", sa.Text, sa.ForeignKey("fleet_worker.name"), nullable=False),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("health", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("kinds", sa.JSON, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "fleet_lease",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("token_hash", sa.Text, nullable=False, unique=True),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, sa.ForeignKey("fleet_worker.name"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("args", sa.JSON, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.Column("had_socket", sa.Boolean, nullable=False),
        sa.Column("taken_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("end_reason", sa.Text),
    )
    op.create_table(
        "fleet_reservation",
        sa.Column("serial", sa.Text, sa.ForeignKey("fleet_device.serial"), primary_key=True),
        sa.Column("lease", sa.Text, sa.ForeignKey("fleet_lease.id"), nullable=False, index=True),
        sa.Column("fence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "fleet_token",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
    )
    op.create_table(
        "fleet_audit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
