"""What senders say before their source has a secret (store/inbox/first_messages.py)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "first_messages",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "token", name=op.f("pk_first_messages")),
    )
    op.create_index("ix_first_messages_at_ms", "first_messages", ["at_ms"], unique=False)
