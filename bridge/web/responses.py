"""Short answers: one plain sentence each, or a small JSON object. Errors are never pages and never stack traces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flask import Response

if TYPE_CHECKING:
    from collections.abc import Mapping


def plain(code: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """One sentence."""
    return Response(text + "\n", code, headers, content_type="text/plain; charset=utf-8")


def unavailable(text: str, retry_after_s: int) -> Response:
    """503 for an error that passes: the caller should try again."""
    return plain(503, text, {"Retry-After": str(retry_after_s)})


def facts(code: int, values: Mapping[str, Any]) -> Response:
    """A JSON object for people and monitors: indented, in the order given."""
    return Response(json.dumps(values, indent=2) + "\n", code, content_type="application/json")
