"""Is this value a DataFast visitor id? `judge` answers with the id, or with a sentence that says why not.

Pure. The form is DataFast's own: a UUID version 4 from the cookie `datafast_visitor_id`; with `any` (cookieless sites)
every plain string that is not evidently something else. Nothing here knows whether DataFast has seen the visitor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.masking import without_addresses
from bridge.model import UUID4, NamedVisitor
from bridge.model import VISITOR_PREFIX as PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.model import Candidate, Json

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[!-~]{1,200}")
_NOTHING: Final = frozenset(
    {"undefined", "null", "none", "nan", "nil", "unknown", "[object object]", "false", "true", "0", "n/a", "anonymous"}
)
_SESSION: Final = "is a session id (cookie datafast_session_id): send the cookie datafast_visitor_id"
_BARE: Final = "client_reference_id"
_LOOKED_AT: Final = 300  # characters, of what is shown of a value


@dataclass(frozen=True, slots=True)
class JudgedCandidate:
    """A candidate and the verdict: a visitor, or None and why.

    sure: not from a bare `client_reference_id`, which is often the app's own user id. borrowed: a bare UUID of a
    borrowed field, which has to be proved. lent: the app's own value in a borrowed field, which is not an error.
    """

    path: str
    shown: str
    visitor: str | None = None
    sure: bool = True
    why: str | None = None
    borrowed: bool = False
    lent: bool = False

    @property
    def named(self) -> NamedVisitor | None:
        """The visitor as something to learn; None when it was refused."""
        return None if self.visitor is None else NamedVisitor(self.visitor, self.path, self.sure, self.borrowed)


def judge(candidate: Candidate, form: str = "uuid4") -> JudgedCandidate:
    """The verdict on one value. form: `uuid4`, or `any` for cookieless sites."""
    value, path = candidate.value, candidate.path
    certain = isinstance(value, str) and value.strip().lower().startswith(PREFIX)
    if candidate.borrowed and not certain:
        return _borrowed(candidate)
    if isinstance(value, bool) or not isinstance(value, str | int) or (not isinstance(value, str) and form != "any"):
        return JudgedCandidate(path, _shown(value), why=f"is {_kind(value)}, not a visitor id")
    text = str(value).strip()
    why = _refusal(text[len(PREFIX) :] if certain else text, form)
    if why is not None:
        return JudgedCandidate(path, _shown(value), why=why)
    visitor = text[len(PREFIX) :] if certain else text
    if UUID4.fullmatch(visitor):
        visitor = visitor.lower()  # DataFast makes them so
    return JudgedCandidate(path, _shown(value), visitor, sure=certain or _BARE not in path)


def _borrowed(candidate: Candidate) -> JudgedCandidate:
    """A value without the prefix in a borrowed field: a UUID may be a visitor; anything else is the app's own."""
    path, value = candidate.path, candidate.value
    if isinstance(value, str) and UUID4.fullmatch(value.strip()):
        return JudgedCandidate(path, _shown(value), value.strip().lower(), sure=False, borrowed=True)
    if isinstance(value, str) and _is_session(value.strip()):
        return JudgedCandidate(path, _shown(value), why=_SESSION)
    why = "is a value of your own app; a visitor id stands here with dfv_ in front of it"
    return JudgedCandidate(path, _shown(value), why=why, lent=True)


def ranked(judged: Iterable[JudgedCandidate]) -> tuple[NamedVisitor, ...]:
    """The visitors among the judged, each once, in the order given; those of a bare client_reference_id come last."""
    named = [item.named for item in judged if item.named is not None]
    best: dict[str, NamedVisitor] = {}
    for item in sorted(named, key=lambda item: not item.sure):
        best.setdefault(item.visitor, item)
    return tuple(best.values())


def _refusal(text: str, form: str) -> str | None:
    """Why a string is not a visitor id; None if it is one."""
    if not text:
        return "is empty: leave the key out where there is no cookie"
    if text.lower() in _NOTHING:
        return f'is the word "{_shown(text)}": leave the key out where there is no cookie'
    if _is_session(text):
        return _SESSION
    if form == "any":
        return None if _PLAIN.fullmatch(text) else "has spaces, control characters or more than 200 characters"
    if UUID4.fullmatch(text):
        return None
    if _UUID.fullmatch(text):
        return "is a UUID, but not of version 4, so DataFast did not make it"
    return "is not the form of a visitor id (a UUID such as 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed)"


def _is_session(text: str) -> bool:
    return text[:1] in ("s", "S") and _UUID.fullmatch(text[1:]) is not None


def _kind(value: Json) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else "a number"


def _shown(value: Json) -> str:
    """The value, shortened for the trace."""
    text = value if isinstance(value, str) else "" if isinstance(value, dict | list) else str(value)
    text = without_addresses(text[:_LOOKED_AT])[:41]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "·" for character in text)
    return text if len(text) <= 40 else text[:40] + "…"
