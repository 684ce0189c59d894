"""A bridge of real parts behind Flask's client."""

from __future__ import annotations

from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from shop import SmallBridge

from bridge import settings as table
from bridge import web
from bridge.server.later import KEY, Later

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from conftest import Clock
    from flask.testing import FlaskClient

    from bridge.server.later import Answer
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


class LaterServer:
    """A server that offers answers which come later, as our gunicorn worker does; it waits for them itself."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        made: Queue[Callable[[], Answer]] = Queue()
        later = environ[KEY] = Later(lambda _later, make: made.put(make))
        parts = self._application(environ, start_response)
        if later.late is None:
            return parts
        try:
            answer = made.get(timeout=later.within_s)()
        except Empty:
            answer = later.late()
        start_response(answer.status, list(answer.headers))
        return (answer.body,)


@pytest.fixture(params=["waits", "later"])
def client(bridge: SmallBridge, request: pytest.FixtureRequest) -> FlaskClient:
    application = web.create(bridge)
    if request.param == "later":
        application.wsgi_app = LaterServer(application.wsgi_app)
    return application.test_client()


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """The log lines of a test, before they are rendered."""
    with structlog.testing.capture_logs() as captured:
        yield captured
