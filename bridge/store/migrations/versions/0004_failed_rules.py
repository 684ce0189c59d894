"""The index of events of which a rule made no goal because it failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    failed = sa.text("verdict = 'unmatched' AND reason IS NOT NULL")
    op.create_index(
        "ix_events_failed",
        "events",
        ["verdict", "received_at_ms"],
        unique=False,
        sqlite_where=failed,
        postgresql_where=failed,
    )
