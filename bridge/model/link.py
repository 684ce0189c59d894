"""What joins events to visitors: the `Key` of a thing or a person, and the `NamedVisitor` that an event names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

VISITOR_PREFIX: Final = "dfv_"  # our snippets write it before the id in a field that is not the visitor's
UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
PERSON_KINDS: Final = ("user", "email")  # of keys that the sources of one website share, the more informative first
_WEAK: Final = frozenset({"customer", *PERSON_KINDS})


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
        """Whether it identifies a person: a user of the app, or an e-mail address."""
        return self.kind in PERSON_KINDS

    def applies_to(self, destination: str) -> bool:
        """Whether it may lead to visitors of this website: people are shared within one website only."""
        owner, _, rest = self.text.partition(":")
        return owner not in PERSON_KINDS or destination in (rest.partition(":")[0], "test")


@dataclass(frozen=True, slots=True)
class NamedVisitor:
    """A visitor named by the event itself.

    sure: it is not from a bare `client_reference_id`. borrowed: it is a bare UUID from a field that is not the
    visitor's, so it may be the app's own user id; it counts where DataFast knows it.
    """

    visitor: str
    path: str
    sure: bool = True
    borrowed: bool = False
