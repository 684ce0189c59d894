"""The database's clock as an SQL expression, so that all machines agree on leases and due times.

PostgreSQL has its own clock. SQLite runs inside this process, so each connection registers the function
`bridge_now_ms()` with the clock passed to `open`. Python code that needs the time asks the database.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from bridge.store.database.driver import NOW, driver_of

if TYPE_CHECKING:
    from sqlalchemy import Connection


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """Milliseconds since 1970 UTC by the database's clock, at this moment (not at the start of the transaction)."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms)
def _compile(element: now_ms, compiler: Any, **options: Any) -> str:  # noqa: ARG001 - SQLAlchemy's signature
    return NOW[compiler.dialect.name]


def system_ms() -> int:
    """This machine's clock in milliseconds, which is also the database's if it runs inside this process."""
    return time.time_ns() // 1_000_000


def read_ms(conn: Connection) -> int:
    """The database's time in milliseconds since 1970 UTC."""
    return driver_of(conn).now_ms()
