"""Which tests run which lines, and whether the tests that run a mutant's lines notice it.

Each test file is run once without a mutant, and every line of the mutated modules is noted for each test. A mutant is
then played against the tests that run its lines only, the quickest first, up to the first failure. What a module does
at its import (statements, tables) is covered by the tests of whatever reads it.

Everything runs in children of one process that has imported all third-party packages, and no module of the project.
"""

from __future__ import annotations

import ast
import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from bench.mutations import Mutant

ROOT = Path(__file__).parents[1]
_WATCH: Any = getattr(sys, "monitoring", None)  # since Python 3.12; before, tracing takes several times as long
LEFT_OUT = "postgresql"  # in a test's id: the statements are those that SQLite executes, and it takes ten times as long
TEST_LIMIT_S = 60  # a mutant may never come to an end

_PYTEST = ("-q", "--hypothesis-seed=0", "--assert=plain")  # packages that are there before pytest cannot be rewritten

Lines = dict[str, list[int]]  # of each module

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("pytest", "hypothesis", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite", "flask", "pydantic"),
        *("cryptography.hazmat.primitives.serialization", "alembic.command", "psycopg", "requests", "structlog"),
        *("yaml", "standardwebhooks", "time_machine", "stripe", "click", "rich.console", "prometheus_client"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Covered:
    """One test: how long it takes, the lines of the mutated modules that it runs, and what it calls in the project."""

    test: str
    seconds: float
    lines: Lines
    calls: list[str]  # file:function or file:class


@dataclass(frozen=True)
class Played:
    """verdict: killed, survived, too long (as good as killed), or broken: it cannot be imported. by: the test."""

    verdict: str
    seconds: float
    by: str = ""


# ------------------------------------------------------------------------------------------------- in the children


class _LineRecorder:
    """A plugin that records which lines each test runs; those of a file's collection belong to all its tests."""

    def __init__(self, copy: Path, mutated: list[str]) -> None:
        self._short = {str(copy / file): file for file in _sources(copy)}
        self._mutated = {str(copy / file) for file in mutated}
        self._seen: set[tuple[str, int]] = set()
        self._called: set[tuple[str, str]] = set()
        self._collected: tuple[set[tuple[str, int]], set[tuple[str, str]]] = (set(), set())
        self.covered: list[Covered] = []
        if _WATCH:
            _WATCH.use_tool_id(_WATCH.COVERAGE_ID, "mutants")
            _WATCH.register_callback(_WATCH.COVERAGE_ID, _WATCH.events.PY_START, lambda code, _: self._call(code))
            _WATCH.register_callback(_WATCH.COVERAGE_ID, _WATCH.events.LINE, self._line)
        self.failed = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[Any]:
        with self:
            result = yield
        self._collected = (self._seen, self._called)
        return result

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if LEFT_OUT not in item.name and item.get_closest_marker("long") is None]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        began = time.perf_counter()
        with self:
            result = yield
        lines: dict[str, list[int]] = defaultdict(list)
        for file, line in sorted(self._seen | self._collected[0]):
            lines[self._short[file]].append(line)
        calls = sorted(f"{self._short[file]}:{name}" for file, name in self._called | self._collected[1])
        self.covered.append(Covered(item.nodeid, time.perf_counter() - began, dict(lines), calls))
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or f"{report.nodeid}\n{report.longreprtext[-2_000:]}"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or f"{report.nodeid}\n{report.longreprtext[-2_000:]}"

    def __enter__(self) -> None:
        self._seen, self._called = set(), set()
        if _WATCH:
            _WATCH.restart_events()  # each line is reported once per test
            _WATCH.set_events(_WATCH.COVERAGE_ID, _WATCH.events.PY_START | _WATCH.events.LINE)
        else:
            threading.settrace(self._trace)
            sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        if _WATCH:
            _WATCH.set_events(_WATCH.COVERAGE_ID, 0)
        else:
            sys.settrace(None)
            threading.settrace(None)

    def _trace(self, frame: FrameType, what: str, _arg: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in self._short:
            return None
        if what == "call":
            self._call(frame.f_code)
        elif what == "line":
            self._line(frame.f_code, frame.f_lineno)
        return self._trace

    def _call(self, code: CodeType) -> object:
        if code.co_filename in self._short:
            self._called.add((code.co_filename, code.co_qualname.partition(".")[0]))
        return _WATCH and _WATCH.DISABLE

    def _line(self, code: CodeType, line: int) -> object:
        if code.co_filename in self._mutated:
            self._seen.add((code.co_filename, line))
        return _WATCH and _WATCH.DISABLE


class _TestSelector:
    """A plugin that runs these tests, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self._rank = {test: rank for rank, test in enumerate(tests)}
        self.failed = ""
        self.too_long = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._rank), key=lambda item: self._rank[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid
            self.too_long = self.too_long or "Timeout (>" in report.longreprtext


def _enter_copy(copy: Path) -> None:
    """Run in the copy from now on, with output into a file, in a group of its own that can be ended as a whole."""
    os.setsid()
    os.chdir(copy)
    sys.dont_write_bytecode = False  # each child would compile everything again
    sys.path[:] = [str(copy), *(place for place in sys.path if place and Path(place) not in (ROOT, copy))]
    output = os.open(_output(copy), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _import_from(copy: Path, file: str) -> bool:
    """Import a module from the copy, and from nowhere else; False: it cannot be imported."""
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    try:
        module = importlib.import_module(name)
    except Exception:  # noqa: BLE001
        return False
    if module.__file__ != str(copy / file):
        raise RuntimeError(f"{name} was imported from {module.__file__} and not from {copy}")
    return True


def _note(answer: Connection, copy: Path, test_file: str, mutated: list[str]) -> None:
    _enter_copy(copy)
    for file in mutated:
        _import_from(copy, file)  # otherwise what it does at its import would count as run by the tests
    recorder = _LineRecorder(copy, mutated)
    pytest.main([*_PYTEST, test_file], plugins=[recorder])
    answer.send((recorder.covered, recorder.failed))


def _play(answer: Connection, copy: Path, mutated: str, tests: list[str]) -> None:
    _enter_copy(copy)
    # Bytecode is known by time and length, and that of the original or of another mutant may be as old and as long.
    Path(importlib.util.cache_from_source(str(copy / mutated))).unlink(missing_ok=True)
    sys.dont_write_bytecode = True
    if not _import_from(copy, mutated):
        answer.send(("broken", ""))
        return
    sys.dont_write_bytecode = False
    selector = _TestSelector(tests)
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    code = pytest.main([*_PYTEST, "-x", f"--timeout={TEST_LIMIT_S}", *files], plugins=[selector])
    match int(code):
        case 0:
            verdict = "survived"
        case 1:
            verdict = "too long" if selector.too_long else "killed"
        case _:  # a test file, or a fixture's module, that cannot be imported
            verdict = "broken"
    answer.send((verdict, selector.failed))


def _output(copy: Path) -> Path:
    return copy.with_suffix(".txt")


# ------------------------------------------------------------------------------------------------- in this process


def record_lines(copy: Path, test_file: str, mutated: list[str]) -> tuple[list[Covered], str]:
    """The tests of a file with their lines, and the first failure ("": none)."""
    found = _run_in_child(_note, (copy, test_file, mutated), 1_800)
    return found if found is not None else ([], f"{test_file} did not end: {_output(copy).read_text()[-3_000:]}")


def play(copy: Path, mutant: Mutant, tests: list[Covered]) -> Played:
    """Play a mutant, which is in the copy, against tests."""
    began = time.monotonic()
    limit = TEST_LIMIT_S * 2 + 8 * sum(test.seconds for test in tests)
    found = _run_in_child(_play, (copy, mutant.file, [test.test for test in tests]), limit)
    verdict, by = found if found is not None else ("too long", "")
    return Played(verdict, time.monotonic() - began, by)


def _run_in_child(work: Callable[..., None], arguments: tuple[object, ...], limit_s: float) -> Any:
    """Run this in a child, and return its answer; None: there was none in time."""
    receiver, sender = _FORKS.Pipe(duplex=False)
    child = _FORKS.Process(target=work, args=(sender, *arguments), daemon=False)
    child.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(limit_s) else None
    except EOFError:
        return None
    finally:
        child.join(10)
        if child.pid is not None:
            _end(child.pid)
        child.join()


def _end(group: int) -> None:
    """End the child, and what its tests started."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        time.sleep(0.2)


# ----------------------------------------------------------------------------------------------- the tests of a line


def _sources(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in sorted((folder / "bridge").rglob("*.py"))]


@dataclass(frozen=True)
class _Unit:
    """A statement of a module: a function, a class, an assignment. reads: the names in it."""

    file: str
    first: int
    last: int
    makes: frozenset[str]
    reads: frozenset[str]
    is_code: bool
    is_cached: bool  # only the first test runs its lines


@dataclass
class Cover:
    """All tests, and all that a module makes at its import."""

    tests: list[Covered]
    folder: Path = ROOT
    _called: set[str] = field(default_factory=set)
    _units: list[_Unit] = field(default_factory=list)
    _words: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tests.sort(key=lambda test: test.seconds)
        self._called = {call for test in self.tests for call in test.calls}
        for file in _sources(self.folder):
            tree = ast.parse((self.folder / file).read_bytes())
            self._units += [_unit(file, node) for node in tree.body]
            self._words[file] = _names(tree)

    def of(self, mutant: Mutant) -> list[Covered]:
        """The tests that run a mutant's line, the quickest first."""
        units = (unit for unit in self._units if unit.file == mutant.file)
        unit = next(unit for unit in units if unit.first <= mutant.line <= unit.last)
        lines = _statement((self.folder / mutant.file).read_bytes(), mutant.line)
        direct = {test.test for test in self.tests if any(line in lines for line in test.lines.get(mutant.file, ()))}
        if direct and not unit.is_cached:
            return [test for test in self.tests if test.test in direct]
        readers = {f"{reader.file}:{name}" for reader in self._readers(unit) if reader.is_code for name in reader.makes}
        return [test for test in self.tests if test.test in direct or not readers.isdisjoint(test.calls)]

    def _readers(self, made: _Unit) -> list[_Unit]:
        """Everything that reads what a statement makes, directly or through what is made from it at the import."""
        found, todo = {made}, [made]
        while todo:
            unit = todo.pop()
            module = unit.file.removesuffix(".py").rpartition("/")[2]
            new = [
                other
                for other in self._units
                if other not in found
                and other.reads & unit.makes
                and (
                    other.file == unit.file or module in self._words[other.file] or unit.makes & self._words[other.file]
                )
            ]
            found.update(new)
            todo += [unit for unit in new if not any(f"{unit.file}:{name}" in self._called for name in unit.makes)]
        return list(found)


def _unit(file: str, node: ast.stmt) -> _Unit:
    is_code = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    makes = {node.name} if is_code else {name.id for name in ast.walk(node) if _is_stored(name)}  # type: ignore[attr-defined]
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    is_cached = any("cache" in ast.unparse(decorator) for decorator in decorators)
    return _Unit(file, first, node.end_lineno or node.lineno, frozenset(makes), _names(node), is_code, is_cached)


def _is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _names(node: ast.AST) -> frozenset[str]:
    found = set()
    for child in ast.walk(node):
        match child:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.alias(name=name):
                found.add(name.rpartition(".")[2])
    return frozenset(found)


def _statement(source: bytes, line: int) -> range:
    """The lines of a function's innermost statement at a line (its head only, without its block); empty: none."""
    best = range(0)

    def visit(node: ast.AST, *, inside: bool) -> None:
        nonlocal best
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt) and inside:
                body = getattr(child, "body", None)
                end = body[0].lineno if body else (child.end_lineno or child.lineno) + 1
                lines = range(child.lineno, max(end, child.lineno + 1))
                best = lines if line in lines else best
            visit(child, inside=inside or isinstance(child, ast.FunctionDef))

    visit(ast.parse(source), inside=False)
    return best
