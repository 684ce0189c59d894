"""The application: every route of the bridge, the sentences of its errors, the headers of every answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, redirect
from werkzeug.exceptions import HTTPException

from bridge import logs
from bridge.web import auth, console, health, hooks, links, metrics, snippet
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


def create(bridge: Bridge) -> Flask:
    """The application: every route of the bridge."""
    application = Flask("bridge.web", static_folder=None)
    application.url_map.strict_slashes = False
    application.url_map.merge_slashes = False  # Werkzeug would answer `//` with a redirect, which no sender follows
    application.config["BRIDGE_SETTINGS"] = bridge.settings
    for part in (hooks, links, health, metrics, console):
        application.register_blueprint(part.blueprint(bridge))
    application.register_blueprint(snippet.blueprint())
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
    """404, 405 and the like, as a sentence instead of a page."""
    allowed = {name: value for name, value in error.get_headers() if name == "Allow"}
    return plain(error.code or 500, _SENTENCES.get(error.code or 500, error.name + "."), allowed)


_SENTENCES = {
    404: "There is nothing at this address. Webhooks go to /webhooks/<source>.",
    405: "This address does not take this method.",
}


def _failed(error: Exception) -> Response:
    """An error of our own. Its message may quote what was sent, so only its kind is logged."""
    log.error("request.failed", error=logs.where(error))
    return unavailable("This could not be done just now. Try again soon.", 30)


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
