"""The filter of the activity list in a URL: parsed, with a sentence about wrong values, and written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from bridge.errors import UsageError
from bridge.model import EventState, GoalState, OutcomeKind, ReadbackOutcome, Verdict
from bridge.settings import duration_ms
from bridge.store.operator import activity
from bridge.store.operator.activity import ActivityFilter
from bridge.text import excerpt, iso_ms

PATH: Final = "/console/activity"
LONGEST: Final = 200  # characters of a value
KINDS: Final = (activity.EVENTS, activity.GOALS, activity.DELIVERIES)
STATES: Final[Mapping[str, tuple[str, ...]]] = {
    activity.EVENTS: (*EventState, *Verdict),
    activity.GOALS: tuple(GoalState),
    activity.DELIVERIES: (activity.UNDER_WAY, *OutcomeKind, *ReadbackOutcome),
}
_TEXTS: Final = {
    "source": "source",
    "type": "type",
    "name": "name",
    "rule": "rule_id",
    "reason": "reason",
    "destination": "destination",
}
_NUMBER: Final = re.compile(r"[0-9]{1,18}")  # fits a column of ids
_YES_OR_NO: Final = ("test", "visitor")
_TIMES: Final = ("since", "until")
_ROWS: Final = ("before", "after")


class WrongFilter(UsageError):
    """A filter value that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as in its URL, and the rows it wants. given: what narrows the list, without the page's rows."""

    kind: str
    given: Mapping[str, str]
    wanted: ActivityFilter

    def address(self, path: str = PATH, **others: object) -> str:
        """The URL of this list, with some values replaced; None omits one."""
        pairs = {"kind": self.kind, **self.given, **others}
        return f"{path}?{urlencode({name: str(value) for name, value in pairs.items() if value is not None})}"

    def of_kind(self, kind: str) -> str:
        """The URL of the list of another kind, narrowed by what both kinds have."""
        return self.address() if kind == self.kind else self.address(kind=kind, state=None, reason=None, type=None)

    @property
    def first(self) -> Filter:
        """The same list from its newest row on."""
        return replace(self, wanted=replace(self.wanted, before=None, after=None))


def read(values: Mapping[str, str], now_ms: int) -> Filter:
    """Parse the filter in a URL. Raises WrongFilter with a sentence for a person."""
    kind = _one_of("kind", values.get("kind") or activity.EVENTS, KINDS)
    given = {name: found for name in _NARROW if (found := text(values, name))}
    if kind != activity.EVENTS and "type" in given:
        raise WrongFilter(f"`type` is a filter for events, and this is the list of {kind}.")
    if "verdict" in given:  # which says more than the state
        given["state"] = given.pop("verdict")
    state = given.get("state")
    if state is not None:
        _one_of("state", state, STATES[kind])
    wanted: dict[str, Any] = {column: given[name] for name, column in _TEXTS.items() if name in given}
    wanted |= {name: _one_of(name, given[name], ("yes", "no")) == "yes" for name in _YES_OR_NO if name in given}
    wanted |= {f"{name}_ms": _time_ms(name, given[name], now_ms) for name in _TIMES if name in given}
    wanted |= {name: number(values, name) for name in _ROWS if values.get(name)}
    wanted["verdict" if kind == activity.EVENTS and state in tuple(Verdict) else "state"] = state
    return Filter(kind, given, ActivityFilter(**wanted))


def time_limit(seconds: float) -> Callable[[], bool]:
    """A function that says whether this much time has passed since this call."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def everything() -> Filter:
    """All events."""
    return Filter(activity.EVENTS, {}, ActivityFilter())


_NARROW: Final = (*_TEXTS, *_YES_OR_NO, *_TIMES, "state", "verdict")


def text(values: Mapping[str, str], name: str) -> str:
    """A string typed into a field. Raises WrongFilter."""
    found = values.get(name, "").strip()
    if len(found) > LONGEST:
        raise WrongFilter(f"`{name}` has {len(found)} characters; at most {LONGEST} are searched for.")
    if not found.isprintable():
        raise WrongFilter(f"`{name}` has a character that cannot be printed: {excerpt(found)}.")
    return found


def number(values: Mapping[str, str], name: str) -> int:
    """A number from one of our own links; 0 if there is none. Raises WrongFilter."""
    value = values.get(name) or "0"
    if not _NUMBER.fullmatch(value):
        raise WrongFilter(f"`{name}` cannot be {excerpt(value)}; it must be a number.")
    return int(value)


def row_id(values: Mapping[str, str], name: str) -> int | None:
    """The id of a row that our own links carry; None for anything else."""
    value = values.get(name, "")
    return int(value) if _NUMBER.fullmatch(value) else None


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        allowed = ", ".join(map(str, known))
        raise WrongFilter(f"`{name}` cannot be {excerpt(value)}; it must be one of {allowed}.")
    return value


def _time_ms(name: str, value: str, now_ms: int) -> int:
    try:
        return now_ms - duration_ms(value)
    except ValueError:
        pass
    try:
        return iso_ms(value)
    except ValueError:
        example = "a duration such as 6h or 7d, or a time in UTC such as 2026-05-03 or 2026-05-03T14:00"
        raise WrongFilter(f"`{name}` cannot be {excerpt(value)}; it must be {example}.") from None
