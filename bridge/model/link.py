"""A key is the remembered name of a thing of the provider."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """A remembered name of a thing of the provider: `stripe:live:sub_1`, kind `subscription`.

    Strong keys (all but `customer`) join into one thread of a purchase; weak ones only point to visitors.
    """

    text: str
    kind: str
    id: str

    @property
    def strong(self) -> bool:
        return self.kind != "customer"
