"""`/console`: shows what the commands say, and does what they do, with a preview first.

A page is a module with `add(routes, bridge)`. It calls one function of a lower room, the same one that the matching
command calls, and renders a template. Everything works without JavaScript; htmx only fetches updates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flask import Blueprint, Response

from bridge.settings import CONSOLE_TOKEN_MIN, Settings
from bridge.web.console import rendering, session
from bridge.web.console.session import Sessions
from bridge.web.hooks import METHODS
from bridge.web.messages import plain

if TYPE_CHECKING:
    from types import ModuleType

    from bridge.app import Bridge

OFF: Final = (
    f"The console is off. Set BRIDGE_ADMIN_TOKEN to a token of at least {CONSOLE_TOKEN_MIN} characters, and restart"
    " the bridge."
)


def is_on(settings: Settings) -> bool:
    """Whether a token is set that is long enough to open the console."""
    return len(settings.bridge_admin_token or "") >= CONSOLE_TOKEN_MIN


def blueprint(bridge: Bridge) -> Blueprint:
    """The routes below `/console`; if the console is off, each answers with one sentence."""
    if not is_on(bridge.settings):
        return _off()
    routes = Blueprint("console", __name__, url_prefix=session.PATH, template_folder="templates")
    sessions = Sessions(bridge)
    rendering.register(routes, sessions)
    session.register(routes, sessions)
    for page in _pages():
        page.add(routes, bridge)
    return routes


def _pages() -> tuple[ModuleType, ...]:
    """Imported only if the console is on, because the pages import half of the workbench."""
    from bridge.web.console import (  # noqa: PLC0415
        activity,
        event,
        home,
        people,
        report,
        rules,
        sources,
        try_rules,
    )

    return (activity, event, home, people, report, rules, sources, try_rules)


def _off() -> Blueprint:
    routes = Blueprint("console", __name__, url_prefix=session.PATH)

    @routes.route("/", defaults={"rest": ""}, methods=METHODS, provide_automatic_options=False)
    @routes.route("/<path:rest>", methods=METHODS, provide_automatic_options=False)
    def off(rest: str) -> Response:  # noqa: ARG001 - every address
        return plain(404, OFF)

    return routes
