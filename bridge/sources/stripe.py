"""What is Stripe's alone and no data: thin notifications, and the ids of its fixtures.

Its signature, envelope and places are the preset `stripe`, like every other provider's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bridge.model import Json

THIN: Final = (
    "a thin notification of Stripe, which carries no data: give the event destination the payload style `Snapshot`"
)

_ZEROS: Final = re.compile(r"(?:[A-Za-z]+_)*[0-]*0[0-]*")


def is_thin(body: dict[str, Json]) -> bool:
    """`v2.core.event`: type and id of an object, to be fetched; no rule can say anything about it."""
    return body.get("object") == "v2.core.event"


def is_fixture_id(event_id: str) -> bool:
    """`evt_00000000000000`, the id of every trial event of old and of every fixture: it names no event."""
    return _ZEROS.fullmatch(event_id) is not None
