"""Where a provider itself shows an event or its object, as its preset says (`page`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from bridge import sources
from bridge.errors import UnreadableBody
from bridge.globs import event_types
from bridge.presets import stated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bridge.model import Json, Source
    from bridge.store.operator.queries import EventDetail

_PLACE: Final = re.compile(r"\{([a-z_.]+)\}")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)


def provider_page(detail: EventDetail, source: Source | None) -> str | None:
    """The address of the provider's own page; None where the preset knows none, or the event lacks what it needs."""
    line = detail.line
    pages: Sequence[Mapping[str, Any]] = stated(line.provider, "page") or ()
    for one in pages:
        pattern = one.get("test" if line.test else "live")
        if pattern and ("event" not in one or line.type in event_types(one["event"])):
            return _filled(pattern, {"id": line.provider_event_id, "account": line.account}, detail, source)
    return None


def _filled(pattern: str, known: Mapping[str, str | None], detail: EventDetail, source: Source | None) -> str | None:
    """The pattern with its ids; an event that lacks one of them, or has something else there, gives no address."""
    names = _PLACE.findall(pattern)
    read = _document(detail, source) if set(names) - set(known) else {}
    for name in names:
        value = known[name] if name in known else _below(read, name)
        if value is None or not _ID.fullmatch(value):
            return None
        pattern = pattern.replace(f"{{{name}}}", value)
    return pattern


def _document(detail: EventDetail, source: Source | None) -> Json:
    if source is None or detail.event.body is None:
        return {}
    try:
        return sources.parse(source, detail.event.body)
    except UnreadableBody:
        return {}


def _below(document: Json, path: str) -> str | None:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return None if document is None or isinstance(document, dict | list | bool) else str(document)
