"""`machine`: starts real processes for one test, or for all of a file (`shared_machine`), and ends what is left.

`chat` and `mail`: what alerts are sent to, over HTTP and SMTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alert_kit import Chat, Mail, running
from running import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
def chat() -> Iterator[Chat]:
    with running(Chat()) as server:
        yield server


@pytest.fixture
def mail() -> Iterator[Mail]:
    with running(Mail()) as server:
        yield server
