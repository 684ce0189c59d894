"""The values in a request, place by place, and the bytes that are signed.

Headers are read as they are; query, form and body are parsed once, on first use. Strings represent the sender's bytes
unchanged. What cannot be parsed is a `SignatureError` here, because these places are only read while the request still
has to be authenticated.

What a sender signs is a template such as `{timestamp}.{body}`, compiled once and rendered to the exact bytes. Its
variables are body, id, timestamp, url, method, path, secret, crc32, sorted_form, header:X, query:x, form:x, body:a.b,
and for Twilio other_port_url and body_hash_url. A variable without a value rejects the request: nothing is ever signed
"around" a gap.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from bridge.errors import SignatureError, UnreadableBody
from bridge.model import Place
from bridge.sources.body import MAX_FIELDS, form_fields, parse
from bridge.text import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.model import Json, Request, Source

WHERE: Final = ("header", "query", "form", "body")
_PORT: Final = re.compile(r":[0-9]*\Z")
_PART: Final = re.compile(r"\{([^{}]*)\}")


class Facts:
    """One request during its verification."""

    __slots__ = ("_body", "_form", "_query", "request", "source")

    def __init__(self, source: Source, request: Request) -> None:
        self.source = source
        self.request = request
        self._query: dict[str, str] | None = None
        self._form: list[tuple[str, str]] | None = None
        self._body: Json = None

    @property
    def url(self) -> str:
        """The URL as it was registered at the provider: a proxy's headers about it are never trusted."""
        return self.source.public_url or self.request.url

    def text(self, place: Place) -> str | None:
        """The string at a place, or None. Raises SignatureError if its container cannot be read."""
        if place.where == "header":
            return self.request.headers.get(place.name.lower())
        if place.where == "query":
            return self.query().get(place.name)
        if place.where == "form":
            return dict(self.form()).get(place.name)
        if place.where == "body":
            return text_below(self.body(), place.name)
        return None

    def first(self, places: tuple[Place, ...]) -> str | None:
        """The first nonempty string among these places."""
        return next((text for place in places if (text := self.text(place))), None)

    def query(self) -> dict[str, str]:
        """The last value of each parameter."""
        if self._query is None:
            self._query = query_of(self.request)
        return self._query

    def form(self) -> list[tuple[str, str]]:
        if self._form is None:
            try:
                self._form = form_fields(self.request.body)
            except UnreadableBody as error:
                raise SignatureError(f"{error}, but the signature needs it") from None
        return self._form

    def body(self) -> Json:
        if self._body is None:
            try:
                self._body = parse(self.source, self.request.body)
            except UnreadableBody as error:
                raise SignatureError(f"{error}, but the signature needs it") from None
        return self._body


def query_of(request: Request) -> dict[str, str]:
    """The last value of each parameter of the query; a query that cannot be decoded reads as no parameters."""
    if not request.query_string:
        return {}
    try:
        return dict(parse_qsl(request.query_string, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def as_bytes(text: str) -> bytes:
    """The bytes of a header's value: WSGI decodes them as Latin-1; any other string is encoded as UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def text_below(document: Json, dotted: str) -> str | None:
    """The string at a dotted path such as `a.b`, or `a[0].b` into a list; None if there is none."""
    for key in dotted.replace("[", ".").replace("]", "").split("."):
        if isinstance(document, dict):
            document = document.get(key)
        elif isinstance(document, list) and key.isdecimal():
            document = next(iter(document[int(key) :][:1]), None)
        else:
            return None
    return None if isinstance(document, bool) else text_of(document)


# ------------------------------------------------------------------------------------------------- what is signed


@dataclass(frozen=True, slots=True)
class SignedText:
    """A compiled template: literal bytes and names of variables, in turn.

    has_bare_timestamp: no separator stands between the timestamp and what is signed next to it.
    """

    parts: tuple[bytes | str | Place, ...]
    uses_secret: bool
    uses_id: bool
    has_bare_timestamp: bool

    def render(self, facts: Facts, *, timestamp: str | None, event_id: str | None, secret: bytes) -> bytes:
        """The signed bytes. Raises SignatureError if the request lacks a part of them."""
        given = {"timestamp": timestamp, "id": event_id}
        rendered = []
        for part in self.parts:
            if isinstance(part, bytes):
                rendered.append(part)
            elif isinstance(part, Place):
                rendered.append(_present(facts.text(part), part.name, part.where))
            elif part == "secret":
                rendered.append(secret)
            elif part in given:
                rendered.append(_present(given[part], part, "header"))
            else:
                rendered.append(_VARIABLES[part](facts))
        return b"".join(rendered)


def compile_signed(text: str) -> SignedText:
    """Compile a template. Raises ValueError with a sentence for an unknown variable."""
    parts: list[bytes | str | Place] = []
    for index, piece in enumerate(_PART.split(text)):
        if index % 2:
            parts.append(_variable(piece))
        elif piece:
            parts.append(piece.encode())
    is_bare = any("timestamp" in pair and not any(isinstance(part, bytes) for part in pair) for pair in pairwise(parts))
    return SignedText(tuple(parts), "secret" in parts, "id" in parts, is_bare)


def _variable(name: str) -> str | Place:
    where, colon, below = name.partition(":")
    if colon and where in WHERE and below:
        return Place(where, below)
    if name in _VARIABLES or name in ("timestamp", "id", "secret"):
        return name
    known = ", ".join(("timestamp", "id", "secret", *_VARIABLES, *(f"{place}:…" for place in WHERE)))
    raise ValueError(f"`signed` has no variable {{{name}}}; there are {known}")


def _present(text: str | None, name: str, where: str) -> bytes:
    if not text:
        raise SignatureError(f"{name} is missing, although the signature covers it")
    return as_bytes(text) if where == "header" else text.encode("utf-8", "surrogatepass")


def _sorted_form(facts: Facts) -> bytes:
    """Twilio: names and values without separators, sorted, each pair once."""
    return "".join(name + value for name, value in sorted(set(facts.form()))).encode()


def _other_port_url(facts: Facts) -> bytes:
    """Twilio: the URL without its port if it has one, else with its scheme's default port. Twilio signs either form."""
    try:
        split = urlsplit(facts.url)
        bare = _PORT.sub("", split.netloc)
        default = "443" if split.scheme == "https" else "80"
        netloc = bare if bare != split.netloc else f"{split.netloc}:{default}"
        return urlunsplit(split._replace(netloc=netloc)).encode("utf-8", "surrogatepass")
    except ValueError:
        raise SignatureError("the URL cannot be read") from None


def _body_hash_url(facts: Facts) -> bytes:
    """Twilio, for a body that is not a form: the URL with the query as sent, whose bodySHA256 is the body's hash."""
    stated = facts.query().get("bodySHA256", "").encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(stated, hashlib.sha256(facts.request.body).hexdigest().encode()):
        raise SignatureError("bodySHA256 is missing from the URL, or is not the hash of this body")
    return f"{facts.url.partition('?')[0]}?{facts.request.query_string}".encode("utf-8", "surrogatepass")


_VARIABLES: Final[dict[str, Callable[[Facts], bytes]]] = {
    "body": lambda facts: facts.request.body,
    "url": lambda facts: facts.url.encode("utf-8", "surrogatepass"),
    "method": lambda facts: facts.request.method.encode("utf-8", "surrogatepass"),
    "path": lambda facts: facts.request.path.encode("utf-8", "surrogatepass"),
    "crc32": lambda facts: str(zlib.crc32(facts.request.body)).encode(),
    "sorted_form": _sorted_form,
    "other_port_url": _other_port_url,
    "body_hash_url": _body_hash_url,
}
