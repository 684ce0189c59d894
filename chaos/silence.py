"""Log lines that go nowhere, though they are all written: of a bridge within this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from bridge import logs


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """While this lasts, stderr is nowhere."""
    before = structlog.get_config()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        logs.configure("json")
        try:
            yield
        finally:
            structlog.configure(**before)
