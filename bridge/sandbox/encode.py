"""Bodies as bytes, as each provider writes them: a signature covers bytes, not meaning."""

from __future__ import annotations

import json
from typing import Any, Final

_FIRST: Final = ("id", "object", "data")  # what Stripe writes before the other keys, which are in alphabetical order


def stripe(body: Any) -> bytes:
    """Pretty-printed with two spaces, `id` and `object` first, the other keys in alphabetical order, plain UTF-8."""
    return json.dumps(_ordered(body), indent=2, ensure_ascii=False).encode()


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(element) for element in value]
    if not isinstance(value, dict):
        return value
    # `data` comes first only in lists; in an event it is between `created` and `livemode`.
    first = _FIRST if value.get("object") == "list" else ("id", "object")
    keys = [key for key in first if key in value]
    keys += sorted(value.keys() - set(keys))
    return {key: _ordered(value[key]) for key in keys}


def lemonsqueezy(body: Any) -> bytes:
    r"""As PHP's json_encode writes: compact, `/` as `\/`, non-ASCII characters as `\u20ac`."""
    return json.dumps(body, separators=(",", ":")).replace("/", "\\/").encode()


def compact(body: Any) -> bytes:
    """As most other senders write: compact, UTF-8 unescaped."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
