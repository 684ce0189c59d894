"""Who may see or do what: a bearer token, compared in constant time, or a caller on this machine.

"On this machine" is the peer of the connection, never a header. A request that carries a forwarding header came
through a proxy, so it is not: otherwise a proxy on the same host would open everything to everybody. A proxy that
adds no such header (nginx, unless told to) cannot be seen: set BRIDGE_ADMIN_TOKEN and close /metrics there.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING, Final

from flask import current_app, request

if TYPE_CHECKING:
    from bridge.settings import Settings

_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via", "Cf-Connecting-Ip")


def settings() -> Settings:
    """The settings of the bridge that this application belongs to."""
    found: Settings = current_app.config["BRIDGE_SETTINGS"]
    return found


def bears(*tokens: str | None) -> bool:
    """The request bears one of these tokens; those that are not set open nothing."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    said = given.strip().encode("utf-8", "surrogateescape")
    equal = [hmac.compare_digest(said, token.encode()) for token in tokens if token]  # every one is compared
    return any(equal)


def is_admin() -> bool:
    """The request bears the admin token."""
    return bears(settings().bridge_admin_token)


def is_local() -> bool:
    """The request comes from this machine, through no proxy that says so."""
    if any(header in request.headers for header in _FORWARDED):
        return False
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
