"""What is Stripe's alone and no data: thin notifications, and the ids of its fixtures.

Its signature, envelope and places are the preset `stripe`, like every other provider's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bridge.model import Json

THIN: Final = (
    "a thin notification of Stripe, which carries no data: give the event destination the payload style `Snapshot`"
)


def is_thin(body: dict[str, Json]) -> bool:
    """`v2.core.event`: type and id of an object, to be fetched; no rule can say anything about it."""
    return body.get("object") == "v2.core.event"
