"""HTTP: the sender's side (hooks, links), the operator's side (health, status, metrics), and the server of both.

`create` makes the application of a Bridge. Every answer is short, says nothing that helps an attacker, and is never
a stack trace: when something fails on our side, the log names its kind and place, and the caller gets 503.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from bridge.app import Bridge


def create(bridge: Bridge) -> Flask:
    """The application: every route of the bridge."""
    from bridge.web import site  # noqa: PLC0415 - gunicorn's master imports this package, and serves nothing

    return site.create(bridge)
