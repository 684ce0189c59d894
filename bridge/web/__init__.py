"""HTTP: the sender's side (hooks, links), the operator's side (health, metrics, the console), and the script for sites.

`create` makes the application of a Bridge: every route, the error messages, the headers of every answer. Every answer
is short, tells an attacker nothing useful, and is never a stack trace: when something fails on our side, the log names
the kind of error and its place, and the caller gets 503.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flask import Flask, Response, redirect, request
from werkzeug.exceptions import HTTPException

from bridge import logs, snippet
from bridge.web import auth, console, health, hooks, links, metrics
from bridge.web.messages import plain, unavailable

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from bridge.app import Bridge

log = logs.get("web")

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FOR_EVER: Final = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=31536000, immutable"}


def create(bridge: Bridge) -> Flask:
    """The application: every route of the bridge."""
    application = Flask("bridge.web", static_folder=None)
    application.url_map.strict_slashes = False
    application.url_map.merge_slashes = False  # Werkzeug would answer `//` with a redirect, which no sender follows
    application.config["BRIDGE_SETTINGS"] = bridge.settings
    for part in (hooks, links, health, metrics, console):
        application.register_blueprint(part.blueprint(bridge))
    application.add_url_rule("/bridge.<digest>.js", view_func=script)
    application.add_url_rule("/", "root", _to_console if console.is_on(bridge.settings) else _root)
    application.register_error_handler(HTTPException, _as_sentence)
    application.register_error_handler(Exception, _failed)
    application.after_request(_with_headers)
    auth.slow_down(application, bridge)  # registered last, so that Flask calls it first
    return application


def _to_console() -> ResponseReturnValue:
    return redirect("/console/")


def _root() -> Response:
    return plain(404, f"There is no page here. Webhooks go to /webhooks/<source>. {console.OFF}")


def _as_sentence(error: HTTPException) -> Response:
    """Answer 404, 405 and similar errors with a sentence instead of an HTML page."""
    allowed = {name: value for name, value in error.get_headers() if name == "Allow"}
    return plain(error.code or 500, _SENTENCES.get(error.code or 500, error.name + "."), allowed)


_SENTENCES = {
    404: "There is nothing at this address. Webhooks go to /webhooks/<source>.",
    405: "This address does not accept this method.",
}


def _failed(error: Exception) -> Response:
    """Answer an unexpected error. Its message may quote the request, so only its kind and place are logged."""
    log.error("request.failed", error=logs.where(error))
    return unavailable("This could not be done just now. Try again soon.", 30)


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def script(digest: str) -> Response:
    """Serve the script that passes visitors on, to any site. A name always means the same contents.

    This is the only answer that pages of other origins may read. Scripts of older releases stay available permanently,
    because sites name them by their hash.
    """
    content = snippet.hosted().get(f"bridge.{digest}.js")
    if content is None:
        sentence = "There is no script of this name; `python -m bridge snippet --base-url URL` names the current one."
        return plain(404, sentence)
    answer = Response(content, headers=_FOR_EVER, content_type="text/javascript; charset=utf-8")
    answer.set_etag(digest)
    answer.make_conditional(request)
    return answer
