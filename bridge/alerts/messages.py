"""The messages to the owner, and when to send them: a lasting problem, its end, a delivered goal. Pure.

Strings from outside are cleaned and cut before they become part of a message: they must not mention everybody in a
chat, begin a new line, or be a link.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge.alarms import rough_span
from bridge.identity.sentences import HINT, before_or_after, kind_in_words
from bridge.settings import MS
from bridge.store.operator.alerting import AlertMessage, Problem
from bridge.text import INVISIBLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.alarms import Alarm
    from bridge.identity.choice import FoundVisitor

HOLD_MS: Final = 30 * MS["s"]  # shorter problems are not reported, and neither are shorter interruptions
REPEAT_MS: Final = MS["h"]  # between two messages that the same problem has begun
TITLE_MAX: Final = 120
BODY_MAX: Final = 2_000
VALUE_MAX: Final = 120
FIELDS_MAX: Final = 12


# ------------------------------------------------------------------------------------------------------- problems


class AlertChanges(NamedTuple):
    """The changes after a look: problems to remember, keys to forget, messages to send.

    over: of the problems that have ended, what the messages about their beginning are about. Those that were not sent
    yet are withdrawn.
    """

    remembered: tuple[Problem, ...]
    forgotten: tuple[str, ...]
    messages: tuple[AlertMessage, ...]
    over: tuple[str, ...]


def step(known: Mapping[str, Problem], found: Mapping[str, Alarm], now_ms: int) -> AlertChanges:
    """Compare the remembered problems with the current ones. found: alarms by `key_of`."""
    remembered, forgotten, messages, over = [], [], [], []
    for key, alarm in found.items():
        problem = _seen(known.get(key), key, alarm, now_ms)
        too_soon = problem.told_at_ms is not None and 0 <= now_ms - problem.told_at_ms < REPEAT_MS
        if not problem.told and now_ms - problem.began_at_ms >= HOLD_MS and not too_soon:
            problem = replace(problem, told=True, told_at_ms=now_ms)
            messages.append(_begins(problem))
        if problem != known.get(key):
            remembered.append(problem)
    for key, problem in known.items():
        if key in found:
            continue
        gone_at_ms = now_ms if problem.gone_at_ms is None else min(problem.gone_at_ms, now_ms)
        ended = now_ms - gone_at_ms >= HOLD_MS
        if ended and problem.told:
            messages.append(_is_over(problem, gone_at_ms))
            over.append(_about(problem, "begin"))
        if ended and (problem.told_at_ms is None or now_ms - problem.told_at_ms >= REPEAT_MS):
            forgotten.append(key)
        else:
            changed = replace(problem, gone_at_ms=gone_at_ms, told=problem.told and not ended)
            remembered += [changed] if changed != problem else []
    return AlertChanges(tuple(remembered), tuple(forgotten), tuple(messages), tuple(over))


def key_of(alarm: Alarm) -> str:
    """The key of a problem, which stays the same while it lasts, whatever its detail says."""
    return f"{alarm.name} {alarm.about}".rstrip()


def _seen(known: Problem | None, key: str, alarm: Alarm, now_ms: int) -> Problem:
    """The problem in its current state. One that returned before its end was reported is still the same."""
    if known is None:
        return Problem(key, alarm.sentence, alarm.explanation, now_ms)
    ended = known.gone_at_ms is not None and not known.told and now_ms - known.gone_at_ms >= HOLD_MS
    began_at_ms = now_ms if ended else min(known.began_at_ms, now_ms)
    return replace(known, sentence=alarm.sentence, detail=alarm.explanation, began_at_ms=began_at_ms, gone_at_ms=None)


def _about(problem: Problem, kind: str) -> str:
    return f"{problem.key} {problem.began_at_ms} {kind}"


def _begins(problem: Problem) -> AlertMessage:
    body = f"{problem.sentence}\n{problem.detail}\nIt began at {clock(problem.began_at_ms)}."
    return AlertMessage(_about(problem, "begin"), "begin", _title(problem.sentence), cut(plain(body), BODY_MAX))


def _is_over(problem: Problem, gone_at_ms: int) -> AlertMessage:
    lasted = (
        f"from {clock(problem.began_at_ms)} to {clock(gone_at_ms)} ({rough_span(gone_at_ms - problem.began_at_ms)})"
    )
    subject = problem.key.partition(" ")[2]
    subject_note = f" ({subject})" if subject and subject not in problem.sentence else ""
    body = f'This is over{subject_note}: "{problem.sentence}"\nIt lasted {lasted}.'
    return AlertMessage(
        _about(problem, "over"), "over", _title(f"Over: {problem.sentence}"), cut(plain(body), BODY_MAX)
    )


# ------------------------------------------------------------------------------------------------------ good news


@dataclass(frozen=True, slots=True)
class GoalStory:
    """A delivered goal, and what the store knows of its visitor.

    first_event: the type of the visitor's first known event; None: it is the goal's own event. first_source: the source
    of that event. first_before_ms: how long before the goal's own event it happened.
    """

    goal_id: int
    name: str
    source: str
    metadata: Mapping[str, str]
    visitor: str | None
    found: FoundVisitor | None
    created_at_ms: int
    first_event: str | None = None
    first_source: str | None = None
    first_before_ms: int | None = None


def news(story: GoalStory) -> AlertMessage:
    """The message about a goal. From the event's content it includes only the metadata sent to DataFast."""
    money = _money(story.metadata)
    others = [name for name in story.metadata if not money or name not in ("amount", "currency")]
    fields = [f"{value(name, 40)} {value(story.metadata[name])}" for name in others[:FIELDS_MAX]]
    summary = ", ".join([" ".join(filter(None, (value(story.name), money))), *fields])
    lines = [f"{summary}, from {value(story.source)} (goal_{story.goal_id})", _visitor_line(story), _first_known(story)]
    title = cut(" ".join(filter(None, (value(story.name), money))), TITLE_MAX)
    about = f"goal_{story.goal_id} {story.created_at_ms}"  # SQLite may give a number again
    return AlertMessage(about, "news", title, cut("\n".join(lines), BODY_MAX), story.goal_id)


def _money(metadata: Mapping[str, str]) -> str:
    """`1,240.00 USD`, if the metadata says both."""
    amount, currency = metadata.get("amount"), metadata.get("currency")
    if not amount or not currency:
        return ""
    shown = f"{Decimal(amount):,f}" if _NUMBER.fullmatch(amount) else value(amount)
    return f"{shown} {value(currency, 8)}"


_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,8})?")


def _visitor_line(story: GoalStory) -> str:
    if story.visitor is None:
        return "Visitor: not known."
    return f"Visitor: {value(story.visitor)}, {_found_by(story.found)}."


def _found_by(found: FoundVisitor | None) -> str:
    """As `why` says it, without the provider's ids: they may name a person."""
    if found is None or found.by == "own":
        return "named by the event itself"
    through = f"its {kind_in_words(found.kind)}" if found.kind else "the same purchase"
    if not found.event or found.event == HINT:
        return f"found through {through}"
    learned = value(found.event.partition(" ")[0])
    return f"found through {through}, learned from {learned}, {before_or_after(found.before_ms or 0)}"


def _first_known(story: GoalStory) -> str:
    if story.first_event is None or story.first_before_ms is None:
        return "Nothing was known of them before."
    source_note = f" of {value(story.first_source or '')}" if story.first_source != story.source else ""
    return f"First known from {value(story.first_event)}{source_note}, {before_or_after(story.first_before_ms)}."


# ---------------------------------------------------------------------------------------------------------- words


def trial(number: int, total: int) -> AlertMessage:
    """The message that `alerts test` sends."""
    body = f"This is a test of target {number} of {total} in BRIDGE_ALERTS. Problems and good news will look like this."
    return AlertMessage("test", "test", "DataFast Bridge: a test", body)


def clock(ms: int) -> str:
    """`12:03 UTC, 3 May`."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{moment:%H:%M} UTC, {moment.day} {moment:%b}"


def _title(sentence: str) -> str:
    return cut(" ".join(plain(sentence).split()), TITLE_MAX)


def cut(text: str, limit: int) -> str:
    """The text, cut to at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(text: str) -> str:
    """The text without control characters, invisible ones, and what a chat takes for a mention."""
    kept = text[: 4 * BODY_MAX]
    seen = "".join(c if c == "\n" or unicodedata.category(c) not in INVISIBLE else " " for c in kept)
    return seen.translate(_MENTIONS)


def value(text: str, limit: int = VALUE_MAX) -> str:
    """A string from outside: one line, neither markup nor a link."""
    words = " ".join(plain(text[: 4 * limit]).translate(_MARKUP).split())
    return cut(words.replace("://", ": //").replace("](", "] ("), limit)


_MENTIONS: Final = str.maketrans({"@": "@\u200b", "<": "(", ">": ")"})
_MARKUP: Final = str.maketrans({"`": "'", "*": "·", "~": "-", "|": "/", "\n": " "})
