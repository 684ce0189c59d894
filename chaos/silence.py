"""Discards the log lines of a bridge that runs within this process; they are all formatted and written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from bridge import logs


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Inside the block, write stderr to the null device."""
    before = structlog.get_config()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        logs.configure("json")
        try:
            yield
        finally:
            structlog.configure(**before)
