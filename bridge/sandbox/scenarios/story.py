"""The parts of a scenario: steps with their own times, ids from a seed, and the goals that they must produce.

A `Story` is the clock and the notebook of one scenario. It uses no socket, no signature and no real clock: the same
scenario, seed and start produce the same steps, byte for byte.
"""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Object = dict[str, Any]  # a JSON object of a provider

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_ZERO_DECIMAL: Final = frozenset({"jpy", "krw", "clp", "vnd"})
DAY_S: Final = 86_400


def money(minor: int, currency: str) -> str:
    """Minor units in DataFast's format: 4900, usd -> `49.00`."""
    return str(minor) if currency.lower() in _ZERO_DECIMAL else str(Decimal(minor).scaleb(-2))


@dataclass(frozen=True, slots=True)
class Expected:
    """A goal that the shipped mappings must make of a step: its name, its visitor, and metadata that it must have."""

    name: str
    visitor: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One webhook of a scenario.

    at_s: when it happened (its own time); source: the last part of the URL; visitor: the id in its body; goals: what
    the shipped rules must make of it, never anything for a test event; wire: the format of its bytes.
    """

    at_s: int
    source: str
    wire: str  # stripe | lemonsqueezy | standard-webhooks | polar | tally | calcom | clerk
    type: str
    id: str
    body: Object
    visitor: str | None = None
    goals: tuple[Expected, ...] = ()
    test: bool = False


class Ids:
    """Ids in the formats of the providers, from a seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311 - ids for a play, not secrets
        self._account = self.letters(10)

    def letters(self, count: int) -> str:
        return "".join(self._random.choices(_LETTERS, k=count))

    def hex(self, count: int) -> str:
        return "".join(self._random.choices("0123456789abcdef", k=count))

    def number(self, digits: int) -> int:
        return self._random.randrange(10 ** (digits - 1), 10**digits)

    def uuid(self) -> str:
        """A version 4 UUID, the format of DataFast visitor ids."""
        text = self.hex(32)
        variant = self._random.choice("89ab")
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"

    def stripe(self, prefix: str, family: str = "1") -> str:
        """`in_1KJqKBJDPojXS6LNJbvLUgEy`; family 3 is a payment intent and what belongs to it."""
        return f"{prefix}_{family}{self.letters(5)}{self._account}{self.letters(8)}"

    def account(self) -> str:
        return f"acct_1{self.letters(5)}{self._account}"


class Story:
    """The clock and the notebook of one scenario.

    spread: keep the days between two steps; otherwise they are a second apart, so that nothing is too old to be sent.
    """

    def __init__(self, name: str, seed: int, *, start_s: int, spread: bool = True, test: bool = False) -> None:
        self.ids = Ids(f"{name}:{seed}:{'test' if test else 'live'}")
        self.now_s = start_s
        self.test = test
        self.steps: list[Step] = []
        self._spread = spread
        self._visitors: list[str] = []

    def visitor(self) -> str:
        """A new visitor of the website."""
        self._visitors.append(self.ids.uuid())
        return self._visitors[-1]

    def wait(self, *, days: int = 0, hours: int = 0, minutes: int = 0, seconds: int = 0) -> None:
        """Let time pass before the next step."""
        whole = days * DAY_S + hours * 3_600 + minutes * 60 + seconds
        self.now_s += whole if self._spread else min(whole, 1)

    def tell(
        self,
        *,
        source: str,
        wire: str,
        event_type: str,
        event_id: str,
        body: Object,
        goals: Iterable[Expected] = (),
    ) -> None:
        """Record one webhook as it is now; later changes to its objects do not affect it."""
        text = json.dumps(body)
        carried = next((visitor for visitor in self._visitors if visitor in text), None)
        self.steps.append(
            Step(
                at_s=self.now_s,
                source=source,
                wire=wire,
                type=event_type,
                id=event_id,
                body=copy.deepcopy(body),
                visitor=carried,
                goals=() if self.test else tuple(goals),
                test=self.test,
            )
        )
