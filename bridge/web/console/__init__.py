"""`/console`: what the commands say, to be looked at, and what they do, with a preview first.

A page is a module with `add(routes, bridge)`. It calls one function of the rooms below, which the command of the same
question calls, too, and renders a template. Everything works without JavaScript; htmx only brings what is new.
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
    """Whether there is a token that is long enough to open it."""
    return len(settings.bridge_admin_token or "") >= CONSOLE_TOKEN_MIN


def blueprint(bridge: Bridge) -> Blueprint:
    """The routes below `/console`; where it is off, one sentence at each of them."""
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
    """Imported only where the console is on: they know half of the workbench."""
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
