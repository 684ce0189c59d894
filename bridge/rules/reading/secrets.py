"""`${NAME}` in mapping files, and what counts as a secret.

A variable holds one secret, whatever its value; it holds several only if each piece has the form of the provider's
secrets (`whsec_…`). `<NAME>_OLD` holds a second one while a secret is being changed. An empty or unset variable and a
placeholder (`changeme`) are temporary: the secret may be filled in at any minute. A value that is evidently not a
secret (for example, with quotes around it) is a problem. Neither verifies anything. Nothing here shows a secret or a
part of one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from bridge.rules.reading.report import Reporter

OLD: Final = "_OLD"  # suffix of a variable's name: the secret before this one
VARIABLE: Final = re.compile(r"\$\{([A-Za-z0-9_]+)\}", re.ASCII)
_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
_PLACEHOLDER: Final = re.compile(r"(change[-_ ]?me.*|your[-_ ].*|x{3,}.*|<.*>|\.{3,}|…+)", re.IGNORECASE | re.DOTALL)
_PLACEHOLDER_AFTER_PREFIX: Final = re.compile(
    r"(change[-_ ]?me.*|your[-_ ].*|x{3,}|<.*>|\.{3,}|…+)?", re.IGNORECASE | re.DOTALL
)
_WORDS: Final = re.compile(r"undefined|null|\(null\)|none|nil|nan|\[object Object\]", re.IGNORECASE)
_REFERENCE: Final = re.compile(
    r"\$[A-Z_][A-Z0-9_]*|\$?\{\{.*\}\}|\$\{[^{}]*\}|\$\([A-Z_][A-Z0-9_]*\)|\$env:\w+|%[A-Z_][A-Z0-9_]*%",
    re.ASCII | re.DOTALL,
)  # in a shell, a template, PowerShell, cmd.exe
_ASSIGNMENT: Final = re.compile(r"(?:export\s+|set\s+)?([A-Za-z_]\w*)\s*[=:]\s*(.*)", re.ASCII | re.DOTALL)
_QUOTES: Final = "\\\"'`“”„«»\u2018\u2019\u201a"  # and the backslashes before them in JSON
_INVISIBLE: Final = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that are invisible
_UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Zs", "Zl", "Zp", "Mn", "Me"})
_SHORTEST: Final = 6  # the shortest secret for the previous release
_SEPARATORS: Final = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets in the entries of `secret:`.

    - usable: may be empty.
    - names: the variables they come from.
    - unset: those variables that are empty or unset.
    - problems: a sentence for each value that is evidently not a secret, without any part of it.
    - placeholders: such sentences for values that have yet to be filled in.
    """

    usable: tuple[str, ...] = field(repr=False)
    names: tuple[str, ...]
    unset: tuple[str, ...]
    problems: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()
    literal: bool = False  # one is written in the file itself
    old: frozenset[int] = frozenset()  # positions (from 1) of the usable ones that come from `<NAME>_OLD`


def is_secret(text: str) -> bool:
    """Whether a value can be meant as a secret: it is not empty and not a placeholder."""
    text = text.strip()
    prefix, found, rest = text.partition("whsec_")
    if found and prefix in ("", "v1,"):
        return not _PLACEHOLDER_AFTER_PREFIX.fullmatch(rest)
    return bool(text) and not _PLACEHOLDER.fullmatch(text)


def secrets(entries: Iterable[str], environ: Mapping[str, str], forms: Sequence[str] = ()) -> Secrets:
    """Read the entries of `secret:`. forms: prefixes of the provider's own secrets, if these are certain."""
    usable: list[str] = []
    names: list[str] = []
    unset: list[str] = []
    problems: list[str] = []
    placeholders: list[str] = []
    old: set[str] = set()
    literal = False
    for entry in entries:
        found = variables(entry)
        literal = literal or not found
        unset += [name for name in found if not environ.get(name, "").strip()]
        names += found
        for reading in (entry, *_old(entry, environ)):
            text, read = expand(reading, environ), variables(reading)
            names += [name for name in read if name not in found]
            if text is None or not text.strip():
                continue
            sentence, is_placeholder = _refusal(reading, text.strip(), environ, forms)
            if sentence:
                (placeholders if is_placeholder else problems).append(sentence)
                continue
            pieces = _pieces(text.strip(), forms)
            old |= set() if reading is entry else set(pieces).difference(usable)
            usable += pieces
    sentences = _distinct(problems), _distinct(placeholders)
    return Secrets(
        _distinct(usable),
        _distinct(names_to_show(names, environ)),
        _distinct(names_to_show(unset, environ)),
        *sentences,
        literal=literal,
        old=frozenset(number for number, secret in enumerate(_distinct(usable), 1) if secret in old),
    )


def _old(entry: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The entry with `<NAME>_OLD` for every variable that has one; empty if none has."""
    old = VARIABLE.sub(lambda found: f"${{{found[1]}{_old_name(found[1], environ)}}}", entry)
    return () if old == entry else (old,)


def _old_name(name: str, environ: Mapping[str, str]) -> str:
    return OLD if environ.get(name + OLD, "").strip() else ""


def _pieces(text: str, forms: Sequence[str]) -> list[str]:
    """Several secrets only if each has the provider's form: a split pass phrase would verify by each of its words."""
    several = _several(text, forms)
    return several or [_without_version(text)]


def _several(text: str, forms: Sequence[str]) -> list[str]:
    pieces = _separated(text)
    return pieces if all(_has_form(piece, forms) for piece in pieces) else []


def _separated(text: str) -> list[str]:
    """The pieces between commas and white space, without placeholders."""
    return [piece for piece in _SEPARATORS.split(_without_version(text)) if is_secret(piece)]


def _has_form(text: str, forms: Sequence[str]) -> bool:
    return text.startswith(tuple(forms))


def _without_version(text: str) -> str:
    """`v1,whsec_…` as Supabase shows it: this comma separates nothing."""
    return text.replace("v1,whsec_", "whsec_").replace("v1a,whpk_", "whpk_")


# --------------------------------------------------------------------------------------- what is evidently not a secret


def _refusal(entry: str, text: str, environ: Mapping[str, str], forms: Sequence[str]) -> tuple[str, bool]:
    """Why this value cannot be a secret, and what to do about it, as a sentence; empty if it can be one.

    Also returns whether it is a placeholder, which has yet to be filled in.
    """
    names = variables(entry)
    subject = " and ".join(names_to_show(names, environ)) or "the secret in the file"
    values = dict.fromkeys((text, *(environ[name].strip() for name in names)))
    pieces = [piece for value in values for piece in _several(value, forms) or [value]]
    for piece in pieces:
        found = _mistake(piece, names, forms)
        if found:
            return f"{subject} {found}", False
    if any(_is_placeholder(piece, forms) for piece in pieces):
        return f"{subject} holds a placeholder: put the secret itself there", True
    old = f"{names[0].removesuffix(OLD)}{OLD}" if names else None
    if old is not None and _was_split(text, forms) and environ.get(old, "").strip() != text:
        sentence = (
            f"{subject} holds a comma and is one secret now, no longer several: keep the new one there and put the old"
            f" one into {old} (if the comma belongs to the one secret, set both variables to it)"
        )
        return sentence, False
    return _mixed(text, subject, old, forms) or "", False


def _mistake(text: str, names: Sequence[str], forms: Sequence[str]) -> str | None:
    """The rest of a sentence that begins with the variable's name; None if nothing is evidently wrong."""
    own = {*names, *(name.removesuffix(OLD) for name in names)}
    bare = _without_form(text, forms)
    if not any(_is_visible(character) for character in text):
        return "holds nothing visible: paste the secret again"
    if _is_quoted(text, forms):
        return "has quotes around its value: remove them"
    if _is_assignment(text, own, forms):
        return "holds the name of a variable as well: keep only the secret"
    if text in own or _REFERENCE.fullmatch(bare):
        return "holds the name of a variable instead of a value: put the secret itself there"
    if _WORDS.fullmatch(bare):
        return "holds a word that stands for no value: put the secret itself there"
    if len(bare) > 2 and len(set(bare)) == 1:
        return "holds one character, repeated: put the secret itself there"
    return None


def _is_placeholder(text: str, forms: Sequence[str]) -> bool:
    bare = _without_form(text, forms)
    return (
        not _separated(text)
        or not is_secret(text)
        or (bare != text and bool(_PLACEHOLDER_AFTER_PREFIX.fullmatch(bare)))
    )


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in _UNSEEN_CATEGORIES and character not in _INVISIBLE


def _is_quoted(text: str, forms: Sequence[str]) -> bool:
    """Whether there are quotes at both ends; next to a secret of the provider's form, one is enough."""
    bare = text.strip(_QUOTES)
    both = text[0] in _QUOTES and text[-1] in _QUOTES and len(text) > 1
    return bare != text and (both or _has_form(bare, forms))


def _is_assignment(text: str, own: AbstractSet[str], forms: Sequence[str]) -> bool:
    """Whether this is `NAME=…` with one of its own names, or any name before a secret of the provider's form."""
    match = _ASSIGNMENT.match(text)
    return match is not None and (match[1] in own or _has_form(match[2].lstrip(_QUOTES), forms))


def _without_form(text: str, forms: Sequence[str]) -> str:
    return next((text.removeprefix(form) for form in forms if text.startswith(form)), text)


def _mixed(text: str, subject: str, old: str | None, forms: Sequence[str]) -> str | None:
    """A sentence if only some pieces have the provider's form: as one secret, they would verify nothing."""
    pieces = _separated(text)
    fitting = sum(_has_form(piece, forms) for piece in pieces)
    if fitting in (0, len(pieces)):
        return None
    form = " or ".join(f"{form}…" for form in forms)
    advice = f"keep one secret there, and put the one before it into {old}" if old else "write one secret there"
    found = f"{len(pieces)} values, of which only {fitting} can be secrets of this provider ({form})"
    return f"{subject} holds {found}: {advice}"


def _was_split(text: str, forms: Sequence[str]) -> bool:
    """Whether the previous release split this value at a comma, although it is one secret now."""
    return "," in text and not _several(text, forms) and _former_pieces(_without_version(text)) != _pieces(text, forms)


def _former_pieces(text: str) -> list[str]:
    if not is_secret(text):
        return [secret for piece in text.split(",") if is_secret(piece) for secret in _former_pieces(piece)]
    pieces = _separated(text)
    if "-----BEGIN" in text or any(len(piece) < _SHORTEST for piece in pieces):
        return [text.strip()]
    return pieces


# ------------------------------------------------------------------------------------------------------------ variables


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def expand(text: str, environ: Mapping[str, str]) -> str | None:
    """The text with its variables expanded; None if one of them is unset or empty."""
    if any(not environ.get(name, "").strip() for name in VARIABLE.findall(text)):
        return None
    return VARIABLE.sub(lambda match: environ[match[1]].strip(), text)


def variables(text: str) -> tuple[str, ...]:
    """The names of the variables in a string."""
    return tuple(VARIABLE.findall(text))


def names_to_show(names: Iterable[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables as messages may show them: `${whsec_…}` is a secret that somebody wrote instead of its name."""
    return tuple(name if name in environ or _NAME.fullmatch(name) else "${…}" for name in names)


def refuse_malformed(text: str, problem: Reporter) -> None:
    """Report a `${` that does not begin a variable."""
    if "${" in VARIABLE.sub("", text):
        problem((), "a variable is written ${NAME}, with letters, digits and _")
