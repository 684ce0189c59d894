"""Convert WSGI requests without changing them, and build short answers.

A WSGI request becomes a `model.Request` with the raw path and query, lower-case header names and the body's bytes.
Signatures are over bytes, so nothing is decoded, unpacked or guessed. A body is read to one byte past the limit: a
stated length may lie, and a chunked one has none. An answer is one plain sentence or a small JSON object; an error is
never a page and never a stack trace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from flask import Response

from bridge.errors import BodyEncoded, BodyTooLarge
from bridge.model import Request
from bridge.server.framing import BODY_LIMIT

Environ = dict[str, Any]
_PLAIN: Final = frozenset({"", "identity"})


def request_of(environ: Environ) -> Request:
    """The request with its whole body. Raises BodyEncoded or BodyTooLarge if it is refused."""
    headers = _headers(environ)
    body = _body(environ, _acceptable_length(headers))
    target = _target(environ)
    path, _, query = target.partition("?")
    host = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
    url = f"{environ.get('wsgi.url_scheme', 'http')}://{host}{target}"
    return Request(environ["REQUEST_METHOD"], url, path, query, headers, body, environ.get("REMOTE_ADDR", ""))


def accepted(request: Request) -> Request:
    """A request that our own server has already read. Raises BodyEncoded or BodyTooLarge like `request_of`."""
    _acceptable_length(request.headers)
    if len(request.body) > BODY_LIMIT:
        raise BodyTooLarge("the body is over the limit")
    return request


def _acceptable_length(headers: Mapping[str, str]) -> int | None:
    """The stated length of the body, if there is one. Raises BodyEncoded or BodyTooLarge for what the headers say."""
    if headers.get("content-encoding", "").strip().lower() not in _PLAIN:
        raise BodyEncoded("the body is compressed")
    stated = headers.get("content-length", "")
    length = int(stated) if stated.isascii() and stated.isdigit() else None
    if length is not None and length > BODY_LIMIT:
        raise BodyTooLarge("the stated length is over the limit")
    return length


def _body(environ: Environ, length: int | None) -> bytes:
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""  # neither the server nor the client says where the input ends
    wanted = BODY_LIMIT + 1 if environ.get("wsgi.input_terminated") else length
    body: bytes = environ["wsgi.input"].read(wanted)
    if len(body) > BODY_LIMIT:
        raise BodyTooLarge("the body is over the limit")
    return body


def _target(environ: Environ) -> str:
    """The target of the request line, from its path on."""
    raw: str = environ.get("RAW_URI") or ""
    if raw.startswith("/"):
        return raw
    path = quote(environ.get("PATH_INFO", "").encode("latin-1"))
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


def _headers(environ: Environ) -> Mapping[str, str]:
    """The headers, with one character per byte (latin-1); the server has joined repeated ones by commas."""
    found = {_header(name): value for name, value in environ.items() if name.startswith("HTTP_")}
    for name, header in (("CONTENT_TYPE", "content-type"), ("CONTENT_LENGTH", "content-length")):
        if environ.get(name):
            found[header] = environ[name]
    return found


@lru_cache(maxsize=1024)
def _header(name: str) -> str:
    return name.removeprefix("HTTP_").replace("_", "-").lower()


# ------------------------------------------------------------------------------------------------------- answers


def plain(code: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """One sentence."""
    return Response(text + "\n", code, headers, content_type="text/plain; charset=utf-8")


def unavailable(text: str, retry_after_s: int) -> Response:
    """503 for a temporary error: the caller should try again."""
    return plain(503, text, {"Retry-After": str(retry_after_s)})


def facts(code: int, values: Mapping[str, Any]) -> Response:
    """A JSON object for people and monitors: indented, in the order given."""
    return Response(json.dumps(values, indent=2) + "\n", code, content_type="application/json")
