"""What runs for every event or goal is SQL as text, in modules of its own; each statement is prepared on both.

docs/adr/0020-sql-in-one-voice.md names these modules, and what else is text.
"""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from docs_kit import ROOT

import bridge
from bridge.store.database.driver import render

PACKAGE = Path(bridge.__file__).parent
DECISION = (ROOT / "docs/adr/0020-sql-in-one-voice.md").read_text("utf-8")
QUERY = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH \w+(?: \([^)]*\))? AS)\b")
COMMAND = re.compile(
    r"\s*(ALTER|ANALYZE|BEGIN|COMMIT|CREATE|DISCARD|DROP|EXPLAIN|GRANT|LOCK TABLE|PRAGMA|PREPARE|REINDEX|ROLLBACK"
    r"|SAVEPOINT|SET|SHOW|TRUNCATE|VACUUM)\b"
)
CONNECTIONS = "store/database/"  # commands, and what a connection is asked first
ALEMBIC = "store/migrations/versions/"
BEFORE_A_STORE = "cli/serve.py"


def strings(tree):
    """The strings in some code that begin as SQL does, wherever they stand, with their nodes."""
    found = {node: node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    texts = {node: value for node, value in found.items() if isinstance(value, str)}
    return {node: text for node, text in texts.items() if QUERY.match(text) or COMMAND.match(text)}


TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
}
HOLDING = [name for name, tree in TREES.items() if strings(tree) and not name.startswith(ALEMBIC)]
MODULES = [name for name in HOLDING if not name.startswith(CONNECTIONS) and name != BEFORE_A_STORE]


def statements(name):
    """The statements of a module by their names, built as the module builds them."""
    module = import_module(f"bridge.{name.removesuffix('.py').replace('/', '.')}")
    texts = {constant: value for constant, value in vars(module).items() if isinstance(value, str)}
    return {constant: text for constant, text in texts.items() if QUERY.match(text) or "{rows}" in text}


def whole(statement, dialect):
    """A statement as the driver sends it, with two of whatever it takes any number of."""
    columns = re.match(r"(?:INSERT INTO|WITH) \w+ \(([^)]*)\)", statement)
    row = f"({', '.join('?' * len(columns[1].split(',')))})" if columns else ""
    return render(statement.replace("{rows}", f"{row}, {row}").replace("{names}", "?, ?"), dialect)


CASES = [(module, constant) for module in MODULES for constant in statements(module)]


def test_every_step_of_a_goal_has_such_a_module():
    steps = {"inbox", "links", "goals", "delivery"}
    assert {f"store/{step}/statements.py" for step in steps} <= set(MODULES)
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


@pytest.mark.parametrize("name", MODULES)
def test_no_text_escapes_that(name):
    assigned = [node for node in TREES[name].body if isinstance(node, ast.Assign | ast.AnnAssign)]
    named = {text for node in assigned for text in strings(node).values()}
    prepared = {text for text in named if any(whole.startswith(text) for whole in statements(name).values())}
    assert {*strings(TREES[name]).values()} - prepared == set()


def test_the_decision_names_every_module_with_text():
    named = {*re.findall(r"`((?:store|cli)/[\w/]+\.py)`", DECISION)}
    assert {name for name in named if not name.startswith(CONNECTIONS)} == {*MODULES, BEFORE_A_STORE}


def imported(tree):
    """What a module imports while it runs, not only for its types: (module, name), or (module, "") of a whole one."""
    typed = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in typed]
    return {
        (node.module or "", alias.name) if isinstance(node, ast.ImportFrom) else (alias.name, "")
        for node in nodes
        for alias in node.names
    }


def is_sqlalchemy(module):
    return module.partition(".")[0] == "sqlalchemy"


def is_core(module, name):
    """Is it of SQLAlchemy's language for statements, of which `text` is a word, or one of our tables?"""
    if not is_sqlalchemy(module):
        return "bridge.store.schema" in (module, f"{module}.{name}")
    home = getattr(getattr(import_module(module), name, None), "__module__", module)
    return not name or home.startswith(("sqlalchemy.sql", "sqlalchemy.dialects", "sqlalchemy.ext"))


def test_no_module_mixes_text_and_sqlalchemy():
    mixed = {name for name in HOLDING for place in imported(TREES[name]) if is_core(*place)}
    assert mixed == set()
    assert {name for name in MODULES for module, _ in imported(TREES[name]) if is_sqlalchemy(module)} == set()
