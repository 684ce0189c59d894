"""What a request says, place by place: headers as they are, query, form and body parsed once and only when asked.

Texts come out as the sender's own bytes would read; what cannot be parsed is a `SignatureError` here, because these
places are only read while the request still has to be authenticated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from bridge.errors import SignatureError, UnreadableBody
from bridge.sources.body import MAX_FIELDS, form_fields, parse
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.model import Json, Place, Request, Source


class Facts:
    """One request while it is verified."""

    __slots__ = ("_body", "_form", "_query", "request", "source")

    def __init__(self, source: Source, request: Request) -> None:
        self.source = source
        self.request = request
        self._query: dict[str, str] | None = None
        self._form: list[tuple[str, str]] | None = None
        self._body: Json = None

    @property
    def url(self) -> str:
        """The URL as it was registered at the provider: what a proxy says about it is never trusted."""
        return self.source.public_url or self.request.url

    def text(self, place: Place) -> str | None:
        """The text at a place, or None. SignatureError if its container cannot be read."""
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
        """The first string that is there and not empty."""
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
    """Header text back to its bytes: WSGI hands bytes over as Latin-1; anything else is UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def text_below(document: Json, dotted: str) -> str | None:
    """`a.b`, and `a[0].b` where a list holds it."""
    for key in dotted.replace("[", ".").replace("]", "").split("."):
        if isinstance(document, dict):
            document = document.get(key)
        elif isinstance(document, list) and key.isdecimal():
            document = next(iter(document[int(key) :][:1]), None)
        else:
            return None
    return None if isinstance(document, bool) else text_of(document)
