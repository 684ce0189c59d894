"""Bytes → document, strictly: two readers of one body must never see two different events.

JSON is UTF-8 without a byte order mark, without duplicate keys, NaN, NUL or lone surrogates, at most `MAX_DEPTH` deep,
with numbers of a length that every later step can hold. Forms are percent-encoded UTF-8, `a[b]=c` nests.
Everything here takes time linear in the body's length and raises `UnreadableBody`, whose message holds nothing of
the body.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import parse_qsl

from bridge.errors import UnreadableBody
from bridge.model import BodyForm, ExactFloat, Json

if TYPE_CHECKING:
    from bridge.model import Source

MAX_DEPTH: Final = 64
MAX_DIGITS: Final = 40
MAX_FIELDS: Final = 10_000
MAX_EVENTS: Final = 10_000

_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_STRING: Final = re.compile(rb'"[^"]*"')
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_FIELD: Final = re.compile(r"([^\[]+)((?:\[[^\[\]]*\])*)")


def parse(source: Source, body: bytes) -> Json:
    """The document in a body, in the form that the source sends; UnreadableBody says why there is none."""
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
    """Strict JSON; see the top of this module."""
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper(body, MAX_DEPTH):
        raise UnreadableBody(f"the body nests deeper than {MAX_DEPTH} levels")
    try:
        document = _DECODER.decode(body.decode())
    except UnicodeDecodeError:
        raise UnreadableBody("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnreadableBody(_json_fault(body, error)) from None
    except RecursionError:
        raise UnreadableBody(f"the body nests deeper than {MAX_DEPTH} levels") from None
    if b"\\" in body:
        _refuse_impossible_texts(body, document)
    return document


def _json_fault(body: bytes, error: json.JSONDecodeError) -> str:
    if not body.strip():
        return "the body is empty"
    if body.startswith(b"\xef\xbb\xbf"):
        return "the body begins with a byte order mark, which JSON does not allow"
    return f"the body is not JSON: {error.msg.rstrip(':')} at line {error.lineno}, column {error.colno}"


def _deeper(body: bytes, limit: int) -> bool:
    """Whether the brackets outside of strings nest deeper than the limit: peels one level per turn."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _STRING.sub(b"", body.translate(_ONE_KIND, _NOT_BRACKETS).replace(b'""', b""))
    for _ in range(limit):
        peeled = brackets.replace(b"[]", b"")
        if len(peeled) == len(brackets):
            # Unbalanced, so no JSON: the parser will say where, unless it would go too deep to find out.
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
    raise UnreadableBody("the body holds NaN or Infinity, which JSON does not know")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _refuse_impossible_texts(body: bytes, document: Json) -> None:
    """Escapes can spell what no database and no UTF-8 takes. Looked for in the bytes first, which is cheap."""
    if _SURROGATE.search(body):
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UnreadableBody("the body holds half a character (a lone surrogate)") from None
    if b"\\u0000" in body and "\\u0000" in json.dumps(document).replace("\\\\", ""):
        raise UnreadableBody("the body holds the character NUL, which no database takes in a text")


# -------------------------------------------------------------------------------------------------------- forms


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form in their order, names as they came (`a[b]`)."""
    if not body.strip():
        raise UnreadableBody("the body is empty")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeDecodeError:
        raise UnreadableBody("the form is not UTF-8") from None
    except ValueError:
        raise UnreadableBody(f"the form has more than {MAX_FIELDS} fields") from None
    if any("\0" in name or "\0" in value for name, value in fields):
        raise UnreadableBody("the form holds the character NUL, which no database takes in a text")
    if not fields:
        raise UnreadableBody("the body is not a form")
    return fields


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
