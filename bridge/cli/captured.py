"""An event from a file: a bare body, or a whole captured request. Pure except for reading the file.

A file that begins with `POST /…` is a request: request line, headers, an empty line, the body. Anything else is a body;
if a request is wanted (`exported`), it may be the JSON in which tools that catch webhooks export one.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from bridge.errors import UsageError
from bridge.model import Request

LIMIT: Final = 1_048_576  # bytes of a body, the same as the web accepts
HEAD_LIMIT: Final = 65_536  # bytes before the body in a captured request
_BODY_NAMES: Final = ("body", "raw_body", "rawBody", "content", "payload")
_REQUEST: Final = re.compile(rb"(POST|PUT|GET) (\S+) HTTP/1\.[01]\r?\n")


def read_file(name: str) -> bytes:
    """Read a file, or standard input for `-`; never more bytes than a webhook can have, however long the input."""
    try:
        if name == "-":
            content = _read(sys.stdin.buffer)
        else:
            with Path(name).open("rb") as stream:
                content = _read(stream)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or 'cannot be read'}") from None
    body = _head_and_body(content[found.end() :])[1] if (found := _REQUEST.match(content)) else content
    if len(body) > LIMIT or len(content) > LIMIT + HEAD_LIMIT:
        raise UsageError(f"{name}: it is longer than 1 MiB, which no webhook may be (it would be answered 413)")
    return content


def _read(stream: BinaryIO) -> bytes:
    content = stream.read(LIMIT + 1)
    return content + stream.read(HEAD_LIMIT) if len(content) > LIMIT and is_request(content) else content


def is_request(content: bytes) -> bool:
    """Whether this is a whole request, so that its signature can be checked, too."""
    return _REQUEST.match(content) is not None


def exported(content: bytes) -> Request | None:
    """The request in a capturing tool's JSON (headers, and the body as a string); None if this is not such a file."""
    try:
        export = json.loads(content)
        body = _exported_body(export)
        headers = export["headers"]
        pairs = headers.items() if isinstance(headers, dict) else [(field["name"], field["value"]) for field in headers]
        named = {str(name).lower(): _first_value(value) for name, value in pairs}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if body is None:
        return None
    url = str(export.get("url") or f"https://{named.get('host', 'localhost')}/")
    try:
        split = urlsplit(url)
    except ValueError:
        return None
    return Request(str(export.get("method") or "POST"), url, split.path, split.query, named, body)


def _exported_body(export: Any) -> bytes | None:
    if "body_base64" in export:
        return base64.b64decode(export["body_base64"], validate=True)
    body = next((export[name] for name in _BODY_NAMES if name in export), None)
    return body.encode() if isinstance(body, str) else None


def _first_value(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) and value else str(value)


def source_in(content: bytes) -> str | None:
    """The source that a captured request was sent to; None if it names none."""
    if not is_request(content):
        return None
    match = re.fullmatch(r".*/webhooks/([^/]+)/?", request(content, "").path)
    return match[1] if match else None


def request(content: bytes, source: str) -> Request:
    """Parse the request in a file; a bare body becomes a POST without headers."""
    match = _REQUEST.match(content)
    if match is None:
        path = f"/webhooks/{source}"
        return Request("POST", f"http://localhost{path}", path, "", {}, content)
    head, body = _head_and_body(content[match.end() :])
    headers = dict(_header(line) for line in head.splitlines() if line.strip())
    target = match[2].decode("latin-1")
    path, _, query = target.partition("?")
    host = headers.get("host", "localhost")
    return Request(match[1].decode(), f"https://{host}{target}", path, query, headers, _cut_to_length(body, headers))


def _head_and_body(rest: bytes) -> tuple[str, bytes]:
    """Split what follows the request line into headers and body."""
    for gap in (b"\r\n\r\n", b"\n\n"):
        head, found, body = rest.partition(gap)
        if found:
            return head.decode("latin-1"), body
    return rest.decode("latin-1"), b""


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise UsageError("the captured request has a header line without a colon")
    return name.strip().lower(), value.strip()


def _cut_to_length(body: bytes, headers: dict[str, str]) -> bytes:
    """Cut the body to its Content-Length if only white space follows, such as a line end that an editor added."""
    length = headers.get("content-length", "")
    return body[: int(length)] if length.isdecimal() and body[int(length) :].strip() == b"" else body
