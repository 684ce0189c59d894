"""A bridge of real parts behind Flask's client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
from shop import SmallBridge

from bridge import settings as table
from bridge import web

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Clock
    from flask.testing import FlaskClient

    from bridge.settings import Settings
    from bridge.store import Store


@pytest.fixture
def settings() -> Settings:
    return table.load({"BRIDGE_ADMIN_TOKEN": "admin-token", "BRIDGE_LINKS_TOKEN": "links-token"})


@pytest.fixture
def bridge(sqlite_store: Store, settings: Settings, clock: Clock) -> Iterator[SmallBridge]:
    made = SmallBridge(sqlite_store, settings, clock)
    yield made
    made.inbox.close()


@pytest.fixture
def client(bridge: SmallBridge) -> FlaskClient:
    return web.create(bridge).test_client()


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """The log lines of a test, before they are rendered."""
    with structlog.testing.capture_logs() as captured:
        yield captured
