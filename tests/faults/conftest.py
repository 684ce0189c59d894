"""`stage`: real processes on a database of the test's own, on SQLite and on PostgreSQL in turn; or on one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    made = Stage(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture
def sqlite_stage(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    made = Stage(tmp_path, sqlite_url)
    yield made
    made.close()


@pytest.fixture
def postgres_stage(tmp_path: Path, postgres_url: str) -> Iterator[Stage]:
    made = Stage(tmp_path, postgres_url)
    yield made
    made.close()
