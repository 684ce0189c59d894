"""`machine`: starts real processes for one test, or for all of a file (`shared_machine`), and ends what is left.

`command`: a command in this process. `chat` and `mail`: what alerts are sent to, over HTTP and SMTP. `console` and
`visit`: a bridge in this process whose console is on, and somebody who is signed in there; `looker`: the same for tests
that change nothing, of which those of a file share one bridge.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from alert_kit import Chat, Mail, running
from composed import Composed
from console_kit import TOKEN, Visit
from running import Machine

from bridge.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Clock, Postgres


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.stop_all()


@pytest.fixture(scope="module")
def shared_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine"))
    yield made
    made.stop_all()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`python -m bridge …` in this process: its exit code and what it says. Its environment stays for the next one."""

    def run(*words: str, **environ: str) -> tuple[int, str]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = main(words)
        return code, "".join(capsys.readouterr())

    return run


@pytest.fixture
def chat() -> Iterator[Chat]:
    with running(Chat()) as server:
        yield server


@pytest.fixture
def mail() -> Iterator[Mail]:
    with running(Mail()) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def console_url(request: pytest.FixtureRequest) -> str:
    """A database whose time is `clock`, for a bridge in this process."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url")
    engine = request.getfixturevalue("postgres_store").engine
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture
def console(console_url: str, clock: Clock) -> Iterator[Composed]:
    """A bridge on each database, whose console is on."""
    with Composed(console_url, clock, BRIDGE_ADMIN_TOKEN=TOKEN) as made:
        yield made


@pytest.fixture(scope="module")
def still_sqlite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("still") / "bridge.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture(scope="module")
def still_postgres_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    name = postgres.create(postgres_template)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def still_console(request: pytest.FixtureRequest, still_clock: Clock) -> Iterator[Composed]:
    """The same for the tests of a file that store nothing: each finds it as it was at first."""
    url = request.getfixturevalue(f"still_{request.param}_url".replace("postgresql", "postgres"))
    with Composed(url, still_clock, BRIDGE_ADMIN_TOKEN=TOKEN) as made:
        yield made


@pytest.fixture
def looker(still_console: Composed) -> Visit:
    """Somebody who is signed in there, and only looks."""
    return Visit(still_console)


@pytest.fixture
def visit(console: Composed) -> Visit:
    """Somebody who is signed in there."""
    return Visit(console)
