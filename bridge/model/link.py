"""What an event says about its visitor: the keys of things at the provider, and visitor ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """The remembered name of a thing at the provider: `stripe:live:sub_1`, kind `subscription`.

    Strong keys (all but `customer`) join into one thread of a purchase; weak ones only point to visitors.
    """

    text: str
    kind: str
    id: str

    @property
    def strong(self) -> bool:
        return self.kind != "customer"


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
