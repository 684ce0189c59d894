"""What an event says about its visitor: the keys of things at the provider, and visitor ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

PEOPLE: Final = ("user", "email")  # kinds of keys that the sources of one website share, by how much they say
_WEAK: Final = frozenset({"customer", *PEOPLE})


@dataclass(frozen=True, slots=True)
class Key:
    """The remembered name of a thing at the provider: `stripe:live:sub_1`, kind `subscription`.

    Strong keys join into one thread of a purchase; weak ones (a customer, a person) only point to visitors.
    sure: False where a person's id stands in a field that may as well hold an order's or an organisation's.
    """

    text: str
    kind: str
    id: str
    sure: bool = field(default=True, compare=False)

    @property
    def strong(self) -> bool:
        return self.kind not in _WEAK

    @property
    def is_person(self) -> bool:
        """Whether it is a person's: a user of the app, or an e-mail address."""
        return self.kind in PEOPLE

    def is_of(self, destination: str) -> bool:
        """Whether it may lead to visitors of this website: people are shared within one website only."""
        owner, _, rest = self.text.partition(":")
        return owner not in PEOPLE or destination in (rest.partition(":")[0], "test")


@dataclass(frozen=True, slots=True)
class NamedVisitor:
    """A visitor that an event names itself.

    sure: not from a bare `client_reference_id`. borrowed: a bare UUID of a field that is not the visitor's, so that it
    may be the app's own user id; it counts where DataFast knows it.
    """

    visitor: str
    path: str
    sure: bool = True
    borrowed: bool = False
