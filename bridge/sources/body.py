"""Bytes → document, strictly: two readers of one body must never see two different events.

JSON is UTF-8 without duplicate keys or NaN, at most `MAX_DEPTH` deep, with numbers short enough for every later step.
Forms are percent-encoded UTF-8, `a[b]=c` nests. A byte order mark is skipped. What no database stores (NUL, or half of
a surrogate pair, as in a name cut in the middle of an emoji) is read as U+FFFD: the sale is still a sale. Everything
here takes time linear in the body's length and raises `UnreadableBody`, whose message quotes nothing from the body.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import parse_qsl

from bridge.errors import UnreadableBody
from bridge.model import BodyForm, ExactFloat, Json
from bridge.text import storable

if TYPE_CHECKING:
    from bridge.model import Source

MAX_DEPTH: Final = 64
MAX_DIGITS: Final = 40
MAX_FIELDS: Final = 10_000
MAX_EVENTS: Final = 10_000

_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_STRING: Final = re.compile(rb'"[^"]*"')
_ESCAPED: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")  # may be an escape for NUL or a lone surrogate
_SURROGATE_START: Final = re.compile(rb"\xed[\xa0-\xbf]")  # how an encoded lone surrogate begins
_LONE_SURROGATE: Final = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # the whole of it
_UNSTORABLE: Final = re.compile(rb"%00|%[eE][dD]%[abAB][0-9a-fA-F]")  # NUL, or a lone surrogate, in a form
_PERCENT_ENCODED: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_FIELD: Final = re.compile(r"([^\[]+)((?:\[[^\[\]]*\])*)")


def parse(source: Source, body: bytes) -> Json:
    """Parse a body in the source's format. Raises UnreadableBody, which says why there is no document."""
    if source.body is BodyForm.JSON:
        return parse_json(body)
    fields = form_fields(body)
    if source.body is BodyForm.FORM:
        return _nest(fields)
    for name, value in reversed(fields):
        if name == source.body_field:
            return parse_json(value.encode())
    raise UnreadableBody(f"the form has no field {source.body_field!r}, in which this source's events are expected")


# --------------------------------------------------------------------------------------------------------- JSON


def parse_json(body: bytes) -> Json:
    """Parse strict JSON, as the module docstring defines it."""
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _nests_deeper(body, MAX_DEPTH):
        raise UnreadableBody(f"the body nests deeper than {MAX_DEPTH} levels")
    try:
        document = _DECODER.decode(_text(body))
    except UnicodeDecodeError:
        raise UnreadableBody("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnreadableBody(_not_json(body, error)) from None
    except RecursionError:
        raise UnreadableBody(f"the body nests deeper than {MAX_DEPTH} levels") from None
    return _storable(document) if b"\\" in body and _ESCAPED.search(body) else document


def _text(body: bytes) -> str:
    """Decode a body, without its byte order mark and with U+FFFD for NUL and encoded surrogates."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = _LONE_SURROGATE.sub(b"\xef\xbf\xbd", body).decode()
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _storable(value: Json) -> Json:
    """The document with U+FFFD for escapes that stand for what no database can store."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable(below) for below in value]
    if isinstance(value, dict):
        return _object([(storable(key), _storable(below)) for key, below in value.items()])
    return value


def may_be_repaired(body: bytes) -> bool:
    """Whether a body may hold something that is read as U+FFFD, or begins with a byte order mark.

    Release f44b843 quarantined such bodies and stored a different key for them. A false positive costs one lookup.
    """
    return (
        body.startswith(codecs.BOM_UTF8)
        or b"\0" in body
        or (b"\\" in body and _ESCAPED.search(body) is not None)  # one byte is found ten times as fast as two
        or (b"\xed" in body and _SURROGATE_START.search(body) is not None)
        or (b"%" in body and _UNSTORABLE.search(body) is not None)
    )


def _not_json(body: bytes, error: json.JSONDecodeError) -> str:
    if not body.strip():
        return "the body is empty"
    return f"the body is not JSON: {error.msg.rstrip(':')} at line {error.lineno}, column {error.colno}"


def _nests_deeper(body: bytes, limit: int) -> bool:
    """Whether the brackets outside strings nest deeper than the limit. Each pass removes one level."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _STRING.sub(b"", body.translate(_ONE_KIND, _NOT_BRACKETS).replace(b'""', b""))
    for _ in range(limit):
        peeled = brackets.replace(b"[]", b"")
        if len(peeled) == len(brackets):
            # Unbalanced, so not JSON: the parser will say where, unless it would have to recurse too deep.
            return len(brackets) > limit
        brackets = peeled
    return bool(brackets)


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise UnreadableBody("the body holds the same key twice in one object, so it can be read in two ways")
    return document


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise UnreadableBody(f"the body holds an integer of more than {MAX_DIGITS} digits")
    return int(text)


def _float(text: str) -> ExactFloat:
    number = ExactFloat(text) if len(text) <= 2 * MAX_DIGITS else None
    if number is None or not math.isfinite(number):
        raise UnreadableBody("the body holds a number that is too long or too large")
    return number


def _constant(_: str) -> NoReturn:
    raise UnreadableBody("the body holds NaN or Infinity, which are not valid JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


# ----------------------------------------------------------------------------------------- what can still be read


def legible(source: Source, body: bytes) -> dict[str, Json]:
    """The legible top-level entries of a body that is not a document, so that a person can find the event.

    If an object breaks off or nests too deep, at least the entries before that point are found. Duplicate keys are left
    out. Nothing here raises, and the result is only a hint.
    """
    try:
        if source.body is BodyForm.JSON:
            return _entries(body.decode("utf-8", "replace"))
        text = body[:_LEGIBLE_BYTES].decode("utf-8", "replace")
        fields = dict(parse_qsl(text, errors="replace"))
    except ValueError:
        return {}
    if source.body is BodyForm.JSON_FIELD:
        return _entries(fields.get(source.body_field or "", ""))
    return {name: storable(value) for name, value in fields.items()}


def _entries(text: str) -> dict[str, Json]:
    found: dict[str, Json] = {}
    twice: set[str] = set()
    position = _SPACE.match(text, text.startswith("\ufeff")).end()  # type: ignore[union-attr]  # it matches nothing, too
    while text[position : position + 1] == ("," if found else "{"):
        try:
            key, value, position = _entry(text, position + 1)
        except (ValueError, RecursionError):
            break
        key = storable(key)
        if key in found:
            twice.add(key)
        found[key] = value
    return {key: _legible_value(value) for key, value in found.items() if key not in twice}


def _legible_value(value: Json) -> Json:
    """The value; None if it nests too deep, or has duplicate keys once it is made storable."""
    try:
        return _storable(value)
    except (UnreadableBody, RecursionError):
        return None


def _entry(text: str, position: int) -> tuple[str, Json, int]:
    """One `"key": value` at this position, and where it ends. Raises ValueError if there is none."""
    opening = _OPENING.match(text, position)
    if opening is None:
        raise ValueError(position)
    key, position = _LENIENT.raw_decode(text, opening.end() - 1)
    colon = _COLON.match(text, position)
    if colon is None:
        raise ValueError(position)
    value, position = _LENIENT.raw_decode(text, colon.end())
    return key, value, _SPACE.match(text, position).end()  # type: ignore[union-attr]


_LEGIBLE_BYTES: Final = 65_536
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_OPENING: Final = re.compile(r'[ \t\n\r]*"')
_COLON: Final = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_LENIENT: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)

# -------------------------------------------------------------------------------------------------------- forms


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form in order, with their names as sent (`a[b]`)."""
    if not body.strip():
        raise UnreadableBody("the body is empty")
    if body.count(b"&") >= MAX_FIELDS:
        raise UnreadableBody(f"the form has more than {MAX_FIELDS} fields")
    try:
        pairs = [pair.partition("=") for pair in _text(body).split("&") if pair]
        fields = [(_unquoted(name), _unquoted(value)) for name, _, value in pairs]
    except UnicodeDecodeError:
        raise UnreadableBody("the form is not UTF-8") from None
    if not fields:
        raise UnreadableBody("the body is not a form")
    return fields


def _unquoted(text: str) -> str:
    """Like `urllib.parse.unquote_plus`, which takes a second for a megabyte of stray percent signs."""
    text = text.replace("+", " ")
    return storable(_PERCENT_ENCODED.sub(_decoded, text) if "%" in text else text)


def _decoded(run: re.Match[str]) -> str:
    return bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "surrogatepass")


def _nest(fields: list[tuple[str, str]]) -> dict[str, Json]:
    """`a[b][c]=1` nests, `a[]=1` collects, a repeated name keeps its last value."""
    document: dict[str, Json] = {}
    for name, value in fields:
        match = _FIELD.fullmatch(name)
        keys = [match[1], *match[2][1:-1].split("][")] if match and match[2] else [name]
        if len(keys) > MAX_DEPTH:
            raise UnreadableBody(f"the form nests deeper than {MAX_DEPTH} levels")
        _put(document, keys, value)
    return document


def _put(document: dict[str, Json], keys: list[str], value: str) -> None:
    collects = len(keys) > 1 and keys[-1] == ""
    if collects:
        keys = keys[:-1]
    for key in keys[:-1]:
        below = document.get(key)
        if not isinstance(below, dict):
            below = document[key] = {}
        document = below
    if not collects:
        document[keys[-1]] = value
        return
    values = document.get(keys[-1])
    if not isinstance(values, list):
        values = document[keys[-1]] = []
    values.append(value)
