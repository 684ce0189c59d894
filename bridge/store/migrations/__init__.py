"""The history of the tables, as Alembic migrations that travel inside the package.

`REVISIONS` repeats their names, oldest first, so that a start need not load Alembic; a test compares.
`bridge.store.schema` is the truth. Each change of it is a new file in `versions/` that only adds, so that the previous
release runs on the new tables; new columns come last.
"""

from __future__ import annotations

from typing import Final

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011")
