"""`POST /links/<source>`: a site binds a visitor to a key once it knows both, at sign-up or checkout.

The body is JSON: `{"visitor": "<visitor id>", "kind": "customer", "key": "cus_1"}`. The bearer token stays on the
site's server. The link is live: events in test mode never use it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request

from bridge import identity, logs
from bridge.errors import BodyEncoded, BodyTooLarge, StoreError, UnknownSource
from bridge.store.goals import parking
from bridge.web import auth
from bridge.web.messages import plain, request_of, unavailable

if TYPE_CHECKING:
    from bridge.app import Bridge

EXAMPLE: Final = '{"visitor": "<visitor id>", "kind": "customer", "key": "cus_1"}'
FIELDS: Final = ("visitor", "kind", "key")

log = logs.get("links")


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
            _bind(bridge, source, _fields(request_of(request.environ).body))
        except UnknownSource:
            return plain(404, "There is no source of this name.")
        except BodyTooLarge:
            return plain(413, "The body is longer than 1 MiB.")
        except BodyEncoded:
            return plain(415, "Compressed bodies are not accepted.")
        except identity.BadBinding as error:
            return plain(400, str(error))
        except StoreError:
            return unavailable("The link could not be stored. Try again soon.", 5)
        return Response(b'{"status":"linked"}\n', content_type="application/json")

    return routes


_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


def _fields(body: bytes) -> dict[str, str]:
    try:
        given: Any = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise identity.BadBinding(f"The body is not valid JSON. It should be like {EXAMPLE}") from None
    if not isinstance(given, dict) or sorted(given) != sorted(FIELDS):
        raise identity.BadBinding(f"The body should have the fields visitor, kind and key, like {EXAMPLE}")
    for name in FIELDS:
        if not isinstance(given[name], str) or not given[name].strip():
            raise identity.BadBinding(f"{name} should be a string that is not empty, as in {EXAMPLE}")
    return {name: given[name].strip() for name in FIELDS}


def _bind(bridge: Bridge, name: str, fields: dict[str, str]) -> None:
    """Store the link. Raises UnknownSource, BadBinding, StoreError."""
    settings = bridge.settings
    source, by_user = bridge.source(name), settings.bridge_match_user == "on"
    key, visitor = identity.binding(
        source, fields["kind"], fields["key"], fields["visitor"], settings.bridge_visitor_id, users=by_user
    )
    bridge.store.run(lambda conn: parking.bind(conn, key, visitor, settings))
    bridge.wake()
    log.info("linked", source=name, kind=key.kind)
