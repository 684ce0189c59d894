"""What DataFast accepts in a goal or a payment, as pure functions: names, keys, values and their number.

DataFast never refuses what passes here (facts from the destination's contract, section 2). Lengths are counted as
DataFast counts them, in UTF-16 units. Strings in files are checked (ValueError with the end of a sentence); values at
run time are adapted, with notes for the trace.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge.text import storable

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME_MAX: Final = 64
KEY_MAX: Final = 64
VALUE_MAX: Final = 255
KEYS_MAX: Final = 10

_AUTOMATIC: Final = "DataFast makes this goal itself when the payment provider is connected, so it would count twice"
RESERVED: Final = {
    "identify": "DataFast uses this name itself and refuses it",
    "payment": _AUTOMATIC,
    "free_trial": _AUTOMATIC,
    "trial_started": _AUTOMATIC,
    "subscription_started": _AUTOMATIC,
    "subscription_renewed": _AUTOMATIC,
    "subscription_ended": _AUTOMATIC,
}

_NAME_CHARACTER: Final = re.compile(r"[a-z0-9_:-]")
_NAME: Final = re.compile(r"[a-z0-9_:-]+")
_NOT_IN_NAME: Final = re.compile(r"[^a-z0-9_:-]+")
_FOLDED_MAX: Final = 1_000  # characters; an event's type has fewer
# Letters that Unicode does not decompose into a base letter and an accent.
_LETTERS: Final = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "\u0131": "i"}
)
_NOT_IN_KEY: Final = re.compile(r"[^a-z0-9_-]")
_REMOVED: Final = re.compile(r"[<>'\"&]")
_SCRIPT: Final = re.compile(r"javascript:", re.IGNORECASE)
_HANDLER: Final = re.compile(r"on\w+=", re.IGNORECASE | re.ASCII)
_PLAIN: Final = re.compile(r"[\w.-](?:[\w. -]{0,200}[\w.-])?", re.ASCII)  # most values, which stay unchanged
_SUSPICIOUS: Final = re.compile(r"[<>'\"&:=]")  # if a value has none of these, nothing is removed


def length(text: str) -> int:
    """The length as DataFast counts it: characters beyond the basic plane count as two."""
    return len(text) if text.isascii() else len(text) + sum(character > "\uffff" for character in text)


def cut(text: str, most: int) -> str:
    """The longest prefix of at most this length."""
    text = text[:most]
    while length(text) > most:
        text = text[:-1]
    return text


def goal_name(text: str) -> str:
    """The name as DataFast stores it: trimmed, lower-case, white space as `_`. ValueError says what is wrong."""
    name = _normalised(text)
    check_goal_length(name)
    check_goal_letters(name)
    if not name:
        raise ValueError("a goal needs a name")
    if name in RESERVED:
        raise ValueError(f'goal name "{name}" is reserved: {RESERVED[name]}; choose another')
    return name


def check_goal_length(text: str) -> None:
    """Raise ValueError if a goal name, or the literal part of a template for one, is too long."""
    if length(text) > NAME_MAX:
        raise ValueError(
            f'goal name "{cut(text, 30)}…" has {length(text)} characters; DataFast takes at most {NAME_MAX}'
        )


def check_goal_letters(text: str) -> None:
    """Raise ValueError unless a goal name may contain this string (a name, or a piece of a template)."""
    wrong = sorted({c for c in _normalised(text, trim=False) if not _NAME_CHARACTER.fullmatch(c)})
    if wrong:
        shown = " ".join(wrong[:5])
        raise ValueError(f'goal name "{cut(text, 40)}" contains {shown}; only a-z, 0-9, "_", "-" and ":" are allowed')


def fit_goal_name(text: str) -> tuple[str, tuple[str, ...]]:
    """Adapt a name made at run time; return it and the changes. ValueError if no character of it is allowed in a name.

    A name that DataFast accepts stays as it is. Any other is folded: `user.signup` -> user_signup, `Käufer` -> kaufer.
    """
    name = _normalised(text)
    if not _NAME.fullmatch(cut(name, NAME_MAX)):
        name = _folded(text)
        if not name:
            raise ValueError(f'"{cut(storable(text).strip(), 40)}" has no letter or digit that a goal name can hold')
    if length(name) <= NAME_MAX:
        return goal_name(name), ()
    return goal_name(cut(name, NAME_MAX)), (f"the goal's name was cut to {NAME_MAX} characters",)


def _folded(text: str) -> str:
    """The letters in lower case without accents; each run of other characters becomes `_`, with none at the ends."""
    plain = unicodedata.normalize("NFKD", text[:_FOLDED_MAX].casefold()).translate(_LETTERS)
    bare = "".join(character for character in plain if not unicodedata.combining(character))
    name = _NOT_IN_NAME.sub("_", bare).strip("_")
    return name if len(name) <= NAME_MAX or name[NAME_MAX - 1] != "_" else name[:NAME_MAX].rstrip("_")


def _normalised(text: str, *, trim: bool = True) -> str:
    return re.sub(r"\s", "_", (text.strip() if trim else text).lower())


@lru_cache(maxsize=1_000)
def metadata_key(text: str) -> str:
    """The key in DataFast's form: lower-case, other characters as `_`, at most 64. ValueError if nothing is left."""
    key = _NOT_IN_KEY.sub("_", text.strip().lower())[:KEY_MAX]
    if not key:
        raise ValueError("a metadata key is empty")
    return "event_name" if key == "eventname" else key


def check_metadata_key(text: str) -> None:
    """Raise ValueError unless DataFast accepts this key from a file as it is (in lower case)."""
    if len(text) > KEY_MAX:
        raise ValueError(f'metadata key "{text[:30]}…" has {len(text)} characters; DataFast takes at most {KEY_MAX}')
    fitting = metadata_key(text)
    if text.lower() == "eventname":
        raise ValueError(f'metadata key "{text}" is dropped by DataFast; write "{fitting}"')
    if text.lower() != fitting:
        raise ValueError(
            f'metadata key "{text}" may hold only a-z, 0-9, "_" and "-"; write "{fitting}"',
        )


def clean_value(text: str) -> str:
    """The part of a metadata value that DataFast would keep: cut, without certain characters and scripts, trimmed.

    The result does not change if cleaned again, although removing one script may have joined another.
    """
    if _PLAIN.fullmatch(text):
        return text
    short = cut(storable(text), VALUE_MAX)
    if _SUSPICIOUS.search(short) is None:
        return short.strip()
    kept = _HANDLER.sub("", _SCRIPT.sub("", _REMOVED.sub("", short))).strip()
    return kept if kept == short else clean_value(kept)


def fit_description(text: str) -> tuple[str, tuple[str, ...]]:
    """Fit a description like a value: a read-back compares it, so it must come back as it was sent."""
    cleaned = clean_value(text)
    return cleaned, _value_notes("the description", text, cleaned)


def fit_metadata(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The first ten entries, in the rule's order and DataFast's form, and what was changed."""
    fitted: dict[str, str] = {}
    notes: list[str] = []
    dropped: list[str] = []
    for name, text in pairs:
        try:
            key = metadata_key(name)
        except ValueError:
            notes.append("an entry without a key was left out")
            continue
        value = clean_value(text)
        if not value:
            if text:
                notes.append(f"{key} was left out: DataFast keeps nothing of its value")
            continue
        if key in fitted:
            notes.append(f"{storable(name)[:KEY_MAX]} was left out: another entry became the key {key}")
        elif len(fitted) == KEYS_MAX:
            dropped.append(key)
        else:
            fitted[key] = value
            if value != text:
                notes += _value_notes(key, text, value)
    if dropped:
        more = f" and {len(dropped) - 5} more" if len(dropped) > 5 else ""
        notes.append(f"{', '.join(dropped[:5])}{more} left out: DataFast takes {KEYS_MAX} entries")
    return fitted, tuple(notes[:20])


def _value_notes(name: str, text: str, cleaned: str) -> tuple[str, ...]:
    if length(text) > VALUE_MAX:
        return (f"{name} was cut to {VALUE_MAX} characters",)
    if cleaned != text.strip():
        return (f"{name} lost characters that DataFast removes (< > ' \" & and scripts)",)
    return ()


# ----------------------------------------------------------------------------------------------------- payments

PAYMENT: Final = "payment"  # a payment's name among goals, which no goal can have; also its kind
PAYMENT_NEEDS: Final = ("amount", "currency", "transaction_id")
PAYMENT_FLAGS: Final = ("renewal", "refunded", "is_free_trial")
_AMOUNT: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", re.ASCII)
_CURRENCY: Final = re.compile(r"[A-Z]{3}", re.ASCII)
_YES: Final = frozenset({"true", "1", "yes"})
_NO: Final = frozenset({"false", "0", "no"})


def payment_field(name: str, text: str) -> str:
    """One field of a payment as it is sent, as a string. ValueError says what is not allowed."""
    text = storable(text).strip()
    if name == "amount":
        if not _AMOUNT.fullmatch(text):
            raise ValueError(
                f'the amount of a payment is a number of zero or more such as 29.00, not "{cut(text, 40)}"'
            )
        return text
    if name == "currency":
        if not _CURRENCY.fullmatch(text.upper()):
            raise ValueError(f'the currency of a payment is three letters such as USD, not "{cut(text, 40)}"')
        return text.upper()
    if name in PAYMENT_FLAGS:
        if text.lower() not in _YES | _NO:
            raise ValueError(f'{name} of a payment is true or false, not "{cut(text, 40)}"')
        return "true" if text.lower() in _YES else "false"
    if not text or length(text) > VALUE_MAX:
        raise ValueError(f"{name} of a payment has 1 to {VALUE_MAX} characters, not {length(text)}")
    return text


def fit_payment(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The fields of a payment as they are sent, and what was left out. ValueError if a required one is wrong."""
    fitted: dict[str, str] = {}
    notes: list[str] = []
    for name, text in pairs:
        try:
            value = payment_field(name, text)
        except ValueError as error:
            if name in PAYMENT_NEEDS:
                raise
            notes.append(f"{name} was left out: {error}")
            continue
        if value != "false" or name not in PAYMENT_FLAGS:
            fitted[name] = value
    return fitted, tuple(notes)
