"""Who was not known to a destination, which borrowed ids it knows, and which events named a visitor."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("goals", sa.Column("unknown_at_ms", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("goals", sa.Column("to_prove", sa.Text(), nullable=True))
    op.create_index(
        "ix_goals_unknown",
        "goals",
        ["destination", "state", "unknown_at_ms", "due_at_ms", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_goals_to_prove",
        "goals",
        ["to_prove"],
        unique=False,
        sqlite_where=sa.text("to_prove IS NOT NULL"),
        postgresql_where=sa.text("to_prove IS NOT NULL"),
    )
    op.add_column("destinations", sa.Column("unknown_since_ms", sa.BigInteger(), nullable=True))
    op.add_column("destinations", sa.Column("unknown_turn_at_ms", sa.BigInteger(), server_default="0", nullable=False))
    op.execute("UPDATE destinations SET not_before_ms = 0 WHERE pause_kind = 'unknown_visitors'")  # the probe ends it
    op.add_column("link_visitors", sa.Column("borrowed", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute("UPDATE link_visitors SET borrowed = true WHERE NOT sure")  # named by a bare client_reference_id alone
    op.add_column("link_events", sa.Column("named", sa.Boolean(), nullable=True))
    op.create_table(
        "visitor_proofs",
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("visitor", sa.Text(), nullable=False),
        sa.Column("known", sa.Boolean(), nullable=True),
        sa.Column("made_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("again_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("destination", "visitor", name=op.f("pk_visitor_proofs")),
    )
    op.create_index("ix_visitor_proofs_visitor", "visitor_proofs", ["visitor"], unique=False)
    op.create_index("ix_visitor_proofs_made_at_ms", "visitor_proofs", ["made_at_ms"], unique=False)
    op.create_index(
        "ix_visitor_proofs_open",
        "visitor_proofs",
        ["destination", "again_at_ms"],
        unique=False,
        sqlite_where=sa.text("known IS NULL"),
        postgresql_where=sa.text("known IS NULL"),
    )
