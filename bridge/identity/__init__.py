"""Events → the keys and the visitor they name. Pure: what is remembered is in `bridge.store.links.learning`.

- `keys`, `key`, `by_kind`: the keys of an event
- `Matching`, `live_twins`, `owners`: the people among them
- `binding`, `visitor_to_bind`: a key and a visitor that a person or a site binds
- `linking_types`: the event types worth enabling for their links
- `candidates`: the values that may be its visitor; `judge`, `ranked`: which of them are
- `provenance`, `waiting`, `unattributed`: how a visitor was found, or why none was, in a sentence for a person
"""

from bridge.identity.keys import (
    BadBinding,
    JudgedCandidate,
    binding,
    by_kind,
    candidates,
    judge,
    key,
    keys,
    linking_types,
    ranked,
    visitor_to_bind,
)
from bridge.identity.people import Matching, live_twins, owners
from bridge.identity.sentences import provenance, unattributed, waiting

__all__ = [
    "BadBinding", "JudgedCandidate", "Matching", "binding", "by_kind", "candidates", "judge", "key", "keys",
    "linking_types", "live_twins", "owners", "provenance", "ranked", "unattributed", "visitor_to_bind", "waiting",
]  # fmt: skip
