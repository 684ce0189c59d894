"""`${NAME}` in mapping files, and what counts as a secret.

A missing secret is a state, no fault: the source is off until somebody sets it. As none counts: empty or blank, a bare
`whsec_`, an unset variable, an evident placeholder. Anything else is used as it is. Nothing here shows a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SHORTEST: Final = 6  # characters; no provider gives a shorter secret (Lemon Squeezy takes six)
VARIABLE: Final = re.compile(r"\$\{([A-Za-z0-9_]+)\}", re.ASCII)
_PLACEHOLDER: Final = re.compile(r"(change[-_ ]?me.*|your[-_ ].*|x{3,}.*|<.*>|\.{3,}|…+)", re.IGNORECASE | re.DOTALL)
_BEHIND_WHSEC: Final = re.compile(r"(change[-_ ]?me.*|your[-_ ].*|x{3,}|<.*>|\.{3,}|…+)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Secrets:
    """usable: may be empty; names: the variables they come from; unset: those of them that hold nothing usable."""

    usable: tuple[str, ...]
    names: tuple[str, ...]
    unset: tuple[str, ...]
    literal: bool = False  # one stands in the file itself


def is_secret(text: str) -> bool:
    """Whether a text can be meant as a secret."""
    text = text.strip()
    prefix, found, rest = text.partition("whsec_")
    if found and prefix in ("", "v1,"):
        return not _BEHIND_WHSEC.fullmatch(rest)
    return bool(text) and not _PLACEHOLDER.fullmatch(text)


def secrets(entries: Iterable[str], environ: Mapping[str, str]) -> Secrets:
    """Read the entries of `secret:`; a variable may hold several, separated by commas or blanks."""
    usable: list[str] = []
    names: list[str] = []
    unset: list[str] = []
    literal = False
    for entry in entries:
        variables = VARIABLE.findall(entry)
        names += variables
        literal = literal or not variables
        text = (expand(entry, environ) or "").replace("v1,whsec_", "whsec_")  # that comma separates nothing
        good = _several(text) if variables else [text.strip()] if is_secret(text) else []
        usable += good
        unset += [] if good else variables
    return Secrets(_distinct(usable), _distinct(names), _distinct(unset), literal)


def _several(text: str) -> list[str]:
    """The secrets in a variable's text. A pass phrase or a PEM key is one, though it holds blanks.

    `It's a Secret to Everybody`, cut into pieces, would verify what anybody signed with `a`. A text that begins like a
    placeholder is one as a whole (`your secret here`) unless commas separate it: `changeme,whsec_…`.
    """
    if not is_secret(text):
        return [secret for piece in text.split(",") if is_secret(piece) for secret in _several(piece)]
    pieces = [piece for piece in re.split(r"[\s,]+", text.strip()) if is_secret(piece)]
    if "-----BEGIN" in text or any(len(piece) < SHORTEST for piece in pieces):
        return [text.strip()]
    return pieces


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def expand(text: str, environ: Mapping[str, str]) -> str | None:
    """The text with its variables filled in; None if one of them is unset or blank."""
    if any(not environ.get(name, "").strip() for name in VARIABLE.findall(text)):
        return None
    return VARIABLE.sub(lambda match: environ[match[1]].strip(), text)


def variables(text: str) -> tuple[str, ...]:
    return tuple(VARIABLE.findall(text))


def malformed(text: str) -> bool:
    """Whether a `${` is written that is no variable."""
    return "${" in VARIABLE.sub("", text)
