"""`GET /bridge.<digest>.js`: the script that hands visitors over, for any site, and never another under that name.

This is the only answer that pages of other origins may read. What an older release served is served for ever, because
sites name it by its hash.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request

from bridge import snippet
from bridge.web.messages import plain

_FOR_EVER: Final = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=31536000, immutable"}


def blueprint() -> Blueprint:
    """The route."""
    routes = Blueprint("snippet", __name__)

    @routes.get("/bridge.<digest>.js")
    def script(digest: str) -> Response:
        content = snippet.hosted().get(f"bridge.{digest}.js")
        if content is None:
            return plain(404, "There is no script of this name; `python -m bridge snippet` says which there is.")
        answer = Response(content, headers=_FOR_EVER, content_type="text/javascript; charset=utf-8")
        answer.set_etag(digest)
        answer.make_conditional(request)
        return answer

    return routes
