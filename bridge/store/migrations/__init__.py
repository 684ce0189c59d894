"""The history of the tables, as Alembic migrations that travel inside the package.

`REVISIONS` repeats their names, oldest first, so that a start need not load Alembic; a test compares.
Until the first release there is one, `0001`, written anew from `bridge.store.schema` whenever a table changes:
`python -m bridge.store.migrations`.
"""

from __future__ import annotations

from typing import Final

REVISIONS: Final = ("0001",)
