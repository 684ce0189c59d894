"""`/console/changes`: what people changed, in the console and by commands, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flask import Blueprint, Response, request

from bridge.store.operator import changes
from bridge.web.console import filters
from bridge.web.console.rendering import page

if TYPE_CHECKING:
    from bridge.app import Bridge

PAGE: Final = 50


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The route."""

    @routes.get("/changes")
    def recent_changes() -> Response:
        before = filters.row(request.args, "before")
        with bridge.store.read() as conn:
            rows = changes.recent(conn, PAGE + 1, before)
        older = rows[PAGE - 1].id if len(rows) > PAGE else None
        return page("changes.html", title="Recent changes", rows=rows[:PAGE], older=older, newest=before is None)
