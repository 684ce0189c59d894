"""What came of a question to Stripe, as a value that knows no SDK."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Json


class Kind(StrEnum):
    """The classes of Stripe's answers, by what they stop."""

    FOUND = "found"  # objects, or an empty list of them
    MISSING = "missing"  # no such object (of this account, in this mode)
    REFUSED = "refused"  # this question is wrong
    PERMISSION = "permission"  # questions about this kind of thing
    ACCOUNT = "account"  # questions about this connected account
    KEY = "key"  # all questions, until the key is fixed
    RATE = "rate"  # all questions, for a while
    UNREACHABLE = "unreachable"  # likewise


@dataclass(frozen=True, slots=True)
class StripeAnswer:
    """message: for people, a sentence of our own (Stripe's would quote the key's end and ids)."""

    kind: Kind
    things: tuple[Mapping[str, Json], ...] = field(default=(), repr=False)
    message: str = ""
    retry_after_ms: int | None = None
