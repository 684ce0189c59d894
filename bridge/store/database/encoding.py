"""For a PostgreSQL whose encoding lacks characters: each of those is written as an escape, and read back.

Old servers and old dumps make databases in LATIN1 and the like. A character that the encoding has is stored as it is,
as earlier releases wrote it; any other one is U+001A, its number in hex, and ";". The same string is always written in
the same way, so that keys are found. Imported only where the database is PostgreSQL.
"""

from __future__ import annotations

import codecs
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from psycopg import pq
from psycopg.types.string import StrDumperUnknown, TextLoader

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import Buffer

_WHOLE: Final = ("UTF8", "SQL_ASCII")  # the first has every character, the second stores bytes as they come
_MARK: Final = "\x1a"
_ESCAPE: Final = re.compile("\x1a([0-9a-f]{1,6});")
_CODECS: Final = {
    **{f"LATIN{number}": f"iso8859-{part}" for number, part in enumerate((1, 2, 3, 4, 9, 10, 13, 14, 15, 16), 1)},
    **{f"ISO_8859_{part}": f"iso8859-{part}" for part in range(5, 9)},
    **{f"WIN{page}": f"cp{page}" for page in (866, 874, *range(1250, 1259))},
}


def adapt(connection: psycopg.Connection[Any]) -> None:
    """Make a connection write and read every string, if its database could not by itself."""
    name = (connection.pgconn.parameter_status(b"server_encoding") or b"UTF8").decode()
    if name in _WHOLE:
        return
    dumper = _dumper(_CODECS.get(name, "ascii"))
    connection.adapters.register_dumper(str, dumper)
    for kind in ("text", "varchar", "bpchar"):
        connection.adapters.register_loader(kind, _Loader)
        connection.adapters.register_loader(kind, _BinaryLoader)


def escaped(text: str, codec: str) -> str:
    """The string in characters that the encoding has."""
    if text.isascii() and _MARK not in text:
        return text
    return "".join(_escaped(character, codec) for character in text)


def _escaped(character: str, codec: str) -> str:
    if character != _MARK:
        try:
            codecs.encode(character, codec)
        except UnicodeEncodeError:
            pass
        else:
            return character
    return f"{_MARK}{ord(character):x};"


def unescaped(text: str) -> str:
    """What `escaped` was given; a string that it never made stays as it is."""
    return _ESCAPE.sub(lambda found: chr(min(int(found[1], 16), 0x10FFFF)), text) if _MARK in text else text


@cache
def _dumper(codec: str) -> type[StrDumperUnknown]:
    class Escaping(StrDumperUnknown):
        def dump(self, obj: str) -> Buffer | None:
            return super().dump(escaped(obj, codec))

    return Escaping


class _Loader(TextLoader):
    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        return unescaped(text) if isinstance(text, str) else text


class _BinaryLoader(_Loader):
    format = pq.Format.BINARY
