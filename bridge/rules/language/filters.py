"""The filters of templates. Each maps a value to a value; a value that it cannot handle gives MISSING, never an error.

The table FILTERS is the only source: templates are compiled from it, and the reference is generated from it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from bridge.model import MISSING, Document, Json
from bridge.rules.language.paths import compile_path, reads_list
from bridge.rules.language.values import EXACT, Value, decimals, major, minor, minor_text, number, plain
from bridge.text import did_you_mean, text_of


class Scope(NamedTuple):
    """What filters may use besides their value.

    hash_key: a secret of this installation. own_decimals: code -> decimals, of the currencies that the event's provider
    counts differently.
    """

    document: Document
    hash_key: bytes = b""
    own_decimals: Mapping[str, int] = MappingProxyType({})


_TAKE_PATHS: Final = ("money", "minor", "minus", "plus")
_COMMON: Final = 10**15  # smaller amounts are rendered without decimal arithmetic
Filter = Callable[[Value, Scope], Value]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FilterKind:
    """One filter: its syntax, what it does, and how its argument is compiled (ValueError has a sentence)."""

    usage: str
    does: str
    compile: Callable[[str, Mapping[str, Mapping[str, Json]]], Filter]
    argument: bool | None = field(default=False)  # True: required, False: not allowed, None: optional


def _taking(read: Callable[[Value], T | None], compute: Callable[[T], Value]) -> Filter:
    """A filter on what its value can be converted to: a number, a string, a list or a time."""

    def apply(value: Value, _scope: Scope) -> Value:
        taken = read(value)
        return MISSING if taken is None else compute(taken)

    return apply


# ------------------------------------------------------------------------------------------------------- numbers


def _at(argument: str) -> Callable[[Scope], Value]:
    path = compile_path(argument)
    if reads_list(path):
        raise ValueError(f'needs one value, but "{path}" reads a list')
    return lambda scope: path.read(scope.document)


def _decimals_at(argument: str) -> Callable[[Scope], int | None]:
    """The decimals of a currency, given as a code (USD) or as the path of one."""
    if re.fullmatch(r"[A-Z]{3}", argument):
        places = decimals(argument)
        return lambda scope: scope.own_decimals.get(argument, places)
    read = _at(argument)

    def places_at(scope: Scope) -> int | None:
        code = read(scope)
        if not isinstance(code, str):
            return None
        places = scope.own_decimals.get(code.strip().upper()) if scope.own_decimals else None
        return decimals(code) if places is None else places

    return places_at


def _money(convert: Callable[[Decimal, int], Decimal]) -> Callable[[str, object], Filter]:
    def compile_(argument: str, _maps: object) -> Filter:
        places_at = _decimals_at(argument)

        def apply(value: Value, scope: Scope) -> Value:
            places = places_at(scope)
            if convert is major and value.__class__ is int and 0 <= value < _COMMON and places is not None:
                return minor_text(value, places)
            amount = number(value)
            return MISSING if amount is None or places is None else convert(amount, places)

        return apply

    return compile_


def _positive(_argument: str, _maps: object) -> Filter:
    return lambda value, _scope: value if (number(value) or 0) > 0 else MISSING


def _with_number_at(compute: Callable[[Decimal, Decimal], Decimal]) -> Callable[[str, object], Filter]:
    """`minus`, `plus`: with the number at a path; a missing one counts as 0."""

    def compile_(argument: str, _maps: object) -> Filter:
        read = _at(argument)

        def apply(value: Value, scope: Scope) -> Value:
            other = read(scope)
            left, right = number(value), Decimal(0) if other is MISSING else number(other)
            return MISSING if left is None or right is None else plain(compute(left, right))

        return apply

    return compile_


def _int(_argument: str, _maps: object) -> Filter:
    return _taking(number, lambda exact: EXACT.plus(exact.quantize(Decimal(1), ROUND_DOWN, EXACT)))


def _round(argument: str, _maps: object) -> Filter:
    unit = Decimal(1).scaleb(-_count(argument, 0, 20))
    return _taking(number, lambda exact: EXACT.plus(exact.quantize(unit, ROUND_HALF_UP, EXACT)))


def _count(argument: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", argument) or not least <= int(argument) <= most:
        raise ValueError(f"needs a whole number from {least} to {most}")
    return int(argument)


# --------------------------------------------------------------------------------------------------------- lists


def _listed(value: Value) -> list[Json] | None:
    """The value as a list; a single value becomes a list of one."""
    if value is MISSING or value is None:
        return None
    return value if isinstance(value, list) else [value]


def _numbers(values: list[Json]) -> list[Decimal] | None:
    """The numbers in a list; None if one of its elements is not a number."""
    exact = [number(value) for value in values]
    known = [value for value in exact if value is not None]
    return known if len(known) == len(exact) else None


def _sum(values: list[Json]) -> Value:
    """The exact sum, with as many decimals as the elements have: 20.00 and 30.00 make 50.00."""
    exact = _numbers(values)
    if exact is None:
        return MISSING
    total = Decimal(0)
    for value in exact:
        total = EXACT.add(total, value)
    return total


def _extreme(choose: Callable[[list[Decimal]], Decimal]) -> Filter:
    def compute(values: list[Json]) -> Value:
        exact = _numbers(values)
        return values[exact.index(choose(exact))] if exact else MISSING

    return _taking(_listed, compute)


def _element(position: int) -> Filter:
    return _taking(_listed, lambda values: values[position] if values else MISSING)


def _join(argument: str, _maps: object) -> Filter:
    between = argument or ", "
    return _taking(
        _listed, lambda values: between.join(text for value in values if (text := text_of(value))) or MISSING
    )


# --------------------------------------------------------------------------------------------------------- strings


def _default(argument: str, _maps: object) -> Filter:
    return lambda value, _scope: value if text_of(value) else argument


def _max(argument: str, _maps: object) -> Filter:
    """With a number, the first that many characters; without, the greatest of a list."""
    if not argument:
        return _extreme(max)
    most = _count(argument, 1, 9_999)
    return _taking(text_of, lambda text: text[:most])


def _map(argument: str, maps: Mapping[str, Mapping[str, Json]]) -> Filter:
    if argument not in maps:
        known = did_you_mean(argument, maps) if maps else "; this file has no maps"
        raise ValueError(f'names the table "{argument}", which is not in maps{known}')
    table = maps[argument]
    return _taking(text_of, lambda text: table.get(text, text))


def slug(text: str) -> str:
    """`Crème & Co` -> `creme-co`."""
    plain_letters = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain_letters).strip("-")


def _slug(_argument: str, _maps: object) -> Filter:
    return _taking(text_of, lambda text: slug(text[:1000]) or MISSING)


def domain(text: str) -> Value:
    """The part after the `@` of an address, or the host of a URL."""
    if "://" in text:
        try:
            return urlsplit(text.strip()).hostname or MISSING
        except ValueError:
            return MISSING
    found = re.search(r"@([^\s@<>\"',;/\\]+)>?\s*$", text[-300:])
    return found[1].lower() if found else MISSING


def _hash(_argument: str, _maps: object) -> Filter:
    def apply(value: Value, scope: Scope) -> Value:
        text = text_of(value)
        if not text:
            return MISSING
        return hmac.new(scope.hash_key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]

    return apply


# --------------------------------------------------------------------------------------------------------- dates

_MILLISECONDS_FROM: Final = Decimal(100_000_000_000)  # in seconds this is the year 5138, in milliseconds 1973
_DIRECTIVE: Final = re.compile(r"%(?:[aAbBcdHIjmMpSuUVwWxXyYZzGf%])")


def _date(argument: str, _maps: object) -> Filter:
    form = argument or "%Y-%m-%d"
    if "%" in _DIRECTIVE.sub("", form):
        raise ValueError('needs a format such as "%Y-%m-%d" or "%H:%M"')
    return _taking(instant, lambda moment: moment.strftime(form) or MISSING)


def instant(value: Value) -> datetime | None:
    """The time given as seconds, milliseconds or an ISO 8601 string, in UTC (also if the string has no zone)."""
    exact = number(value)
    try:
        if exact is not None:
            seconds = exact if abs(exact) < _MILLISECONDS_FROM else exact / 1000
            return datetime.fromtimestamp(float(seconds), UTC)
        if not isinstance(value, str):
            return None
        moment = datetime.fromisoformat(value.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


# --------------------------------------------------------------------------------------------------------- table

FILTERS: Final[Mapping[str, FilterKind]] = {
    "money": FilterKind(
        "money:data.currency",
        "minor units as an exact decimal string, by the currency at this path or a three-letter code (`money:USD`):"
        " 4900 → 49.00; yen has no decimals, the Kuwaiti dinar three, the Icelandic króna two",
        _money(major),
        argument=True,
    ),
    "minor": FilterKind("minor:data.currency", "the reverse of `money`: 49.00 → 4900", _money(minor), argument=True),
    "positive": FilterKind("positive", "a number above zero; anything else is missing", _positive),
    "minus": FilterKind(
        "minus:data.before",
        "the number minus the one at this path, exactly (missing counts as 0)",
        _with_number_at(EXACT.subtract),
        argument=True,
    ),
    "plus": FilterKind(
        "plus:data.tax",
        "the number plus the one at this path, exactly (missing counts as 0)",
        _with_number_at(EXACT.add),
        argument=True,
    ),
    "int": FilterKind("int", "the number without its decimals", _int),
    "round": FilterKind("round:2", "rounded half up to this many decimals", _round, argument=True),
    "default": FilterKind("default:unknown", "this value if there is none", _default, argument=True),
    "sum": FilterKind("sum", "of a list: the exact sum of its numbers", lambda _a, _m: _taking(_listed, _sum)),
    "count": FilterKind("count", "of a list: how many elements it has", lambda _a, _m: _taking(_listed, len)),
    "min": FilterKind("min", "of a list: the smallest of its numbers", lambda _a, _m: _extreme(min)),
    "max": FilterKind("max", "of a list: the greatest of its numbers; `max:40`: the first 40 characters", _max, None),
    "first": FilterKind("first", "of a list: its first element", lambda _a, _m: _element(0)),
    "last": FilterKind("last", "of a list: its last element", lambda _a, _m: _element(-1)),
    "join": FilterKind("join", 'of a list: all of it, separated by ", " or by what follows: `join:/`', _join, None),
    "map": FilterKind(
        "map:plans",
        "looked up in the table of this name in `maps:`; a value that is not there stays as it is",
        _map,
        argument=True,
    ),
    "date": FilterKind("date:%Y-%m-%d", "a date in UTC, from seconds, milliseconds or ISO 8601", _date, argument=None),
    "lower": FilterKind("lower", "in lower case", lambda _a, _m: _taking(text_of, str.lower)),
    "upper": FilterKind("upper", "in upper case", lambda _a, _m: _taking(text_of, str.upper)),
    "slug": FilterKind("slug", "made fit for names: `Crème & Co` → creme-co", _slug),
    "domain": FilterKind(
        "domain", "the part of an address after its `@`, or the host of a URL", lambda _a, _m: _taking(text_of, domain)
    ),
    "hash": FilterKind("hash", "16 hex digits that stand for the value (HMAC with a key of this installation)", _hash),
}


def compile_filter(text: str, maps: Mapping[str, Mapping[str, Json]]) -> Filter:
    """Compile `name` or `name:argument`. Raises ValueError with a sentence."""
    name, colon, argument = text.partition(":")
    name, argument = name.strip(), argument.strip()
    kind = FILTERS.get(name)
    if kind is None:
        raise ValueError(f'unknown filter "{name}"' + did_you_mean(name, FILTERS))
    if len(argument) > 1 and argument[0] == argument[-1] == '"' and name not in _TAKE_PATHS:
        argument = argument[1:-1]
    if name == "max" and colon and not argument:
        raise ValueError('filter "max" needs a number after its colon, such as max:40')
    if kind.argument is False and colon:
        raise ValueError(f'filter "{name}" takes no argument')
    if kind.argument is True and not argument and name != "default":
        raise ValueError(f'filter "{name}" needs an argument, such as {kind.usage}')
    try:
        return kind.compile(argument, maps) if name == "map" else _compiled(name, argument)
    except ValueError as error:
        raise ValueError(f'filter "{name}" {error}') from None


@lru_cache(maxsize=500)
def _compiled(name: str, argument: str) -> Filter:
    """Compile a filter once per text, so that rules can be compared; only `map` needs the file's tables."""
    return FILTERS[name].compile(argument, {})
