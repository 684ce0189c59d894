"""Find the keys and the visitor that an event names, by the paths of its preset and file, and for some by code.

`candidates` finds the values that may be its visitor; `judge` answers with the id, or with a sentence that says why it
is not one. The form is DataFast's own: a UUID version 4 from the cookie `datafast_visitor_id`; with `any` (cookieless
sites), every plain string that is not evidently something else. Whether DataFast has ever seen it is not checked here.

Pure. A key's name contains the sender and the mode, so that senders never mix and test events never teach live ones:
`stripe:live:sub_1`, `stripe:acct_1:live:sub_1`, `lemonsqueezy:live:order:1`, `<source>:live:<kind>:<id>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.globs import compile_glob, of_type
from bridge.identity import people, stripe
from bridge.identity.people import Matching
from bridge.masking import without_addresses
from bridge.model import MISSING, UUID4, VISITOR_PREFIX, Candidate, Key, NamedVisitor
from bridge.text import is_fixture_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bridge.model import Document, Envelope, Json, Source

KEYS_PER_EVENT: Final = 40
PEOPLE_PER_EVENT: Final = 10
ID_MAX: Final = 200
_LIST_MAX: Final = 20  # values taken from one path that is a list

_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_OBJECTS: Final = {"stripe": stripe, None: None}  # by `Source.objects`
_NOTHING: Final = frozenset({"none", "null", "undefined", "nan", "false", "true"})  # also as booleans
_NO_CUSTOMER: Final = frozenset({"-1", "guest", "anonymous"})  # buyers without an account
_BY_USER: Final = Matching()


class BadBinding(ValueError):
    """A key cannot be bound to a visitor as requested; the message is a sentence for the caller."""


def keys(source: Source, envelope: Envelope, document: Document, matching: Matching = _BY_USER) -> tuple[Key, ...]:
    """The distinct keys that one event (or one element) names, at most KEYS_PER_EVENT; then the keys of people."""
    found: dict[str, Key] = {}
    for kind, value in _values(source, envelope, document):
        new_key = key(source, kind, value, mode=envelope.mode, account=envelope.account)
        if new_key is not None and new_key.text not in found:
            found[new_key.text] = new_key
            if len(found) == KEYS_PER_EVENT:
                break
    for new_key in people.keys(source, envelope, document, matching) if source.people else ():
        if new_key.text not in found and len(found) == KEYS_PER_EVENT + PEOPLE_PER_EVENT:
            break
        if new_key.sure or new_key.text not in found:
            found[new_key.text] = new_key
    return tuple(found.values())


def key(source: Source, kind: str, value: Json, *, mode: str = "live", account: str | None = None) -> Key | None:
    """The key of one object of a sender; None if the value is not an id."""
    identifier = _id(value)
    if identifier is None or (kind == "customer" and identifier.lower() in _NO_CUSTOMER):
        return None
    sender = source.provider if source.links_named_by_provider else source.name
    owner = f"{sender}:{account}" if account and source.links_named_by_provider else sender
    code = _OBJECTS.get(source.objects)
    name = identifier if code is not None and code.names_its_kind(identifier) else f"{kind}:{identifier}"
    return Key(f"{owner}:{mode}:{name}", kind, identifier)


def binding(source: Source, kind: str, value: str, visitor: str, form: str, *, users: bool) -> tuple[Key, str]:
    """The live key and the visitor that a request or a command binds. Raises BadBinding.

    form: see `judge`. users: whether people are recognised by their user ids.
    """
    if not _KIND.fullmatch(kind):
        raise BadBinding(
            "kind should be a word such as customer, subscription or order: lower-case letters, digits and _"
        )
    known = visitor_to_bind(visitor, form)
    if kind == "email" or people.is_address(value):
        raise BadBinding(NO_ADDRESS)
    if kind == "user":
        return _bound_user(source, value, users=users), known
    found = key(source, kind, value)
    if found is None:
        raise BadBinding("key cannot be remembered as an id: it should be the provider's own, such as cus_1")
    return found, known


def visitor_to_bind(visitor: str, form: str) -> str:
    """A visitor id that a person has entered. Raises BadBinding."""
    judged = judge(Candidate("visitor", visitor), form)
    if judged.visitor is None:
        raise BadBinding(f"visitor {judged.why}; it is the value of the cookie datafast_visitor_id")
    return judged.visitor


NO_ADDRESS: Final = "an e-mail address cannot be bound: bind the user, or the provider's customer"


def _bound_user(source: Source, value: str, *, users: bool) -> Key:
    if not users:
        raise BadBinding("BRIDGE_MATCH_USER is off, so no user leads to a visitor: bind the provider's customer")
    found = people.user(source, value)
    if found is None:
        raise BadBinding(
            "key cannot be remembered as a user: it should be your app's own user id, such as user_abc, and not a word"
            " such as guest"
        )
    return found


def linking_types(source: Source, known: Iterable[str]) -> tuple[str, ...]:
    """The event types, among those that a sender is known to send, that are worth enabling for their links alone.

    Many types may name the same two or more kinds of objects. Of those, the one sent in the normal case is chosen.
    """
    groups: dict[tuple[object, ...], list[str]] = {}
    code = _OBJECTS.get(source.objects)
    for event_type in known:
        group = _own_links(source, event_type) if code is None else code.ties(event_type)
        if group:
            groups.setdefault(group, []).append(event_type)
    return tuple(sorted(min(types, key=_usual_first) for types in groups.values()))


def _own_links(source: Source, event_type: str) -> tuple[object, ...]:
    """The links specific to this type, if together with those for all types they cover at least two kinds."""
    own = tuple(
        (spec.kind, tuple(path.text for path in spec.paths))
        for spec in source.links
        if any(pattern != "*" and compile_glob(pattern).matches(event_type) for pattern in spec.events)
    )
    kinds = {kind for kind, _ in own} | {spec.kind for spec in source.links if "*" in spec.events}
    return own if len(kinds) > 1 else ()


_USUAL_ENDINGS: Final = ("completed", "paid", "succeeded", "success", "accepted", "created")


def _usual_first(event_type: str) -> tuple[int, str]:
    word = re.split(r"[._]", event_type)[-1]
    return _USUAL_ENDINGS.index(word) if word in _USUAL_ENDINGS else len(_USUAL_ENDINGS), event_type


def by_kind(found: Iterable[Key]) -> dict[str, str]:
    """The values for paths under the root `key`: the first id of each kind."""
    ids: dict[str, str] = {}
    for item in found:
        if item.kind != "email":
            ids.setdefault(item.kind, item.id)
    return ids


def candidates(source: Source, document: Document) -> tuple[Candidate, ...]:
    """The values at the file's visitor paths, then those found by code, then those in borrowed fields."""
    found: dict[str, Candidate] = {}
    for path in source.visitor:
        value = path.read(document)
        if value is not MISSING:
            found.setdefault(path.text, Candidate(path.text, value))
    code = _OBJECTS.get(source.objects)
    for candidate in () if code is None else code.candidates(document.body):
        found.setdefault(candidate.path, candidate)
    for path in source.borrowed:
        value = path.read(document)
        if value is not MISSING and value is not None and value != "":
            found.setdefault(path.text, Candidate(path.text, value, borrowed=True))
    return tuple(found.values())


def _values(source: Source, envelope: Envelope, document: Document) -> Iterator[tuple[str, Json]]:
    code = _OBJECTS.get(source.objects)
    if code is not None:
        yield from code.keys(envelope.type, document.body)
    for spec in of_type(source.links, envelope.type):
        for path in spec.paths:
            if code is not None and (spec.kind, path.text) in code.COVERED:
                continue
            value = path.read(document)
            for item in value[:_LIST_MAX] if isinstance(value, list) else (value,):
                yield spec.kind, item


def _id(value: Json) -> str | None:
    """An id as a string; None if it is empty, a placeholder for nothing, or not storable in a database."""
    if not isinstance(value, str | int):
        return None
    text = str(value).strip()
    if not text or len(text) > ID_MAX or not text.isprintable() or text.lower() in _NOTHING or is_fixture_id(text):
        return None
    return text


# ------------------------------------------------------------------------------------------------ is it a visitor?

_PLAIN: Final = re.compile(r"[!-~]{1,200}")
_NO_VISITOR: Final = frozenset(
    {"undefined", "null", "none", "nan", "nil", "unknown", "[object object]", "false", "true", "0", "n/a", "anonymous"}
)
_SESSION: Final = "is a session id (cookie datafast_session_id): send the cookie datafast_visitor_id"
_BARE: Final = "client_reference_id"
_EXAMINED_MAX: Final = 300  # characters of a value that are examined before it is shortened


@dataclass(frozen=True, slots=True)
class JudgedCandidate:
    """A candidate and the verdict: a visitor, or None and the reason.

    - sure: it is not from a bare `client_reference_id`, which is often the app's own user id
    - borrowed: a bare UUID in a borrowed field, which has to be proved
    - app_value: the app's own value in a borrowed field, which is not an error
    """

    path: str
    shown: str
    visitor: str | None = None
    sure: bool = True
    why: str | None = None
    borrowed: bool = False
    app_value: bool = False

    @property
    def named(self) -> NamedVisitor | None:
        """The visitor as something to learn; None when it was refused."""
        return None if self.visitor is None else NamedVisitor(self.visitor, self.path, self.sure, self.borrowed)


def judge(candidate: Candidate, form: str = "uuid4") -> JudgedCandidate:
    """Judge one value. form: `uuid4`, or `any` for cookieless sites."""
    value, path = candidate.value, candidate.path
    certain = isinstance(value, str) and value.strip().lower().startswith(VISITOR_PREFIX)
    if candidate.borrowed and not certain:
        return _judge_borrowed(candidate)
    if isinstance(value, bool) or not isinstance(value, str | int) or (not isinstance(value, str) and form != "any"):
        return JudgedCandidate(path, _shown(value), why=f"is {_type_in_words(value)}, not a visitor id")
    text = str(value).strip()
    why = _refusal(text[len(VISITOR_PREFIX) :] if certain else text, form)
    if why is not None:
        return JudgedCandidate(path, _shown(value), why=why)
    visitor = text[len(VISITOR_PREFIX) :] if certain else text
    if UUID4.fullmatch(visitor):
        visitor = visitor.lower()  # as DataFast generates them
    return JudgedCandidate(path, _shown(value), visitor, sure=certain or _BARE not in path)


def _judge_borrowed(candidate: Candidate) -> JudgedCandidate:
    """A value without the prefix in a borrowed field: a UUID may be a visitor; anything else is the app's own."""
    path, value = candidate.path, candidate.value
    if isinstance(value, str) and UUID4.fullmatch(value.strip()):
        return JudgedCandidate(path, _shown(value), value.strip().lower(), sure=False, borrowed=True)
    if isinstance(value, str) and _is_session_id(value.strip()):
        return JudgedCandidate(path, _shown(value), why=_SESSION)
    why = (
        "is a value of your own app; a visitor id in this place begins with dfv_, or is a bare UUID that DataFast knows"
    )
    return JudgedCandidate(path, _shown(value), why=why, app_value=True)


def ranked(judged: Iterable[JudgedCandidate]) -> tuple[NamedVisitor, ...]:
    """The distinct visitors among the judged, in the order given; those from a bare client_reference_id come last."""
    named = [item.named for item in judged if item.named is not None]
    best: dict[str, NamedVisitor] = {}
    for item in sorted(named, key=lambda item: not item.sure):
        best.setdefault(item.visitor, item)
    return tuple(best.values())


def _refusal(text: str, form: str) -> str | None:
    """Why a string is not a visitor id; None if it is one."""
    if not text:
        return "is empty: leave the key out where there is no cookie"
    if text.lower() in _NO_VISITOR:
        return f'is the word "{_shown(text)}": leave the key out where there is no cookie'
    if _is_session_id(text):
        return _SESSION
    if form == "any":
        return None if _PLAIN.fullmatch(text) else "has spaces, control characters or more than 200 characters"
    if UUID4.fullmatch(text):
        return None
    if people.UUID.fullmatch(text):
        return "is a UUID, but not of version 4, so DataFast did not make it"
    return "does not have the form of a visitor id (a UUID such as 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed)"


def _is_session_id(text: str) -> bool:
    return text[:1] in ("s", "S") and people.UUID.fullmatch(text[1:]) is not None


def _type_in_words(value: Json) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else "a number"


def _shown(value: Json) -> str:
    """The value, shortened for the trace."""
    text = value if isinstance(value, str) else "" if isinstance(value, dict | list) else str(value)
    text = without_addresses(text[:_EXAMINED_MAX])[:41]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "·" for character in text)
    return text if len(text) <= 40 else text[:40] + "…"
