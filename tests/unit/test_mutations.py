"""What `make mutants` makes of a source: every kind of change, and none of what no test can be asked to notice."""

from __future__ import annotations

import pytest

from bench import mutants
from bench.mutations import is_another
from bench.mutations import mutants as mutants_of


def changed(source):
    """The texts that a source's mutants replace its own by."""
    found = mutants_of("x.py", source.encode())
    return {one.applied(source.encode()).decode() for one in found if is_another(one, source.encode())}


@pytest.mark.parametrize(
    ("source", "mutant"),
    [
        ("a = b < c", "a = b <= c"),
        ("a = b is None", "a = b is not None"),
        ("a = b in c", "a = b not in c"),
        ("a = 5", "a = 6"),
        ("a = 5", "a = (4)"),
        ("a = True", "a = False"),
        ("a = not b", "a = (b)"),
        ("a = b and c", "a = b or c"),
        ("a = b and c", "a = (b)"),
        ("a = b + c", "a = b - c"),
        ("a = min(b, c)", "a = max(b, c)"),
        ("if a:\n    b()", "if (not (a)):\n    b()"),
        ("if a:\n    b()", "if a:\n    pass"),
        ("a = [b for b in c if b]", "a = [b for b in c if True]"),
        ("def a():\n    return b", "def a():\n    return None"),
        ("a = t.where(b, c)", "a = t.where(c)"),
        ("a = 'SELECT 1 WHERE b <= c'", "a = 'SELECT 1 WHERE b < c'"),
        ("a = 'SELECT 1 WHERE b AND c'", "a = 'SELECT 1 WHERE b OR c'"),
        ("a = 'SELECT 1 WHERE b IS NULL'", "a = 'SELECT 1 WHERE b IS NOT NULL'"),
    ],
)
def test_each_kind_of_change_is_made(source, mutant):
    assert mutant in changed(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""One docstring."""',
        "log.info('sent', count=1)",
        "assert a < 1",
        "raise ValueError(f'{a < 1}')",
        "def a(b: Literal[1]) -> Literal[2]: ...",
        "@c(slots=True)\ndef a(): ...",
        "if TYPE_CHECKING:\n    a = 1",
        "import a",
    ],
)
def test_what_no_test_can_notice_is_left_alone(source):
    assert changed(source) == set()


def test_every_module_that_is_mutated_and_every_test_that_covers_it_is_there():
    for place, suite in mutants.COVERED.items():
        assert [path for path in (place, *suite) if not (mutants.ROOT / path).exists()] == []
        assert any(file.startswith(place) for file in mutants.files())


def test_the_same_seed_draws_the_same_mutants():
    one_file = {file: suite for file, suite in mutants.files().items() if file == "bridge/sources/verifier.py"}
    first, again, others = (mutants.drawn(3, seed, one_file) for seed in (1, 1, 2))
    assert first == again != others
    assert len({mutants.key(mutant) for mutant in (*first, *others)}) > 3
