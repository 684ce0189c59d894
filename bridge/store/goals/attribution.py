"""Whether purchases have visitors: for each source, the last goals from events that can carry a visitor.

`read` queries the database, only by index; the rest evaluates the result. `/status`, `/metrics`, `doctor` and all
others use this module.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, literal_column, select

from bridge.identity.sentences import way
from bridge.store.schema import events, goals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

GOALS_MAX: Final = 20  # of a source, each from a different event
_GOALS_PER_EVENT: Final = 5  # are read at most
GOALS_MIN: Final = 8  # with fewer, nothing is said
SETTLED_MS: Final = 15 * 60_000  # younger goals may still find their visitor
CAUSES_MAX: Final = 8  # goals without a visitor whose causes are looked for
OTHERS_MS: Final = 30 * 86_400_000
_OTHERS_MAX: Final = 1_000  # more than this is not counted


@dataclass(frozen=True, slots=True)
class Attribution:
    """How many of a source's last goals have a visitor.

    kind: what their events are (`purchase`, `sign-up`, …), `goal` if they differ. through: one of
    `bridge.identity.sentences.WAYS` -> how many found their visitor that way. causes: why others did not, the commonest
    first: a word, the path concerned (or none), how many of those checked. example: one of them. others: goals of 30
    days without a visitor from other events, up to 1,000.
    """

    source: str
    kind: str
    goals: int
    through: Mapping[str, int]
    causes: tuple[tuple[str, str, int], ...] = ()
    example: int | None = None
    others: int = 0

    @property
    def named(self) -> int:
        """How many have a visitor."""
        return sum(self.through.values())

    def lacks(self, share: float) -> bool:
        """Whether fewer than this share have a visitor. False if there are too few goals to tell."""
        return self.goals >= GOALS_MIN and self.named < share * self.goals


def read(conn: Connection, sources: Iterable[str], now: int) -> tuple[Attribution, ...]:
    """The attribution of each of these sources that has such goals, or others without a visitor."""
    found = (_source_attribution(conn, source, now) for source in sources)
    return tuple(attribution for attribution in found if attribution.goals or attribution.others)


def _source_attribution(conn: Connection, source: str, now: int) -> Attribution:
    rows = _one_per_event(conn.execute(_NEWEST, {"of_source": source, "settled": now - SETTLED_MS}))
    unnamed = [row for row in rows if not _has_visitor(row)]
    kinds = {row.handover for row in rows}
    return Attribution(
        source=source,
        kind=kinds.pop() if len(kinds) == 1 else "goal",
        goals=len(rows),
        through=dict(Counter(through(row.provenance) for row in rows if _has_visitor(row))),  # no Counter: asdict()
        causes=_causes(conn, unnamed[:CAUSES_MAX]) if len(rows) >= GOALS_MIN else (),
        example=unnamed[0].id if unnamed else None,
        others=int(conn.execute(_OTHERS, {"of_source": source, "since": now - OTHERS_MS}).scalar_one()),
    )


def _one_per_event(newest: Iterable[Any]) -> list[Any]:
    """One goal for each of the last events, because a purchase that makes two goals is one purchase."""
    found: dict[int, Any] = {}
    for row in newest:
        if row.event_id not in found or (_has_visitor(row) and not _has_visitor(found[row.event_id])):
            found[row.event_id] = row
    return list(found.values())[:GOALS_MAX]


def _has_visitor(row: Any) -> bool:
    """Whether a goal has a visitor. One whom DataFast never knew does not count."""
    return row.visitor is not None and not (row.state == "rejected" and row.reason == "unknown_visitor")


def through(provenance: str | None) -> str:
    """How a goal found its visitor (`bridge.identity.sentences.WAYS`), from its column `provenance`."""
    return way(json.loads(provenance)) if provenance else "event"


# --------------------------------------------------------------------------------------------------------- causes


def _causes(conn: Connection, unnamed: list[Any]) -> tuple[tuple[str, str, int], ...]:
    """Why these have no visitor, the commonest cause first: (cause, path, how many)."""
    traces = {row.id: row.trace for row in conn.execute(_TRACES, {"ids": [row.event_id for row in unnamed]})}
    counts = Counter(_cause(row, traces.get(row.event_id)) for row in unnamed)
    return tuple((cause, path, count) for (cause, path), count in counts.most_common())


def _cause(row: Any, trace: str | None) -> tuple[str, str]:
    """The cause, and the path concerned, if any.

    strangers: DataFast does not know the visitor it names. other_ids: there is a different id at that path. nothing:
    there is no candidate.
    """
    if row.visitor is not None:
        return "strangers", ""
    elements = json.loads(trace).get("elements", ()) if trace else ()
    candidates = [candidate for element in elements for candidate in element.get("candidates", ())]
    for candidate in candidates:
        if candidate.get("visitor"):
            return "strangers", candidate["path"]
    return ("other_ids", candidates[0]["path"]) if candidates else ("nothing", "")


# ----------------------------------------------------------------------------------------------------- statements

_NEWEST: Final = (
    select(*(goals.c[name] for name in ("id", "event_id", "handover", "visitor", "provenance", "state", "reason")))
    .where(
        goals.c.source == bindparam("of_source"),
        goals.c.handover.is_not(None),
        goals.c.created_at_ms <= bindparam("settled"),
        func.coalesce(goals.c.reason, "") != "forgotten",
    )
    .order_by(goals.c.created_at_ms.desc(), goals.c.id.desc())
    .limit(GOALS_MAX * _GOALS_PER_EVENT)
)
_TRACES: Final = select(events.c.id, events.c.trace).where(events.c.id.in_(bindparam("ids", expanding=True)))
_SOME_OTHERS: Final = (
    select(goals.c.id)
    .where(
        goals.c.source == bindparam("of_source"),
        goals.c.state == literal_column("'unattributed'"),
        goals.c.handover.is_(None),
        goals.c.created_at_ms > bindparam("since"),
        goals.c.test.is_(False),
    )
    .limit(_OTHERS_MAX)
    .subquery()
)
_OTHERS: Final = select(func.count()).select_from(_SOME_OTHERS)
