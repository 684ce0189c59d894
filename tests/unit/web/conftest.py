"""A bridge of real parts behind Flask's client."""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from shop import SmallBridge

from bridge import settings as table
from bridge import web
from bridge.server import Deferred
from bridge.web import hooks
from bridge.web.messages import request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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


class OwnServer:
    """A server that asks for answers which need no thread, as our gunicorn worker does; it waits for them itself."""

    def __init__(self, bridge: SmallBridge, application: Callable[..., Iterable[bytes]]) -> None:
        self._bridge = bridge
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        name = hooks.source_at(environ["RAW_URI"].partition("?")[0])
        if environ["REQUEST_METHOD"] != "POST" or name is None:
            return self._application(environ, start_response)
        answer = hooks.answer(self._bridge, name, request_of, environ)
        if isinstance(answer, Deferred):
            wait((answer.future,), answer.within_s)
            answer.future.cancel()
            answer = answer.answer(answer.future)
        start_response(answer.status, list(answer.headers))
        return (answer.body,)


@pytest.fixture
def new_client(bridge: SmallBridge) -> Callable[[str], FlaskClient]:
    """Of Flask alone, whose threads wait for an answer; or of our own server, to which answers come later."""

    def new(how: str) -> FlaskClient:
        application = web.create(bridge)
        if how == "later":
            application.wsgi_app = OwnServer(bridge, application.wsgi_app)
        return application.test_client()

    return new


@pytest.fixture(params=["waits", pytest.param("later", marks=pytest.mark.long)])
def client(new_client: Callable[[str], FlaskClient], request: pytest.FixtureRequest) -> FlaskClient:
    """What no webhook is, Flask answers in both; webhooks are tested on both in `make test`, too (test_hooks.py)."""
    return new_client(request.param)


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """The log lines of a test, before they are rendered."""
    with structlog.testing.capture_logs() as captured:
        yield captured
