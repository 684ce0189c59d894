"""What is said to the database, by SQLAlchemy and in the driver's own words, and how the database would answer it."""

from __future__ import annotations

from contextlib import contextmanager

from sqlalchemy import event

from bridge.store.database.driver import Driver, driver_of, render


@contextmanager
def overheard(store):
    """A list that fills with (statement, values) of everything that is executed within; of many values the first."""
    said = []

    def keep(_conn, _cursor, statement, values, _context, _many):
        said.append((statement, values[0] if isinstance(values, list) else values))

    rows, many = Driver.execute_raw, Driver.execute_many

    def heard_rows(driver, statement, values):
        said.append((statement, tuple(values)))
        return rows(driver, statement, values)

    def heard_many(driver, statement, values):
        values = list(values)
        said.append((render(statement, driver.dialect), tuple(values[0])))
        return many(driver, statement, values)

    event.listen(store.engine, "before_cursor_execute", keep)
    Driver.execute_raw, Driver.execute_many = heard_rows, heard_many
    try:
        yield said
    finally:
        event.remove(store.engine, "before_cursor_execute", keep)
        Driver.execute_raw, Driver.execute_many = rows, many


def plan(conn, statement, values):
    """The lines of the database's plan; on PostgreSQL as if every table were large."""
    if conn.dialect.name == "sqlite":
        return [row.detail for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
    return explained(conn, f"EXPLAIN {statement}", values)


def explained(conn, statement, values):
    """The lines that PostgreSQL answers to an EXPLAIN."""
    if "$1" in statement:
        return [line for (line,) in driver_of(conn).execute_raw(statement, values)]
    return [row[0] for row in conn.exec_driver_sql(statement, values)]
