"""Decides who may see or do what: holders of a bearer token, compared in constant time, or callers on this machine.

A wrong token is counted, and its answer is delayed (`Guesses`); a right one is compared first and never waits, even if
others try from its address. "On this machine" counts where no admin token is set: the peer of the
connection is a loopback address, it asks for a loopback name, and it sends only the headers that a client sends by
itself. Any other header, whatever its name, may mean that a proxy on this machine passed the request on.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Response, current_app, g, request

from bridge import logs
from bridge.server import DEFERRED, DROPPED, Deferred, HttpAnswer
from bridge.server.connections import origin_at
from bridge.web.messages import plain

if TYPE_CHECKING:
    from bridge.app import Bridge
    from bridge.settings import Settings

# Headers that curl, Prometheus and browsers send by themselves. A list of what proxies add could never be complete.
_OF_CLIENTS: Final = re.compile(
    r"host|user-agent|accept(-charset|-encoding|-language|-datetime)?|connection|keep-alive|te|cache-control|pragma"
    r"|if-(none-match|modified-since)|range|content-(length|type)|cookie|dnt|priority|upgrade-insecure-requests"
    r"|sec-(fetch|ch|gpc).*|x-prometheus-scrape-timeout-seconds",
    re.IGNORECASE,
)
_HOST: Final = re.compile(r"(?:(?P<name>[A-Za-z0-9.-]+)|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?", re.ASCII)
_DELAY: Final = "bridge.delay_s"

FREE: Final = 5  # tries per address that are answered at once
EACH_S: Final = 1.0  # the delay of each further try, and the time after which a try is forgiven
LONGEST_S: Final = 4.0  # the longest delay of an answer
ADDRESSES_MAX: Final = 1_024
WAITING_MAX: Final = 64  # answers delayed at the same time: each holds a connection

log = logs.get("web")


def settings() -> Settings:
    """The settings of the bridge that this application belongs to."""
    found: Settings = current_app.config["BRIDGE_SETTINGS"]
    return found


def bears(*tokens: str | None) -> bool:
    """Whether the request bears one of these tokens; a token that is not set opens nothing."""
    given = _given()
    if given is None:
        return False
    if _is_one_of(given, tokens):
        return True
    known = settings()
    g.wrong_token = not _is_one_of(given, (known.bridge_admin_token, known.bridge_links_token))
    return False


def _given() -> bytes | None:
    """The bytes of the request's token as they came; None if it bears none."""
    scheme, _, given = request.environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
    return given.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else None


def _is_one_of(given: bytes, tokens: Iterable[str | None]) -> bool:
    """Compare with every token, without stopping at a match."""
    equal = [is_right(given, token.encode()) for token in tokens if token]
    return any(equal)


def is_right(given: bytes, token: bytes) -> bool:
    """Compare by hashes, so that not even the length of a token can be measured."""
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(token).digest())


def is_admin() -> bool:
    """Whether the request bears the admin token."""
    return bears(settings().bridge_admin_token)


def is_local() -> bool:
    """Whether the request evidently comes from this machine, and no admin token is set."""
    if settings().bridge_admin_token or request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        return False  # nginx speaks HTTP/1.0 to us, and adds no header by itself
    if request.environ.get(DROPPED) or not all(_OF_CLIENTS.fullmatch(name) for name in request.headers.keys()):  # noqa: SIM118 - it yields pairs
        return False
    return _is_loopback(request.remote_addr or "") and names_this_machine(request.environ.get("HTTP_HOST", ""))


def names_this_machine(host: str) -> bool:
    """Whether this is a loopback name: a page elsewhere whose name resolves to 127.0.0.1 asks for its own name."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match["name"] or match["ipv6"]).lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


# -------------------------------------------------------------------------------------------------- wrong tokens


class Guesses:
    """When the next wrong try of each address is answered.

    Each address has a few tries that are answered at once, then one per second: an answer waits for its turn, and a
    server that can delay answers holds no thread for it. An address that does not wait for answers gets 429 at once.
    Only the latest addresses are kept, an IPv6 network as one. Thread-safe; each process has its own.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when all tries of an address are forgiven
        self._waiting: list[float] = []  # when each delayed answer goes out

    def wrong(self, address: str) -> float | None:
        """How many seconds to delay the answer; None: refuse the request now, because there are too many."""
        origin = origin_at(address)
        with self._lock:
            now = self._monotonic()
            free_at = max(self._free_at.pop(origin, now), now) + EACH_S
            wait_s = max(free_at - now - FREE * EACH_S, 0.0)
            self._waiting = [at for at in self._waiting if at > now]
            refused = wait_s > LONGEST_S or (wait_s > 0 and len(self._waiting) >= WAITING_MAX)
            self._free_at[origin] = free_at - EACH_S if refused else free_at
            while len(self._free_at) > ADDRESSES_MAX:
                self._free_at.popitem(last=False)
            if refused:
                return None
            if wait_s:
                self._waiting.append(now + wait_s)
            return wait_s


def slow_down(application: Flask, bridge: Bridge) -> None:
    """Delay the answers to wrong tokens."""
    guesses = Guesses(time.monotonic)

    @application.after_request
    def keep_back(response: Response) -> Response:
        if not g.get("wrong_token"):
            return response
        bridge.counters.wrong_token()
        delay_s = guesses.wrong(request.remote_addr or "")
        if delay_s is None:
            return plain(429, "Too many wrong tokens. Try again later.", {"Retry-After": str(round(EACH_S) * 5)})
        log.warning("token.refused", address=request.remote_addr)
        if delay_s:
            request.environ[_DELAY] = delay_s
        return response

    application.wsgi_app = Delayed(application.wsgi_app)  # type: ignore[method-assign]


def _signs_in(environ: dict[str, Any]) -> bool:
    return environ.get("REQUEST_METHOD") == "POST" and environ.get("PATH_INFO") == "/console/sign-in"


class Delayed:
    """WSGI around the application: a delayed answer waits in the server, not in a thread.

    A server that cannot delay an answer gives it at once: a sleeping thread would cost more than it protects.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        if DEFERRED not in environ or not ("HTTP_AUTHORIZATION" in environ or _signs_in(environ)):
            return self._application(environ, start_response)
        started: list[Any] = []
        parts = self._application(environ, lambda *arguments: started.extend(arguments))
        try:
            body = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        status, headers = started[:2]
        if (delay_s := environ.get(_DELAY)) is None:
            start_response(status, headers)
            return (body,)
        environ[DEFERRED] = Deferred(Future(), delay_s, lambda _never_done: HttpAnswer(status, tuple(headers), body))
        return ()
