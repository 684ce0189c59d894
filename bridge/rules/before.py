"""The event as it was before the change: `data.previous_attributes` laid over `data.object`, as Stripe sends both.

Objects merge key by key; lists and single values replace; null says that nothing was there. An event that does not say
what was before is taken as unchanged. The document is never altered, and only what changed is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.model import Document

if TYPE_CHECKING:
    from bridge.model import Derived, Json


def was(document: Document) -> Document:
    """The document before the change, made once for each that has room to remember it."""
    return document.derived.was(document) if document.derived is not None else before(document)


def before(document: Document, derived: Derived | None = None) -> Document:
    """Make the document before the change, with room for what is derived of it."""
    body = _body(document.body)
    root = body if document.root is None or document.root is document.body else document.root
    return Document(body, document.header, document.query, document.envelope, document.key, root, derived)


def _body(body: Json) -> Json:
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("previous_attributes"), dict):
        return body
    rest = {name: value for name, value in data.items() if name != "previous_attributes"}
    return {**body, "data": {**rest, "object": _laid_over(data.get("object"), data["previous_attributes"])}}


def _laid_over(now: Json, changed: Json) -> Json:
    if not isinstance(now, dict) or not isinstance(changed, dict):
        return changed
    return {**now, **{name: _laid_over(now.get(name), value) for name, value in changed.items()}}
