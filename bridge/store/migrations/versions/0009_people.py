"""Which keys of people are certainly a person's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("link_keys", sa.Column("certain_at_ms", sa.BigInteger(), nullable=True))
