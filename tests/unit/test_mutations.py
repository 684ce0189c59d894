"""What `make mutants` makes of a source: every kind of change, and none of what no test can be asked to notice."""

from __future__ import annotations

import pytest

from bench import covering, mutants
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
        ("a = 5_000", "a = 10000"),
        ("a = t.limit(1)", "a = t.limit(0)"),
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
        "a = lru_cache(maxsize=512)(b)",
        "a = t.with_for_update(skip_locked=True)",
    ],
)
def test_what_no_test_can_notice_is_left_alone(source):
    assert changed(source) == set()


def test_of_a_limit_only_none_at_all_is_a_change():
    assert changed("a = t.where(b).limit(1)") == {"a = t.where(b).limit(0)"}


def test_every_module_that_is_mutated_and_every_test_that_they_are_played_against_is_there():
    for places, found in ((mutants.MUTATED, mutants.files()), (mutants.TESTS, mutants.test_files())):
        assert [place for place in places if not any(file.startswith(place) for file in found)] == []


def test_the_same_seed_draws_the_same_mutants():
    one_file = ["bridge/sources/verifier.py"]
    first, again, others = (mutants.draw(3, seed, one_file) for seed in (1, 1, 2))
    assert first == again != others
    assert len({mutants.key(mutant) for mutant in (*first, *others)}) > 3


MODULE = """
LIMIT = 3
_TWICE = LIMIT * 2
LAST = "ab"[1]


def limited(value):
    if value > _TWICE:
        return _TWICE
    return value


def other(value):
    return value + 1
"""

TESTS = """
from bridge import made


def test_a_small_one():
    assert made.limited(2) == 2


def test_a_large_one():
    assert made.limited(9) == 6


def test_another():
    assert made.other(1) == 2
"""


@pytest.mark.long
def test_a_mutant_is_played_against_the_tests_that_run_its_line_or_read_what_it_makes(tmp_path):
    (tmp_path / "bridge").mkdir()
    module = tmp_path / "bridge/made.py"
    module.write_text(MODULE)
    (tmp_path / "test_made.py").write_text(TESTS)
    tests, failure = covering.record_lines(tmp_path, "test_made.py", ["bridge/made.py"])
    assert (len(tests), failure) == (3, "")
    cover = covering.Cover(tests, tmp_path)
    seen = {}
    for new in ("value >= _TWICE", "value - 1", "LIMIT = 4", '"ab"[2]'):
        (mutant,) = (
            one for one in mutants_of("bridge/made.py", MODULE.encode()) if new in one.applied(MODULE.encode()).decode()
        )
        chosen = cover.of(mutant)
        module.write_bytes(mutant.applied(MODULE.encode()))
        told = covering.play(tmp_path, mutant, chosen)
        module.write_text(MODULE)
        seen[new] = (sorted(name_of(one.test) for one in chosen), told.verdict, name_of(told.by))
    both = ["a_large_one", "a_small_one"]
    assert seen == {
        "value >= _TWICE": (both, "survived", ""),
        "value - 1": (["another"], "killed", "another"),
        "LIMIT = 4": (both, "killed", "a_large_one"),
        '"ab"[2]': ([], "broken", ""),
    }


def name_of(test):
    return test.partition("::test_")[2]
