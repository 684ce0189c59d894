"""What DataFast accepts as a goal, check by check.

Written from its documentation alone and deliberately separate from the bridge's own knowledge of the same limits: a
stand-in that shares the code would share the mistakes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.sandbox.options import Options

VISITOR: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
LIFECYCLE: Final = frozenset(
    {
        "payment",
        "free_trial",
        "trial_started",
        "subscription_started",
        "subscription_renewed",
        "subscription_ended",
    }
)
_FIELDS: Final = frozenset({"datafast_visitor_id", "visitorId", "name", "description", "metadata"})
_KEY: Final = re.compile(r"[a-z0-9_-]+")
_MARKUP: Final = (
    re.compile(r"[<>'\"&]"),
    re.compile("javascript:", re.IGNORECASE),
    re.compile(r"on\w+=", re.IGNORECASE),
)


class Refusal(Exception):
    """An answer that is not a success: its status and message."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.fields = fields


@dataclass(slots=True)
class Draft:
    """A goal being checked. `state`: the website's knowledge of the visitor (`known`, `bot`, `unknown`)."""

    body: Mapping[str, Any]
    options: Options
    state: Callable[[str], str]
    visitor: str = ""
    name: str = ""
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def checked(body: Any, options: Options, state: Callable[[str], str]) -> Draft:
    """Run all checks in the options' order; Refusal at the first that fails."""
    if not isinstance(body, dict):
        _refuse("Invalid JSON body: an object is expected")
    if options.extra_fields == "refuse" and (extra := sorted(set(body) - _FIELDS)):
        _refuse(f"Unknown field: {extra[0]}")
    draft = Draft(body, options, state)
    draft.visitor = _visitor(body)
    description = body.get("description")
    draft.description = description if isinstance(description, str) else None
    for check in options.order:
        CHECKS[check](draft)
    return draft


def _refuse(message: str, status: int = 400) -> NoReturn:
    raise Refusal(status, message)


def _visitor(body: Mapping[str, Any]) -> str:
    for name in ("datafast_visitor_id", "visitorId"):
        if isinstance(value := body.get(name), str) and value:
            return value
    return ""


def _check_visitor(draft: Draft) -> None:
    if not draft.visitor:
        _refuse("Missing required field: datafast_visitor_id")


def _check_uuid(draft: Draft) -> None:
    if draft.options.uuid_only and not VISITOR.fullmatch(draft.visitor):
        _refuse("Invalid visitor ID: must be a UUID v4")


def _check_name(draft: Draft) -> None:
    name = draft.body.get("name")
    if not isinstance(name, str) or not name:
        _refuse("Missing required field: name")
    name = (name.strip() if draft.options.trim_names else name).lower().replace(" ", "_")
    signs, longest = ("a-z0-9_-", 32) if draft.options.legacy else ("a-z0-9_:-", 64)
    if not re.fullmatch(f"[{signs}]{{1,{longest}}}", name):
        _refuse(f"Invalid goal name: 1 to {longest} of lowercase letters, numbers, underscores and hyphens")
    draft.name = name


def _check_reserved(draft: Draft) -> None:
    if draft.name == "identify":
        _refuse('"identify" is a reserved goal name')


def _check_metadata(draft: Draft) -> None:
    given = draft.body.get("metadata")
    if given is None:
        return
    if not isinstance(given, dict):
        _refuse("Invalid metadata: must be an object")
    if len(given) > 10:
        _refuse("Invalid metadata: at most 10 properties")
    for key, value in given.items():
        draft.metadata[_key(key, draft.options)] = _text(value, draft.options)


def _key(key: str, options: Options) -> str:
    longest = 32 if options.legacy else 64
    lowered = key.lower() if options.upper_case_keys == "lower" else key
    if not _KEY.fullmatch(lowered) or len(lowered) > longest:
        _refuse(f"Invalid metadata key: lowercase letters, numbers, underscores and hyphens, at most {longest}")
    return lowered


def _text(value: Any, options: Options) -> str:
    if not isinstance(value, str) and options.other_values == "refuse":
        _refuse("Invalid metadata value: must be a string")
    text = _as_javascript_string(value)
    while _length(text, options) > 255:
        if options.long_values == "refuse":
            _refuse("Invalid metadata value: at most 255 characters")
        text = text[: min(255, len(text) - 1)]
    for pattern in _MARKUP if options.clean_values else ():
        text = pattern.sub("", text)
    return text.strip() if options.clean_values else text


def _as_javascript_string(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return ",".join(map(_as_javascript_string, value))
    return "[object Object]" if isinstance(value, dict) else str(value)


def _length(text: str, options: Options) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2 if options.count == "utf16" else len(text)


def _check_bot(draft: Draft) -> None:
    if draft.state(draft.visitor) == "bot":
        _refuse("Visitor is flagged as a bot")


def _check_known(draft: Draft) -> None:
    if draft.state(draft.visitor) == "unknown":
        _refuse(f"First event not found for visitor {draft.visitor}", 404)


CHECKS: Final[Mapping[str, Callable[[Draft], None]]] = {
    "visitor": _check_visitor,
    "uuid": _check_uuid,
    "name": _check_name,
    "reserved": _check_reserved,
    "metadata": _check_metadata,
    "bot": _check_bot,
    "known": _check_known,
}
