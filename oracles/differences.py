"""Every verdict in which a provider's library and the bridge differ, by name and with the reason: there are no others.

A difference that is gone is as wrong as a new one: what stands here must be true.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final


@dataclass(frozen=True, slots=True)
class Difference:
    preset: str
    library: str
    cases: tuple[str, ...]  # names, or patterns of names: of those, the cases that the two judge alike are as expected
    bridge: bool  # what the bridge says; the library says the opposite
    why: str


_NO_AGE: Final = (
    "the library does not check the time; the bridge refuses one that is 300 s off, so that nobody can repeat a request"
)
_NO_FUTURE: Final = "the library accepts a time in the future; the bridge checks both directions"
_NO_VERSION: Final = "the library ignores the version before a signature; the scheme has only v1 for a shared secret"

DIFFERENCES: Final = (
    Difference("stripe", "stripe", ("310 s ahead",), bridge=False, why=_NO_FUTURE),
    Difference("hubspot-v3", "hubspot v3", ("310 s ahead",), bridge=False, why=_NO_FUTURE),
    Difference("discord", "discord", ("310 s old", "310 s ahead"), bridge=False, why=_NO_AGE),
    Difference("sendgrid", "sendgrid", ("310 s old", "310 s ahead"), bridge=False, why=_NO_AGE),
    Difference("replicate", "replicate", ("310 s old", "310 s ahead"), bridge=False, why=_NO_AGE),
    Difference("replicate", "replicate", ("only of a version that does not exist",), bridge=False, why=_NO_VERSION),
    Difference("resend", "resend", ("only of a version that does not exist",), bridge=False, why=_NO_VERSION),
    Difference(
        "paddle",
        "paddle",
        ("290 s old", "290 s ahead"),
        bridge=True,
        why="the library allows 5 s; the bridge allows 300 s, because a clock that is 6 s off would lose every sale",
    ),
    Difference(
        "clerk",
        "clerk",
        ("webhook-*",),
        bridge=True,
        why="the library reads only the svix-* headers; the bridge reads both names of the same signature",
    ),
    Difference(
        "supabase-auth",
        "standardwebhooks",
        ("the first of two signatures", "the second of two signatures"),
        bridge=True,
        why="Supabase writes a comma between signatures (supabase/auth, hookshttp.go);"
        " the scheme's library does not accept it",
    ),
    Difference(
        "openai",
        "openai",
        ("no whsec_: *",),
        bridge=False,
        why="the library uses a secret without whsec_ as the key itself; OpenAI issues no such secret",
    ),
    Difference(
        "linear",
        "linear",
        ("time in the header alone: *",),
        bridge=True,
        why="Linear signs a time in every body;"
        " without one, the library refuses the request and the bridge uses the header's",
    ),
)


def difference(preset: str, library: str, case: str) -> Difference | None:
    """What is known of this case, if anything is."""
    for known in DIFFERENCES:
        if (known.preset, known.library) == (preset, library) and any(
            fnmatchcase(case, pattern) for pattern in known.cases
        ):
            return known
    return None
