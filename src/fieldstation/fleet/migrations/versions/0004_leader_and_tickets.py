"""Who leads, when there are two controls; and the ticket a lease was taken with."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add them. Nobody leads yet; leases that are there have no ticket."""
    leader = op.create_table(
        "fleet_leader",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(leader, [{"epoch": 0, "holder": "", "beat": 0}])
    op.add_column("fleet_lease", sa.Column("ticket", sa.Text))
