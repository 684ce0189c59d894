"""Which kind of action a row of goals is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("goals", sa.Column("kind", sa.Text(), nullable=False, server_default="goal"))
