"""The audit log becomes a chain of hashes; lines that are there stay outside of it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns and the chain's head."""
    op.add_column("fleet_audit", sa.Column("previous", sa.Text, nullable=False, server_default=""))
    op.add_column("fleet_audit", sa.Column("hash", sa.Text, nullable=False, server_default=""))
    head = op.create_table(
        "fleet_audit_head",
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("line", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    last = op.get_bind().execute(sa.text("SELECT max(id) FROM fleet_audit")).scalar() or 0
    op.bulk_insert(head, [{"first": last + 1, "line": last, "hash": ""}])
