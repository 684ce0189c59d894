"""Recognise what must not be stored or shown: secrets, by the words in their names, and passwords in URLs.

A name is split at digits, at the humps of camelCase and at everything that is not a letter or digit; joined words
(`webhookkey`) are split if each part is known. `monkey` and `signed_up` are not secrets, and neither is a name that
only describes one (`token_count`, `signature_version`). Pure; nothing here raises.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HIDDEN: Final = "…"

_LONGEST_NAME: Final = 200
_LONGEST_WORD: Final = 40  # characters; a longer word is not split
_PIECES: Final = re.compile(r"[^\W_]+")
_WORDS: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+", re.ASCII)
_LETTERS: Final = re.compile(r"[a-z]+", re.ASCII)

# A name with one of these is a secret, in a body as well as in headers and parameters.
_PLAIN: Final = frozenset(
    """
    token secret secrets password passwords passwd passphrase passcode pwd pswd signature signatures hmac jwt jws jwe
    otp totp authorization authorisation bearer cookie cookies credential credentials creds apikey dpop csrf xsrf
    """.split()  # noqa: SIM905 - a list of words is read more easily
)
# Secrets only in headers and parameters, where an omitted value is not missed.
_OUTSIDE_BODY: Final = frozenset(
    """
    tokens auth oauth authentication authenticity session sess sessid phpsessid jsessionid sid sig cred mfa tfa oidc
    saml sso pw
    """.split()  # noqa: SIM905
)
_LAST: Final = frozenset({"sign", "mac", "pin", "pass"})  # only as the last word: not `sign_up`, not `pin_color`
_OPENING: Final = frozenset(
    """
    access account admin api app auth client consumer encryption hook master merchant private secret security
    server service shared signing webhook
    """.split()  # noqa: SIM905
)  # together with one of these, a key gives access
_NAMING: Final = frozenset(
    """
    cache dedup dedupe deduplication delivery entity event foreign idempotency identifier issue lookup message object
    partition primary project public publishable record resource routing sort surrogate
    """.split()  # noqa: SIM905
)  # together with one of these, a key is only a name
_CONFIRMING: Final = frozenset({"access", "auth", "pin", "recovery", "security", "verif", "verification", "verify"})
_ABOUT: Final = frozenset(
    """
    alg algorithm amount at balance count counts date enabled expired expires expiry expiration headers in length
    limit max method min on price required size status symbol time timestamp total type usage used valid verified
    version
    """.split()  # noqa: SIM905
)  # as the last word: the name only describes a secret
_PARTS: Final = (
    _PLAIN
    | _OUTSIDE_BODY
    | _OPENING
    | frozenset(
        """
        amz aws bot code current db dev developer device email fn function functions hash hub id key keys kofi license
        live login my new old partner proxy refresh request secure sha site subscription test user value verify web
        """.split()  # noqa: SIM905
    )
)
_LONG: Final = re.compile(
    r"token(?!i[sz])|secret(?!ar)|passw(?:or)?d|signature|credential|authori[sz]ation|cookie|apikey|hmac"
)


# Personal fields: those with one of these words in the name, or with any name inside an object about a person.
_PERSONAL: Final = frozenset(
    """
    email emails mail phone phones telephone tel mobile fax firstname lastname fullname surname forename nickname
    username street street1 street2 postcode postal zip zipcode city ip birthday birthdate dob passport iban ssn
    latitude longitude avatar
    """.split()  # noqa: SIM905
)
_ROLES: Final = frozenset(
    """
    attendee author bill billing buyer card cardholder client contact custom customer donor first full given guest
    hidden holder
    invitee last lead member middle organizer owner parent payer person profile recipient responder ship shipping
    student subscriber supporter user visitor
    """.split()  # noqa: SIM905
)
_TOPIC: Final = frozenset({"label", "question", "type", "field", "ref", "key"})  # keys that say what an answer is about
_TYPED_IN: Final = frozenset("answer input long paragraph question short text textarea your".split())  # noqa: SIM905
_TELEPHONE_NUMBER: Final = re.compile(r"\s*\+\d[\d\s().-]{7,20}\d\s*")
_PLACES: Final = frozenset({"address", "addresses", "geo", "location"})
_NOT_PLACES: Final = frozenset({"country", "currency", "id", "type", "object"})


@lru_cache(maxsize=4_096)
def names_person(name: str, within: str = "") -> bool:
    """Whether a field says who somebody is or where they live. within: the name of the object around it."""
    words, around = frozenset(_words(name[:_LONGEST_NAME])), frozenset(_words(within[:_LONGEST_NAME]))
    around |= {word.removesuffix("s") for word in around}
    if words & _PERSONAL and not words & {"id", "verified", "count", "type", "check", "checks"}:
        return True
    if around & _PLACES or words & _PLACES:
        return not words & _NOT_PLACES
    return bool(words & {"name", "names"} and (words | around) & _ROLES)


def describes_person(thing: Mapping[str, Any]) -> bool:
    """Whether an object describes a person, so that its `name` is personal: it also has an e-mail address."""
    return any(_words(name[:_LONGEST_NAME])[:1] in (("email",), ("mail",)) for name in thing)


def is_typed_in(thing: Mapping[str, Any]) -> bool:
    """Whether an object is a form field filled in by a person: free text, or who they are.

    Hidden fields do not count: the site itself fills them in.
    """
    if not thing.keys() & {"value", "answer", "text"}:
        return False
    about = {name: value for name, value in thing.items() if name in _TOPIC and isinstance(value, str)}
    words = {word for value in about.values() for word in _words(value[:_LONGEST_NAME])}
    if "hidden" in words:
        return False
    return bool(about) and ("question" in about or bool(words & (_TYPED_IN | _PERSONAL | {"name"})))


def is_telephone_number(text: str) -> bool:
    """Whether a string is a telephone number with a country code: `+49 151 23456789`."""
    return _TELEPHONE_NUMBER.fullmatch(text) is not None


@lru_cache(maxsize=4_096)
def names_secret(name: str, *, in_body: bool = False) -> bool:
    """Whether a field with this name is a secret. in_body: it is in a body, where only unambiguous names count."""
    if len(name) > _LONGEST_NAME:
        return True  # no real field has such a name
    words = _words(name)
    if not words or words[-1] in _ABOUT:
        return False
    if any(word in _PLAIN or _LONG.search(word) for word in words if word != "tokens"):
        return True
    found = frozenset(words)
    if found & {"key", "keys"} and found & _OPENING:
        return True
    return not in_body and _gives_access(words, found)


@lru_cache(maxsize=4_096)
def path_is_secret(path: str) -> bool:
    """Whether a trace must not show the value at a path: `header.x-webhook-key`, `data.verification_token`."""
    root, _, name = path.partition(".")
    return names_secret(name, in_body=False) if root in ("header", "query") else names_secret(path, in_body=True)


def _gives_access(words: tuple[str, ...], found: frozenset[str]) -> bool:
    if found & _OUTSIDE_BODY or words[-1] in _LAST or (found & {"code", "hash"} and found & _CONFIRMING):
        return True
    if words == ("code",):  # `?code=`, which hands over a function's key or a sign-in
        return True
    return bool(found & {"key", "keys"}) and not found & _NAMING and words[-2:] != ("key", "id")


def _words(name: str) -> tuple[str, ...]:
    words: list[str] = []
    for piece in _PIECES.findall(name):
        humps = [word.lower() for word in _WORDS.findall(piece)]
        joined = piece.lower()
        words += humps if len(humps) > 1 and not _known_words(joined) else (_known_words(joined) or humps)
    return tuple(words)


def _known_words(joined: str) -> list[str]:
    """The words joined in a name, if all are known; digits separate them."""
    found: list[str] = []
    for run in _LETTERS.findall(joined):
        parts = _split(run)
        if not parts:
            return []
        found += parts
    return found


def _split(run: str) -> list[str]:
    """The known words, the longest first; none if anything is left over."""
    if run in _PARTS:
        return [run]
    if len(run) > _LONGEST_WORD:
        return []
    for end in range(len(run) - 1, 1, -1):
        if run[:end] in _PARTS and (rest := _split(run[end:])):
            return [run[:end], *rest]
    return []


# ---------------------------------------------------------------------------------------------------------- values


def fingerprint(text: str | None) -> str:
    """The SHA-256 in hex that stands for a key, a URL or a visitor which must not be stored; None counts as empty."""
    return hashlib.sha256((text or "").encode()).hexdigest()


_PREFIX_LENGTH: Final = 16  # characters at the beginning of a secret, by which one that was cut is recognised


def hidden(text: str, secrets: Iterable[str]) -> str:
    """A string with `…` in place of each of these secrets, whole or cut off (`abc…`). Pass the longest first."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
        begins = secret[:_PREFIX_LENGTH]
        start = text.find(begins) if len(secret) > _PREFIX_LENGTH else -1
        while start >= 0:
            end = start + len(commonprefix([text[start : start + len(secret)], secret]))  # noqa: RUF071 - this is not a path
            if text[end : end + 1] == HIDDEN:  # otherwise it only begins like one, as an id and its `client_secret` do
                text = text[:start] + text[end:]
            start = text.find(begins, start + 1)
    return text


def hidden_in(value: Any, secrets: tuple[str, ...]) -> Any:
    """Like `hidden`, for every string in a JSON value."""
    if isinstance(value, str):
        return hidden(value, secrets)
    if isinstance(value, dict):
        return {hidden_in(name, secrets): hidden_in(inner, secrets) for name, inner in value.items()}
    return [hidden_in(inner, secrets) for inner in value] if isinstance(value, list | tuple) else value


_AT: Final = ("@", "%40", "\\u0040", "\uff20", "\ufe6b")  # as URLs, JSON and some keyboards write it
_ENDS: Final = r"""\s@\uff20\ufe6b<>,;:"'`()\[\]\\"""  # between addresses
_SOMEBODY: Final = rf"""(?<![^{_ENDS}])([^{_ENDS}])[^{_ENDS}]*?|\\?"([^"\n])[^"\n]{{0,63}}\""""
_IN_DOMAIN: Final = rf"(?:[^{_ENDS}%]|%(?!40))"
_DOMAIN: Final = rf"{_IN_DOMAIN}*(?:\.[^\W\d_]{{2}}|…){_IN_DOMAIN}*"  # whole or cut off; not that of `paid@v1.2`
_ADDRESS: Final = re.compile(rf"(?:{_SOMEBODY})(?:{'|'.join(map(re.escape, _AT))}){_DOMAIN}")


def without_addresses(text: str) -> str:
    """A sentence with e-mail addresses reduced to their first character: `a…@…`."""
    if text.isascii() and "@" not in text and "%40" not in text and "\\u0040" not in text:
        return text  # nearly every string; a loop over _AT would take four times as long
    return _ADDRESS.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}@{HIDDEN}", text)


def masked(named: Mapping[str, str]) -> dict[str, str]:
    """Headers or parameters as they may be shown."""
    return {name: HIDDEN if names_secret(name) else without_secret_parameters(value) for name, value in named.items()}


# ------------------------------------------------------------------------------------------------------------ URLs

_PARAMETER: Final = re.compile(r"([?&;])([^=&;#?\s]{1,200})=([^&;#\s]+)")
_USER: Final = re.compile(r"(\w[\w+.-]*://)[^/?#\s]*@")


def without_secret_parameters(text: str) -> str:
    """The value of a header that holds an address (`Referer`, `X-Original-Url`), without its secret parameters."""
    if "?" not in text:
        return text
    return _PARAMETER.sub(lambda found: f"{found[1]}{found[2]}={HIDDEN}" if names_secret(found[2]) else found[0], text)


def url_without_password(url: str) -> str:
    """A URL as it may be shown: user and password are left out."""
    return _USER.sub(rf"\g<1>{HIDDEN}@", url)
