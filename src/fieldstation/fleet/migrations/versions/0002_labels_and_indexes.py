"""Labels of devices, and indexes for what grows: ended leases and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them; devices that are there have no labels."""
    op.add_column("fleet_device", sa.Column("labels", sa.JSON, nullable=False, server_default="{}"))
    op.create_index("fleet_lease_open", "fleet_lease", ["ended_at"])
    op.create_index("fleet_audit_at", "fleet_audit", ["at"])
