"""Lemon Squeezy has no documented event id and no timestamp in its signature: what tells a repeated delivery.

Two keys, either one seen is a duplicate: the undocumented `meta.webhook_id`, and a fingerprint of what happened, which
leaves out what changes from one rendering to the next (signed URLs, formatted amounts).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from bridge.sources.envelope import bounded_text
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.model import Json


def dedupe_keys(body: Json) -> list[str]:
    """`id:…` if there is a webhook_id, and `fp:…`; nothing if the body is not shaped like an event at all."""
    meta, data = _object(body, "meta"), _object(body, "data")
    event_name = text_of(meta.get("event_name"))
    if not event_name or not data:
        return []
    kind, number = text_of(data.get("type")) or "", text_of(data.get("id")) or ""
    keys = [_fingerprint(meta, data, [event_name, kind, number])]
    webhook_id = text_of(meta.get("webhook_id"))
    if webhook_id:
        # Nobody has written down what a webhook_id names; with the object beside it, it can only be too fine.
        parts = (event_name, kind, number, webhook_id)
        keys.insert(0, "id:" + ":".join(bounded_text(part) for part in parts))
    return keys


def _fingerprint(meta: dict[str, Json], data: dict[str, Json], names: list[str]) -> str:
    attributes = _object(data, "attributes")
    test = meta.get("test_mode") is True or attributes.get("test_mode") is True
    canonical = json.dumps([*names, test, _lasting(attributes)], sort_keys=True, separators=(",", ":"))
    return "fp:" + hashlib.sha256(canonical.encode()).hexdigest()


def _lasting(value: Json) -> Json:
    """Without signed URLs and formatted amounts, at any depth."""
    if isinstance(value, dict):
        return {
            key: _lasting(below) for key, below in value.items() if key != "urls" and not key.endswith("_formatted")
        }
    return [_lasting(below) for below in value] if isinstance(value, list) else value


def _object(value: Json, key: str) -> dict[str, Json]:
    below = value.get(key) if isinstance(value, dict) else None
    return below if isinstance(below, dict) else {}
