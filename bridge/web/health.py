"""Being written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint

if TYPE_CHECKING:
    from bridge.app import Bridge


def blueprint(bridge: Bridge) -> Blueprint:  # noqa: ARG001
    return Blueprint(__name__.rpartition(".")[2], __name__)
