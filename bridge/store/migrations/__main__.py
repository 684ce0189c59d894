"""Write the initial migration anew from the tables as they are now (until the first release; then add new ones)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from bridge.store import schema

FILE: Final = Path(__file__).parent / "versions" / "0001_tables.py"
HEAD: Final = '''"""All tables of the first release. Written by `python -m bridge.store.migrations`, not by hand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
'''


def text() -> str:
    """What the initial migration has to be, before the formatter."""
    with create_engine("sqlite://").connect() as nothing:
        script = produce_migrations(MigrationContext.configure(nothing), schema.complete("sqlite", "postgresql"))
    assert script.upgrade_ops is not None
    return HEAD + "    " + render_python_code(script.upgrade_ops).strip() + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"wrote {FILE}; now run `ruff format {FILE}`")  # noqa: T201 - a command for developers
