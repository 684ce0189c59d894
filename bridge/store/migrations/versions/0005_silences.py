"""Since when a source refuses what it is sent, and how long it is usually silent.

The silences of those that are there already are read from the last events, so that an upgrade knows their nights.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

LAST = 10_000  # events: enough to know a source by, and no work to speak of


def upgrade() -> None:
    for name in ("row_began_at_ms", "longest_gap_ms", "longest_gap_before_ms", "gaps_began_at_ms"):
        op.add_column("source_counters", sa.Column(name, sa.BigInteger(), nullable=True))
    op.execute(
        f"""
        UPDATE source_counters SET gaps_began_at_ms = last_accepted_at_ms, longest_gap_ms = (
            SELECT max(silences.ms) FROM (
                SELECT source, received_at_ms - lag(received_at_ms) OVER (PARTITION BY source ORDER BY id) AS ms
                FROM events WHERE id > (SELECT coalesce(max(id), 0) - {LAST} FROM events)
            ) AS silences WHERE silences.source = source_counters.source)
        """  # noqa: S608 - no value in it
    )
