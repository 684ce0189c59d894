"""What runs for every event or goal is SQL as text, a module per subject; each statement is prepared on both."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bridge import store as bridge_store
from bridge.store.database.driver import render

ROOT = Path(bridge_store.__file__).parent
BEGINS = re.compile(r"(WITH|SELECT|INSERT INTO|UPDATE|DELETE FROM) ")
MODULES = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("*/statements.py"))]


def statements(name):
    """The statements of a module by their names, built as the module builds them."""
    module = __import__(f"bridge.store.{name.removesuffix('.py').replace('/', '.')}", fromlist=["x"])
    texts = {constant: value for constant, value in vars(module).items() if isinstance(value, str)}
    return {constant: text for constant, text in texts.items() if BEGINS.match(text)}


def whole(statement, dialect):
    """A statement as the driver sends it, with two of whatever it takes any number of."""
    columns = re.match(r"INSERT INTO \w+ \(([^)]*)\)", statement)
    row = f"({', '.join('?' * len(columns[1].split(',')))})" if columns else "(?, ?)"
    return render(statement.replace("{rows}", f"{row}, {row}").replace("{names}", "?, ?"), dialect)


CASES = [(module, constant) for module in MODULES for constant in statements(module)]


def test_every_step_of_a_goal_has_such_a_module():
    steps = {"inbox", "links", "goals", "delivery"}
    assert {f"{step}/statements.py" for step in steps} <= set(MODULES)
    assert len(CASES) > 60


@pytest.mark.parametrize(("module", "constant"), CASES)
def test_a_statement_can_be_prepared(store, module, constant):
    statement = statements(module)[constant]
    if store.dialect == "sqlite" and constant.endswith("_POSTGRESQL"):
        return
    text = whole(statement, store.dialect)
    with store.write() as conn:
        if store.dialect == "postgresql":
            conn.exec_driver_sql(f"PREPARE it AS {text}")
            conn.exec_driver_sql("DEALLOCATE it")
        else:
            assert conn.connection.driver_connection.execute(f"EXPLAIN {text}", (None,) * text.count("?")).fetchall()


def imported(tree):
    """What a module takes from SQLAlchemy while it runs, not only for its types."""
    typed = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in typed]
    return {alias.name for node in names if node.module == "sqlalchemy" for alias in node.names}


def begins(value):
    """The first words of a string that a module is given as a constant, however it is put together."""
    if isinstance(value, ast.BinOp):
        return begins(value.left)
    if isinstance(value, ast.JoinedStr):
        return begins(value.values[0])
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def mixes(path):
    """Does a module hold statements as text beside SQLAlchemy's?"""
    tree = ast.parse(path.read_text("utf-8"))
    constants = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return any(BEGINS.match(begins(value)) for value in constants) and bool(imported(tree))


def test_no_module_mixes_text_and_sqlalchemy():
    mixed = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if mixes(path)}
    assert mixed == set()
