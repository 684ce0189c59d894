"""Alembic's entrance: runs on the connection, and inside the transaction, that `bridge.store.migrating` hands in."""

from __future__ import annotations

from alembic import context

from bridge.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.with_dialect_options("sqlite", "postgresql"),
    version_table="bridge_version",  # the default name is another application's in a shared database
)
with context.begin_transaction():
    context.run_migrations()
