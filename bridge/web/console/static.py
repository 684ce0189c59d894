"""The stylesheet and scripts, each under a name that changes with its content, so that browsers keep it for ever.

They are the only answers of the console that need no session, and are packed once per process.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

from flask import Blueprint, Response, request, url_for

from bridge.web.messages import plain

_TYPES: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """integrity: as browsers check it (`sha384-…`)."""

    content: bytes
    packed: bytes
    digest: str
    integrity: str
    type: str


@lru_cache(maxsize=len(_TYPES))
def of(name: str) -> StaticFile:
    """The file of this name; KeyError."""
    type_ = _TYPES[name]
    content = files("bridge.web.console").joinpath("static", name).read_bytes()
    digest = hashlib.sha384(content).digest()
    integrity = f"sha384-{base64.b64encode(digest).decode()}"
    return StaticFile(content, gzip.compress(content, 9, mtime=0), digest.hex()[:16], integrity, type_)


def address(name: str) -> str:
    """Where the file is served."""
    return url_for("console.static_file", digest=of(name).digest, name=name)


def register(routes: Blueprint) -> None:
    """The route of all of them."""

    @routes.get("/static/<digest>/<name>")
    def static_file(digest: str, name: str) -> Response:
        if name not in _TYPES or of(name).digest != digest:
            return plain(404, "There is no file of this name. Reload the page.")
        found = of(name)
        answer = Response(found.content, headers=_FOR_EVER, content_type=found.type)
        if request.accept_encodings.quality("gzip"):
            answer.set_data(found.packed)
            answer.content_encoding = "gzip"
        return answer
