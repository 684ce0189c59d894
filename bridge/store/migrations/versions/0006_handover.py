"""Which goals came from an event where a visitor can be handed over, and how they and the others are found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("goals", sa.Column("handover", sa.Text(), nullable=True))
    for name, where in (
        ("ix_goals_handover", "handover IS NOT NULL"),
        ("ix_goals_unattributed", "state = 'unattributed' AND handover IS NULL"),
    ):
        op.create_index(
            name,
            "goals",
            ["source", "created_at_ms"],
            unique=False,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
