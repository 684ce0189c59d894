"""Sentences that say how a visitor was found, or why none was. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bridge.model import PERSON_KINDS
from bridge.presets import stated
from bridge.settings import MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.identity.choice import FoundVisitor

HINT: Final = "a hint"  # the event name of a hint from outside
BOUND: Final = "bound by a person or by your site"
NEVER_SEEN: Final = "looks like a visitor id, but DataFast has never seen it; is it your own user id?"
LOOKED_UP: Final = ", looked up"  # the end of the event name for an answer from the provider
WAYS: Final = {  # how goals find visitors, the most direct first: the name in counts, and the wording
    "event": "in the event itself",
    "thread": "through its purchase",
    "customer": "through its customer",
    "user": "through its user",
    "email": "through its e-mail address",
    "look-up": "through a lookup at Stripe",
    "by-hand": "bound by hand",
}

# The kinds of keys, the most informative for a person first.
_STRONG_KINDS: Final = ("subscription", "order", "session", "payment_intent", "charge", "invoice")
_WEAK_KINDS: Final = ("customer", *PERSON_KINDS)
_DEFAULT_ADVICE: Final = "put the cookie datafast_visitor_id where the mapping file's `visitor:` looks for it"
_LISTED_MAX: Final = 3
_MONTHS: Final = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def way(found: Mapping[str, Any]) -> str:
    """How a visitor was found: one of WAYS. found: a `FoundVisitor` as JSON.

    The origin of the name takes precedence over the key that led there: a person or your site, then a lookup.
    """
    if found.get("by", "own") == "own":
        return "event"
    event = found.get("event") or ""
    if event == HINT:
        return "by-hand"
    return "look-up" if event.endswith(LOOKED_UP) else str(found["by"])


def provenance(found: FoundVisitor) -> str:
    """`found through subscription sub_1, learned from checkout.session.completed evt_1, 12 days before`."""
    if found.by == "own":
        return f"in the event itself, at {found.path}"
    if found.kind in PERSON_KINDS:
        return _through_person(found)
    through = key_in_words(found.kind, found.ref) if found.ref else "the same purchase"
    if found.beside:
        through += f", seen with the purchase of {found.beside.rpartition(':')[2]}"
    if found.via and found.via != found.key:
        through += f" (one purchase with {found.via.rpartition(':')[2]})"
    if found.event == HINT:
        return f"found through {through}, {BOUND}"
    return f"found through {through}, learned from {found.event}, {before_or_after(found.before_ms or 0)}"


def _through_person(found: FoundVisitor) -> str:
    """`via user user_abc, learned from Clerk user.created, 3 May`."""
    via = f"via {key_in_words(found.kind, found.ref or '')}"
    if found.beside:
        via += f", seen with {found.beside.rpartition(':')[2]}"
    if found.event == HINT:
        return f"{via}, {BOUND}"
    sender, _, event = (found.event or "").partition(" ")
    if event.endswith(LOOKED_UP):
        return f"{via}, learned from {event}, {_day(found)}"
    return f"{via}, learned from {sender.capitalize()} {event.rpartition(' ')[0] or event}, {_day(found)}"


def _day(found: FoundVisitor) -> str:
    """`3 May`, with the year if it differs from that of the goal's event."""
    at_ms = found.at_ms or 0
    named, goal = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (at_ms, at_ms + (found.before_ms or 0)))
    return f"{named.day} {_MONTHS[named.month - 1]}" + ("" if named.year == goal.year else f" {named.year}")


def waiting(keys: Iterable[tuple[str, str]], refused: str | None = None) -> str:
    """Why a goal is parked. keys: (kind, id)."""
    because = f"; {refused}" if refused else ""
    return f"waits for an event of {listed(keys)} that carries a visitor id{because}"


def proving(visitor: str, path: str | None) -> str:
    """Why a goal waits though a visitor id was found."""
    where = f" at {path}" if path else ""
    return f"asks DataFast first whether it knows {visitor}{where}: a bare UUID there may be your app's own user id"


def disproved(visitor: str) -> str:
    """Why a value turned out not to be a visitor."""
    return f"DataFast does not know {visitor}, so it is taken for your app's own user id"


def unattributed(sender: str, keys: Iterable[tuple[str, str]], refused: str | None = None) -> str:
    """Why a goal found no visitor, and what to do. sender: the provider or source its keys are named after."""
    pairs = list(keys)
    because = f" ({refused})" if refused else ""
    if not pairs:
        return f"the event carries no visitor id{because} and no key that could lead to one; {advice(sender, pairs)}"
    return f"no event of {listed(pairs)} carried a visitor id{because}; {advice(sender, pairs)}"


def advice(sender: str, keys: Iterable[tuple[str, str]]) -> str:
    """What the site's owner can do so that the next event carries its visitor."""
    kinds = {kind for kind, _ in keys}
    by_kind: Mapping[str, str] = stated(sender, "advice") or {}
    return next((text for kind, text in by_kind.items() if kind in kinds or not kind), _DEFAULT_ADVICE)


def listed(keys: Iterable[tuple[str, str]]) -> str:
    """`subscription sub_1, charge ch_1 or customer cus_1`: at most three, the most informative first."""
    order = sorted(keys, key=lambda pair: (_rank(pair[0]), pair))
    texts = [key_in_words(kind, ref) for kind, ref in order[:_LISTED_MAX]]
    if len(order) > _LISTED_MAX:
        texts[-1] = f"{len(order) - _LISTED_MAX + 1} more keys"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def key_in_words(kind: str | None, ref: str) -> str:
    """`subscription sub_1`; for an e-mail address only the kind: a hash tells a person nothing."""
    return "an e-mail address" if kind == "email" else f"{kind_in_words(kind)} {ref}"


def kind_in_words(kind: str | None) -> str:
    """`payment intent` for the kind `payment_intent`."""
    return (kind or "key").replace("_", " ")


def before_or_after(ms: int) -> str:
    """`12 days before`, `2 min after`, `at the same time`."""
    size, word = abs(ms), "before" if ms > 0 else "after"
    for unit, name in (("d", "day"), ("h", "hour"), ("min", "minute"), ("s", "second")):
        count = size // MS[unit]
        if count:
            return f"{count} {name}{'' if count == 1 else 's'} {word}"
    return "at the same time"


def best_first(kind: str) -> tuple[int, str]:
    """A sort key for kinds: the most informative for a person first."""
    return _rank(kind), kind


def _rank(kind: str) -> int:
    if kind in _WEAK_KINDS:
        return len(_STRONG_KINDS) + 1 + _WEAK_KINDS.index(kind)
    return _STRONG_KINDS.index(kind) if kind in _STRONG_KINDS else len(_STRONG_KINDS)
