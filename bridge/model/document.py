"""What a body says: JSON values, a document, and what is read from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


Json: TypeAlias = Any  # what json.loads gives: dict, list, str, int, float, bool, None


class ExactFloat(float):
    """A JSON number with a point or an exponent, whose `repr` is its text: `4.10` stays `4.10` (for `parse_float`)."""

    __slots__ = ("text",)
    text: str

    def __repr__(self) -> str:
        return self.text

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)


class Missing(Enum):
    """What a path reads where nothing is. `null` in a body reads as this, too."""

    MISSING = "missing"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING

VISITOR_PREFIX: Final = "dfv_"  # our snippets write it before the id in a field that is not the visitor's
UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Document:
    """What paths are read from: the body and the roots beside it.

    body: the parsed body (or one element of it, with `each`); root: the whole parsed body;
    header: lower-case names; query: the last value of each parameter;
    envelope: `type`, `id`, `time`, `test`, `account`; key: what identity extracted, kind -> bare id.
    derived: what rules compute of the document when they first need it.
    """

    body: Json
    header: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    envelope: Mapping[str, Json] = field(default_factory=dict)
    key: Mapping[str, str] = field(default_factory=dict)
    root: Json = None
    derived: Derived | None = field(default=None, compare=False, repr=False)


class Derived(Protocol):
    """Of one document: its named values and the document as it was before the change, each computed once."""

    def has(self, name: str) -> bool:
        """Whether `values:` has this name for the document's event type or any other."""

    def value(self, name: str, document: Document) -> Json | Missing:
        """The value of that name. Never raises."""

    def was(self, document: Document) -> Document:
        """The document before the change."""


class Path(Protocol):
    """A compiled path of the rule language (`bridge.rules.language.paths` makes them)."""

    @property
    def text(self) -> str:
        """The path as the user wrote it."""

    def read(self, document: Document) -> Json | Missing:
        """The value there, or MISSING (also for null); an object with an `id` reads as that id. Never raises."""

    def whole(self, document: Document) -> Json | Missing:
        """Like `read`, but an object stays the object, whether it has an `id` or not. Never raises."""
