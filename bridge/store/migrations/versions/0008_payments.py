"""Payments are counted apart from goals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    where = sa.text("kind != 'goal'")
    columns = ["destination", "state"]
    op.create_index("ix_goals_payments", "goals", columns, sqlite_where=where, postgresql_where=where)
