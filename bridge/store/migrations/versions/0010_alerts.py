"""The owner is told of problems, and of goals whose rule says so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("goals", sa.Column("notify", sa.Text))
    op.add_column("goals", sa.Column("told_at_ms", sa.BigInteger))
    where = sa.text("notify = 'wanted'")
    columns = ["state", "delivered_at_ms"]
    op.create_index("ix_goals_notify", "goals", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "alert_problems",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("began_at_ms", sa.BigInteger, nullable=False),
        sa.Column("gone_at_ms", sa.BigInteger),
        sa.Column("told", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("told_at_ms", sa.BigInteger),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("about", "target", "place", "kind")),
        sa.Column("goal_id", sa.BigInteger),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("title", "body", "state")),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        *(sa.Column(f"{name}_at_ms", sa.BigInteger, nullable=False) for name in ("made", "due", "changed")),
        sa.Column("message", sa.Text),
        sa.UniqueConstraint("about", "target"),
    )
    op.create_index("ix_alerts_state_changed_at_ms", "alerts", ["state", "changed_at_ms"])
    op.create_index("ix_alerts_goal_id", "alerts", ["goal_id"])
    op.create_index("ix_alerts_made_at_ms", "alerts", ["made_at_ms"])
