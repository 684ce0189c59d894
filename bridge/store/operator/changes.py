"""The changes people made, newest first: one row per action. No row contains an e-mail address."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import delete, insert, select, update

from bridge.masking import without_addresses
from bridge.store.clock import now_ms
from bridge.store.schema import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from bridge.store.database.engine import Store

T = TypeVar("T")
KEPT_MS: Final = 400 * 86_400_000
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One action. what: replay, retry, cancel, …; about: what was changed (`ev_12`, `stripe.yaml`)."""

    id: int
    at_ms: int
    what: str
    about: str
    sentence: str


def named(labels: Sequence[str]) -> str:
    """What an action touched, for a sentence: `goal_7`, `goal_7, goal_8`, `goal_1, goal_2, goal_3 and 37 more`."""
    rest = len(labels) - _NAMED
    return ", ".join(labels[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def record(conn: Connection, what: str, about: str, sentence: str, row: int | None = None) -> int:
    """Record an action in the transaction that does it; return its row, which later calls may pass to extend it."""
    texts = {"about": without_addresses(about), "sentence": without_addresses(sentence)}
    if row is None:
        new = insert(changes).values(at_ms=now_ms(), what=what, **texts).returning(changes.c.id)
        return int(conn.execute(new).scalar_one())
    conn.execute(update(changes).where(changes.c.id == row).values(**texts))
    return row


def act_on_each(
    store: Store,
    what: str,
    rows: Iterable[tuple[int, str]],
    act: Callable[[Connection, int], T],
    describe: Callable[[T], str | None],
    summary: str,
) -> list[T]:
    """Act on each of these (id, label) rows in its own transaction, and record all as one change that grows.

    describe: the sentence for one result; None: nothing was done. summary: the sentence for several.
    """
    results: list[T] = []
    labels: list[str] = []
    row: int | None = None

    def apply(conn: Connection, id_: int, label: str) -> tuple[T, list[str], int | None]:
        result = act(conn, id_)
        text = describe(result)
        if text is None:
            return result, labels, row
        changed = [*labels, label]
        sentence = f"{label} {text}." if len(changed) == 1 else f"{named(changed)} {summary}."
        return result, changed, record(conn, what, changed[0], sentence, row)

    for id_, label in rows:
        result, labels, row = store.run(partial(apply, id_=id_, label=label))
        results.append(result)
    return results


def recent(conn: Connection, limit: int, before: int | None = None) -> list[Change]:
    """The newest changes, or those before the one with this id."""
    query = select(changes).order_by(changes.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(changes.c.id < before)
    return [Change(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name


def forget_old(conn: Connection, limit: int, now: int) -> int:
    """Remove changes older than 400 days, the oldest first; return how many."""
    old = select(changes.c.id).where(changes.c.at_ms <= now - KEPT_MS).order_by(changes.c.at_ms).limit(limit)
    return conn.execute(delete(changes).where(changes.c.id.in_(old))).rowcount


def forget_person(conn: Connection, names: Callable[[str], bool]) -> None:
    """Delete the changes that name a person. names: finds their keys and visitors in a lower-case sentence.

    It reads every row: there are only as many as people have clicked.
    """
    rows = conn.execute(select(changes.c.id, changes.c.about, changes.c.sentence)).all()
    deleted = [row.id for row in rows if names(f"{row.about} {row.sentence}".lower())]
    for start in range(0, len(deleted), 400):
        conn.execute(delete(changes).where(changes.c.id.in_(deleted[start : start + 400])))
