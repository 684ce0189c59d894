"""Make goals from drafts: once per once key, with the visitor known by then, or parked until one is known.

The first event makes a goal. A later one with the same once key never makes a second one, but may add to it: while the
goal is parked, unattributed or expired unsent, it takes the event's visitor, keys and a new wait.
`bridge.store.goals.parking` handles parked goals.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, exists, or_, select

from bridge.identity.choice import as_own, resolve
from bridge.identity.sentences import NEVER_SEEN, unattributed, waiting
from bridge.model import VISITOR_OPTIONAL, GoalState
from bridge.store.goals import parking, statements
from bridge.store.goals.parking import as_json, first_check
from bridge.store.links import learning
from bridge.store.links import statements as link_statements
from bridge.store.schema import attempts, goals

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection, Row

    from bridge.identity.choice import FoundVisitor, KnownLinks, Strangers
    from bridge.model import GoalDraft
    from bridge.settings import Settings

TEST: Final = "a test event: nothing is sent (DATAFAST_TEST_API_KEY would send it to a second website)"
NEVER_SENT: Final = "a test event: its {kind} is never sent"


@dataclass(frozen=True, slots=True)
class MadeGoal:
    """The result for a draft. outcome: made | merged (an earlier event's goal took something from it) | known."""

    draft: GoalDraft
    outcome: str
    goal_id: int
    state: GoalState
    found: FoundVisitor | None
    message: str | None
    event_id: int  # of the event that made the goal

    @property
    def unproved(self) -> bool:
        """Whether it waits for its destination to say whether it knows the visitor."""
        return self.state is GoalState.PARKED and self.found is not None and self.found.unproved


def make(
    conn: Connection, drafts: Sequence[GoalDraft], links: KnownLinks, settings: Settings, now: int
) -> list[MadeGoal]:
    """Write the goals of a batch. links: what the same events have just taught, in this transaction."""
    if not drafts:
        return []
    asks_customer = [
        draft for draft in drafts if draft.dry or draft.test or not (draft.own or links.strong(draft.keys))
    ]
    learning.recall_customers(conn, links, (key for draft in asks_customer for key in draft.keys))
    own = [visitor for draft in drafts for visitor in draft.own]
    evidence = links.evidence(key for draft in drafts for key in draft.keys)
    strangers = statements.strangers(conn, [*own, *evidence], now)
    found = [_resolve(draft, links, strangers, settings) for draft in drafts]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for draft, visitor in zip(drafts, found, strict=True):
        if draft.place not in rows:
            rows[draft.place] = _row(draft, visitor, links, settings, now)
    new = statements.make(conn, rows.values())
    made = []
    for draft, visitor in zip(drafts, found, strict=True):
        goal_id = new.pop(draft.place, None)
        if goal_id is None:
            made.append(_merged(conn, draft, visitor, links, settings, now))
        else:
            state, message = GoalState(rows[draft.place]["state"]), rows[draft.place]["message"]
            made.append(MadeGoal(draft, "made", goal_id, state, visitor, message, draft.event.id))
    _write_keys(conn, made, now)
    unproved = [(goal.draft.destination, goal.found.visitor) for goal in made if goal.found and goal.unproved]
    statements.ask_about(conn, unproved, now)
    return made


@dataclass(frozen=True, slots=True)
class PreviewedGoal:
    """The expected result for a draft. outcome: new | merged (the existing goal would gain something) | known.

    goal_id: of the existing goal; None for a new one, or one that an earlier draft would make. state: its initial or
    current state; `expired` if it is too old to be sent.
    """

    rule_id: str
    name: str
    destination: str
    once_key: str
    outcome: str
    goal_id: int | None
    state: GoalState
    visitor: str | None = None
    message: str | None = None


def preview(
    conn: Connection, drafts: Sequence[GoalDraft], settings: Settings, now: int, made: Collection[tuple[str, str]]
) -> list[PreviewedGoal]:
    """What `make` would do with what is remembered now; writes nothing. made: goals that would exist by then."""
    keys = [key for draft in drafts for key in draft.keys]
    links = learning.recall(conn, keys)
    learning.recall_customers(conn, links, keys)
    own = [visitor for draft in drafts for visitor in draft.own]
    strangers = statements.strangers(conn, [*own, *links.evidence(keys)], now)
    existing, found = set(made), []
    for draft in drafts:
        visitor = _resolve(draft, links, strangers, settings)
        initial = _initial_columns(draft, visitor, links, settings, now)
        found.append(_previewed(conn, draft, initial, now, existing))
        existing.add(draft.place)
    return found


def _previewed(
    conn: Connection, draft: GoalDraft, initial: dict[str, Any], now: int, existing: Collection[tuple[str, str]]
) -> PreviewedGoal:
    planned = draft.planned
    identity = (planned.rule_id, planned.name, *draft.place)
    goal, changes = _merge_into(conn, draft, initial, now, write=False)
    if goal is not None and changes is None:
        return PreviewedGoal(*identity, "known", goal.id, GoalState(goal.state), goal.visitor, goal.message)
    if goal is None and draft.place in existing:
        return PreviewedGoal(*identity, "known", None, GoalState(initial["state"]))
    values = initial if changes is None else {**initial, **changes}
    state = GoalState(values["state"])
    if state in (GoalState.PENDING, GoalState.PARKED) and values["expires_at_ms"] <= now:
        state = GoalState.EXPIRED
        values = {**values, "message": "it is older than max_age, and DataFast would date it now"}
    outcome = "new" if goal is None else "merged"
    return PreviewedGoal(*identity, outcome, goal and goal.id, state, values["visitor"], values["message"])


def _merged(
    conn: Connection, draft: GoalDraft, found: FoundVisitor | None, links: KnownLinks, settings: Settings, now: int
) -> MadeGoal:
    goal, changes = _merge_into(conn, draft, _initial_columns(draft, found, links, settings, now), now)
    assert goal is not None
    if changes is None:
        return MadeGoal(draft, "known", goal.id, GoalState(goal.state), None, None, goal.event_id)
    return MadeGoal(draft, "merged", goal.id, GoalState(changes["state"]), found, changes.get("message"), goal.event_id)


def _resolve(draft: GoalDraft, links: KnownLinks, strangers: Strangers, settings: Settings) -> FoundVisitor | None:
    """The visitor: the event's, else its thread's, else (without strong keys, or in a test) its customer's."""
    weak = draft.dry or not links.strong(draft.keys)
    first = settings.bridge_customer_visitor == "first"
    found = resolve(
        draft.destination,
        draft.own,
        draft.keys,
        draft.ordered_at_ms,
        links,
        strangers,
        weak=weak,
        first=first,
        people=parking.person_kinds(settings),
    )
    return None if found is not None and found.unproved and draft.dry else found  # DataFast is not asked about tests


def _row(
    draft: GoalDraft, found: FoundVisitor | None, links: KnownLinks, settings: Settings, now: int
) -> dict[str, Any]:
    event, planned = draft.event, draft.planned
    return {
        "event_id": event.id,
        "source": event.source,
        "rule_id": planned.rule_id,
        "rules_hash": draft.rules_hash,
        "destination": draft.destination,
        "once_key": planned.once_key,
        "test": draft.test,
        "kind": planned.kind,
        "name": planned.name,
        "description": planned.description or f"{event.source} {event.envelope.id or event.name}",
        "metadata": json.dumps(dict(planned.metadata), ensure_ascii=False),
        "handover": None if draft.test or draft.dry or planned.dry else draft.handover,
        "notify": "wanted" if planned.notify and not (draft.test or draft.dry or planned.dry) else None,
        "happened_at_ms": draft.happened_at_ms,
        "time_is_stated": draft.time_is_stated,
        "ordered_at_ms": draft.ordered_at_ms,
        "created_at_ms": now,
        "changed_at_ms": now,
        **_initial_columns(draft, found, links, settings, now),
    }


def _initial_columns(
    draft: GoalDraft, found: FoundVisitor | None, links: KnownLinks, settings: Settings, now: int
) -> dict[str, Any]:
    """The columns for a goal's initial state, and how long it lasts."""
    wait_ms = draft.planned.wait_ms or settings.bridge_park
    start_ms = draft.happened_at_ms if draft.time_is_stated else draft.event.received_at_ms
    values: dict[str, Any] = {
        "visitor": found.visitor if found and not found.unproved else None,
        "provenance": as_json(found),
        "to_prove": None,
        "reason": None,
        "message": None,
        "due_at_ms": now,
        "wait_ms": wait_ms,
        "expires_at_ms": start_ms + (draft.planned.max_age_ms or settings.bridge_max_age),
        "parked_until_ms": None,
        "weak_at_ms": None,
    }
    if draft.dry:
        message = TEST if draft.planned.kind == "goal" else NEVER_SENT.format(kind=draft.planned.kind)
        return values | {"state": "dry", "reason": "test", "message": message}
    if draft.planned.dry:
        kept = {"reason": parking.DRY_RULE, "message": parking.dry_message(draft.planned.rule_id)}
        return values | kept | {"state": "dry", "provenance": as_json(found) or _borrowed(draft)}
    if found and not found.unproved:
        return values | {"state": "pending"}
    pairs = [(key.kind, key.id) for key in draft.keys]
    refused = NEVER_SEEN if draft.own else draft.refused  # its own visitors, if it names any, were passed over
    if not draft.keys and not found and draft.planned.kind in VISITOR_OPTIONAL:
        return values | parking.columns_without_visitor(now)
    if not draft.keys and not found:
        message = unattributed(draft.event.provider, pairs, refused)
        return values | {"state": "unattributed", "reason": "no_visitor", "message": message}
    until = draft.event.received_at_ms + wait_ms
    weak_at = draft.event.received_at_ms + settings.bridge_weak_after if links.strong(draft.keys) else None
    values |= {"state": "parked", "parked_until_ms": until, "weak_at_ms": weak_at}
    values |= parking.to_prove(found) if found else {"message": waiting(pairs, refused), "provenance": _borrowed(draft)}
    return values | {"due_at_ms": first_check(until, weak_at)}


def _borrowed(draft: GoalDraft) -> str | None:
    """The borrowed candidates, although none is known: after a new key they are asked about again."""
    left = [item for item in draft.own if item.borrowed]
    return as_json(as_own(left)) if left else None


def _write_keys(conn: Connection, made: Iterable[MadeGoal], now: int) -> None:
    kept = [item for item in made if item.outcome != "known" and not item.draft.dry]
    statements.write_keys(conn, [(item.goal_id, key.text) for item in kept for key in item.draft.keys])
    live = {key.text: key for item in kept if item.draft.test for key in item.draft.keys if key.is_person}
    link_statements.expect(conn, [live[text] for text in sorted(live)], now)


# ------------------------------------------------------------------------------------------------------- merging


def _merge_into(
    conn: Connection, draft: GoalDraft, initial: dict[str, Any], now: int, *, write: bool = True
) -> tuple[Row[Any] | None, dict[str, Any] | None]:
    """The existing goal, if any, and the columns that it takes from this draft; None: it takes nothing.

    initial: the columns that the draft would have as a new goal. write: whether to write them now.
    """
    place = dict(zip(("of", "once"), draft.place, strict=True))
    goal = conn.execute(_BY_PLACE if write else _FIND, place).one_or_none()
    changes = None if goal is None or draft.dry else _columns_to_take(conn, goal, initial, now)
    if write and goal is not None and changes is not None:
        conn.execute(parking.CHANGE.values(changed_at_ms=now, **changes), {"goal": goal.id, "was": goal.state})
    return goal, changes


def _columns_to_take(conn: Connection, goal: Row[Any], initial: dict[str, Any], now: int) -> dict[str, Any] | None:
    if goal.state not in ("parked", "unattributed", "expired"):
        return None
    expires = max(goal.expires_at_ms, initial["expires_at_ms"])
    if goal.state == "expired" and (expires <= now or conn.execute(_MAY_BE_SENT, {"goal": goal.id}).scalar()):
        return None
    columns = {name: initial[name] for name in _VISITOR_COLUMNS}
    again = {"expires_at_ms": expires, "attempts": 0, "first_try_at_ms": None, "paused_ms": 0}
    if initial["state"] == "pending":
        return columns | again
    if goal.visitor is not None:  # expired with its visitor known: sent after all
        kept = {"state": "pending", "due_at_ms": now, "reason": None, "message": None}
        return kept | again
    if initial["state"] == "unattributed":
        return None
    until = max(goal.parked_until_ms or 0, initial["parked_until_ms"])
    # The customer may answer only after the grace period of every event of the goal that has strong keys.
    weak_at = max((at for at in (goal.weak_at_ms, initial["weak_at_ms"]) if at is not None), default=None)
    values = {"parked_until_ms": until, "weak_at_ms": weak_at, "wait_ms": initial["wait_ms"]}
    if goal.to_prove is not None and initial["to_prove"] is None:
        columns |= {name: getattr(goal, name) for name in ("to_prove", "provenance", "reason", "message")}
    return columns | again | values | {"due_at_ms": first_check(until, weak_at)}


_VISITOR_COLUMNS: Final = ("state", "visitor", "provenance", "to_prove", "reason", "message", "due_at_ms")
_FIND: Final = select(goals).where(goals.c.destination == bindparam("of"), goals.c.once_key == bindparam("once"))
_BY_PLACE: Final = _FIND.with_for_update()
_MAY_BE_SENT: Final = select(
    exists().where(
        attempts.c.goal_id == bindparam("goal"),
        attempts.c.kind == "send",
        or_(attempts.c.outcome.is_(None), attempts.c.outcome.in_(("unconfirmed", "delivered"))),
    )
)
