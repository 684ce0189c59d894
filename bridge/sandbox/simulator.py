"""Plays providers: turns the steps of a scenario into signed requests, and posts them.

`request` is pure (tests and the benchmark use only this); `play` and `post` are the only parts that use the network.
The clock is passed in.
"""

from __future__ import annotations

import itertools
import json
import time
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests

from bridge.errors import UsageError
from bridge.presets import stated
from bridge.sandbox import encode, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from bridge.sandbox.scenarios import Step

_ANSWER_CHARACTERS: Final = 200
_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class Signed:
    """One request, ready to send."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """The outcome of one request. status: None if nobody answered; answer: the body's `status`, or a sentence.

    unreachable: there was not even a connection.
    """

    step: Step
    url: str
    status: int | None
    ms: float
    answer: str
    unreachable: bool = False

    @property
    def ok(self) -> bool:
        return self.status == 200


def secret_name(source: str) -> str:
    """The variable in which a mapping file of this name looks for its secret."""
    return f"{source.upper().replace('-', '_')}_WEBHOOK_SECRET"


def secrets_from(environ: Mapping[str, str], steps: Iterable[Step]) -> dict[str, str]:
    """The secrets for these steps, by source; UsageError names every variable that is missing.

    A variable may hold several secrets in the provider's form while they are rotated: the first one signs.
    """
    wires = {step.source: step.wire for step in steps}
    found = {source: environ.get(secret_name(source), "").strip() for source in sorted(wires)}
    missing = [secret_name(source) for source, secret in found.items() if not secret]
    if missing:
        raise UsageError(f"to sign these events, set {' and '.join(missing)} to what the bridge has")
    if any(unicodedata.category(character) == "Cs" for secret in found.values() for character in secret):
        raise UsageError("a secret to sign these events with holds bytes that are not UTF-8: set it again")
    return {source: _first(secret, stated(wires[source], "secret_form") or ()) for source, secret in found.items()}


def _first(text: str, forms: str | Sequence[str]) -> str:
    """The first secret, read like the bridge: there are several only if each piece has the provider's form."""
    beginnings = (forms,) if isinstance(forms, str) else tuple(forms)
    pieces = text.replace("v1,whsec_", "whsec_").replace(",", " ").split()
    return pieces[0] if pieces and all(piece.startswith(beginnings) for piece in pieces) else text


def request(step: Step, secret: str, now_s: int) -> Signed:
    """A step as its provider would send it at this second."""
    encoded, signed = _WIRES[step.wire]
    body = encoded(step.body)
    return Signed(signed(step, body, secret, now_s), body)


_WIRES: Final[dict[str, tuple[Callable[[Any], bytes], Callable[[Step, bytes, str, int], dict[str, str]]]]] = {
    "stripe": (encode.stripe, lambda _step, body, secret, now_s: sign.stripe(body, secret, now_s)),
    "lemonsqueezy": (
        encode.lemonsqueezy,
        lambda step, body, secret, _now_s: sign.lemonsqueezy(body, secret, step.type),
    ),
    "standard-webhooks": (
        encode.compact,
        lambda step, body, secret, now_s: sign.standard_webhooks(body, secret, step.id, now_s),
    ),
    "tally": (encode.compact, lambda _step, body, secret, _now_s: sign.tally(body, secret)),
    "calcom": (encode.compact, lambda _step, body, secret, _now_s: sign.calcom(body, secret)),
    "clerk": (
        encode.compact,
        lambda step, body, secret, now_s: sign.standard_webhooks(body, secret, step.id, now_s, prefix="svix"),
    ),
    "polar": (
        encode.compact,
        lambda step, body, secret, now_s: sign.standard_webhooks(body, secret, step.id, now_s, text_key=True),
    ),
}


def target(to: str, source: str) -> str:
    """`http://host:8000` -> the source's hook there; a URL with a path is used unchanged."""
    url = urlsplit(to)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"--to is {to!r}, but must be a URL such as http://127.0.0.1:8000")
    return to if url.path.strip("/") else f"{to.rstrip('/')}/webhooks/{source}"


def play(
    steps: Sequence[Step],
    targets: Sequence[str],
    secrets: Mapping[str, str],
    now_s: Callable[[], float],
) -> Iterator[Sent]:
    """Post the steps one after another, to each target in turn (several machines of one bridge)."""
    bases = itertools.cycle(targets)
    with requests.Session() as session:
        session.trust_env = False  # no proxy and no .netrc between a test and what it tests
        for step in steps:
            url = target(next(bases), step.source)
            yield _post(session, step, url, request(step, secrets[step.source], int(now_s())))


def post(step: Step, url: str, signed: Signed) -> Sent:
    """Post one request."""
    with requests.Session() as session:
        session.trust_env = False
        return _post(session, step, url, signed)


def _post(session: requests.Session, step: Step, url: str, signed: Signed) -> Sent:
    started = time.perf_counter()
    try:
        answer = session.post(url, data=signed.body, headers=signed.headers, timeout=_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        elapsed = (time.perf_counter() - started) * 1000
        return Sent(step, url, None, elapsed, _why(error), unreachable=_is_unreachable(error))
    elapsed = (time.perf_counter() - started) * 1000
    return Sent(step, url, answer.status_code, elapsed, _status_in(answer.text))


def _is_unreachable(error: requests.RequestException) -> bool:
    """Whether there was no connection: in that case the failure has the system's own error as its cause."""
    cause = getattr(getattr(error.args[0], "reason", None), "__cause__", None) if error.args else None
    refused = isinstance(cause, OSError) and not isinstance(error, requests.exceptions.SSLError)
    return isinstance(error, requests.ConnectTimeout) or refused


def _why(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "nobody listens there" if isinstance(error, requests.ConnectionError) else type(error).__name__


def _status_in(text: str) -> str:
    """The `status` of the bridge's JSON, or the beginning of any other answer."""
    try:
        status = json.loads(text)["status"]
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:_ANSWER_CHARACTERS]
    return str(status)
