"""The bridge's durable storage: SQLAlchemy Core on SQLite and PostgreSQL, with one set of tables and statements.

`open` returns a Store; the statements are functions that take a connection, in modules named for their subject.
"""

from bridge.store.database.engine import Store, open  # noqa: A004 - read as store.open
from bridge.store.migrating import SchemaState, migrate, schema_state

__all__ = ["SchemaState", "Store", "migrate", "open", "schema_state"]
