"""Links live 400 days, renewed on use: what was not met for so long goes, a few rows at a time.

A thread that is still in use keeps the keys with which a visitor was named, and the one it is called after, however old
they are; its other old keys go, so that a subscription of many years does not grow without end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, exists, func, or_, select, update

from bridge.store.goals.unknown import BARE_MS
from bridge.store.links import statements
from bridge.store.schema import link_events, link_keys, link_visitors, unknown_visitors, visitor_proofs

if TYPE_CHECKING:
    from sqlalchemy import Connection

LINKS_MS: Final = 400 * 86_400_000


def forget_links(conn: Connection, limit: int, now: int) -> int:
    """Go through the keys that were not met for 400 days, the oldest first; how many were seen to."""
    conn.execute(delete(unknown_visitors).where(unknown_visitors.c.at_ms <= now - BARE_MS))
    conn.execute(delete(visitor_proofs).where(visitor_proofs.c.made_at_ms <= now - LINKS_MS))
    values = {"before": now - LINKS_MS, "most": limit}
    if conn.execute(_OLD, values | {"most": 1}).first() is None:
        return 0
    statements.lock(conn)
    old = list(conn.execute(_OLD, values).scalars())
    kept = {row.key: row.used_at_ms for row in conn.execute(_STILL_NEEDED, {"keys": old, "before": now - LINKS_MS})}
    if kept:  # as young as the youngest key of their thread
        conn.execute(_RENEW, [{"of": key, "used": used_at_ms} for key, used_at_ms in kept.items()])
    gone = [key for key in old if key not in kept]
    for table in (link_events, link_visitors, link_keys):
        conn.execute(delete(table).where(table.c.key.in_(gone)))
    return len(old)


_mate = link_keys.alias("mate")
_OLD: Final = (
    select(link_keys.c.key)
    .where(link_keys.c.used_at_ms <= bindparam("before"))
    .order_by(link_keys.c.used_at_ms)
    .limit(bindparam("most"))
)
_STILL_NEEDED: Final = (
    select(link_keys.c.key, func.max(_mate.c.used_at_ms).label("used_at_ms"))
    .join_from(link_keys, _mate, _mate.c.thread == link_keys.c.thread)
    .where(
        link_keys.c.key.in_(bindparam("keys", expanding=True)),
        _mate.c.used_at_ms > bindparam("before"),
        or_(link_keys.c.thread == link_keys.c.key, exists().where(link_visitors.c.key == link_keys.c.key)),
    )
    .group_by(link_keys.c.key)
)
_RENEW: Final = update(link_keys).where(link_keys.c.key == bindparam("of")).values(used_at_ms=bindparam("used"))
