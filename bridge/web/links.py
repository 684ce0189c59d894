"""`POST /links/<source>`: a site binds a visitor to a key when it knows both, at sign-up or at checkout.

JSON `{"visitor": "<visitor id>", "kind": "customer", "key": "cus_1"}`, with a bearer token that the site keeps on its
server. What is bound is live: test-mode events never use it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request

from bridge import identity, logs
from bridge.errors import BodyEncoded, BodyTooLarge, StoreError, UnknownSource
from bridge.model import Candidate
from bridge.store.goals import parking
from bridge.web import auth
from bridge.web.incoming import request_of
from bridge.web.responses import plain, unavailable

if TYPE_CHECKING:
    from bridge.app import Bridge

EXAMPLE: Final = '{"visitor": "<visitor id>", "kind": "customer", "key": "cus_1"}'
FIELDS: Final = ("visitor", "kind", "key")
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")

log = logs.get("links")


class BadHint(ValueError):
    """The request's body cannot be meant; the message is a sentence for its author."""


def blueprint(bridge: Bridge) -> Blueprint:
    """The route."""
    routes = Blueprint("links", __name__)

    @routes.post("/links/<source>", strict_slashes=False)
    def link(source: str) -> Response:
        if not auth.bears(bridge.settings.bridge_links_token, bridge.settings.bridge_admin_token):
            return plain(
                401, "The bearer token is missing or wrong: send BRIDGE_LINKS_TOKEN or BRIDGE_ADMIN_TOKEN.", _CHALLENGE
            )
        try:
            bind(bridge, source, _fields(request_of(request.environ).body))
        except UnknownSource:
            return plain(404, "There is no source of this name.")
        except BodyTooLarge:
            return plain(413, "The body is longer than 1 MiB.")
        except BodyEncoded:
            return plain(415, "Compressed bodies are not taken.")
        except BadHint as fault:
            return plain(400, str(fault))
        except StoreError:
            return unavailable("The link could not be stored. Try again soon.", 5)
        return Response(b'{"status":"linked"}\n', content_type="application/json")

    return routes


_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


def _fields(body: bytes) -> dict[str, str]:
    try:
        said: Any = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise BadHint(f"The body is no JSON. It should be like {EXAMPLE}") from None
    if not isinstance(said, dict) or sorted(said) != sorted(FIELDS):
        raise BadHint(f"The body should have the fields visitor, kind and key, like {EXAMPLE}")
    for name in FIELDS:
        if not isinstance(said[name], str) or not said[name].strip():
            raise BadHint(f"{name} should be a text that is not empty, like in {EXAMPLE}")
    return {name: said[name].strip() for name in FIELDS}


def bind(bridge: Bridge, name: str, fields: dict[str, str]) -> None:
    """Remember the link. UnknownSource, BadHint, StoreError."""
    source = bridge.source(name)
    if not _KIND.fullmatch(fields["kind"]):
        raise BadHint("kind should be a word such as customer, subscription or order: small letters, digits and _")
    judged = identity.judge(Candidate("visitor", fields["visitor"]), bridge.settings.bridge_visitor_id)
    if judged.visitor is None:
        raise BadHint(f"visitor {judged.why}; it is the value of the cookie datafast_visitor_id")
    key = identity.key(source, fields["kind"], fields["key"])
    if key is None:
        raise BadHint("key is no id that can be remembered: it should be the provider's own, such as cus_1")
    visitor = judged.visitor
    bridge.store.run(lambda conn: parking.bind(conn, key, visitor, bridge.settings))
    bridge.wake()
    log.info("linked", source=name, kind=key.kind)
