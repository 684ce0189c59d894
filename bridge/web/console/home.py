"""`/console/`: how the bridge is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.web.console.rendering import page

if TYPE_CHECKING:
    from flask import Blueprint, Response

    from bridge.app import Bridge


def add(routes: Blueprint, bridge: Bridge) -> None:  # noqa: ARG001 - the interface of every page
    """The route."""

    @routes.get("/")
    def home() -> Response:
        return page("home.html", title="Home", here="home")
