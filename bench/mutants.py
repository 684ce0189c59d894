"""`make mutants`: which small wrong changes of the code would no unit or contract test notice?

`python -m bench.mutants [--count 300] [--seed 1] [--jobs 2] [FILE …]` draws mutants of the modules whose bugs could
lose or double a goal (`MUTATED`), applies each to a copy of the project, and runs the tests that cover it, the quickest
first, up to the first failure or the time limit. What survives is printed with its place and difference.

Nothing is written into the working tree but `build/mutants.jsonl`, the verdicts: a run that was stopped goes on there,
and a verdict counts as long as its module is unchanged. `--again` tries survivors again, after tests were added.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bench.covering import Cover, Covered, Played, play, record_lines
from bench.mutations import Mutant, is_another, mutants

ROOT = Path(__file__).parents[1]
VERDICTS = ROOT / "build/mutants.jsonl"
COVERS = ROOT / "build/covers.json"

MUTATED = (
    "bridge/deliver.py",
    "bridge/store/delivery",
    "bridge/identity",
    "bridge/sources/verifier.py",
    "bridge/rules/engine.py",
    "bridge/rules/language/conditions.py",
    "bridge/rules/language/paths.py",
    "bridge/rules/language/templates.py",
)
TESTS = (
    "tests/unit/deliver",
    "tests/unit/identity",
    "tests/unit/rules/test_amounts_in_a_currency.py",
    "tests/unit/rules/test_near_misses.py",
    "tests/unit/rules/test_preset_values.py",
    "tests/unit/rules/test_rule_conditions.py",
    "tests/unit/rules/test_rule_engine.py",
    "tests/unit/rules/test_rule_lists.py",
    "tests/unit/rules/test_rule_loader.py",
    "tests/unit/rules/test_rule_paths.py",
    "tests/unit/rules/test_rule_templates.py",
    "tests/unit/rules/test_rule_values.py",
    "tests/unit/rules/test_stripe_values.py",
    "tests/unit/sources",
    "tests/unit/store",
    "tests/contract/delivering",
    "tests/contract/mappings/test_generic_senders.py",
    "tests/contract/mappings/test_shipped.py",
    "tests/contract/sources/test_alternative_schemes.py",
    "tests/contract/sources/test_boundaries.py",
    "tests/contract/sources/test_checked.py",
    "tests/contract/sources/test_envelopes.py",
    "tests/contract/sources/test_key_forms.py",
    "tests/contract/sources/test_presets.py",
    "tests/contract/sources/test_vectors.py",
    "tests/contract/store/test_attribution.py",
    "tests/contract/store/test_delivery.py",
    "tests/contract/store/test_links.py",
    "tests/contract/store/test_people.py",
    "tests/contract/store/test_queries_and_actions.py",
    "tests/contract/store/test_timekeeping.py",
)


@dataclass(frozen=True)
class Verdict:
    """What `Played` says of a mutant. by: the test that killed it, or how many did not."""

    key: str
    verdict: str
    seconds: float
    by: str = ""


def files() -> list[str]:
    """Every module that is mutated."""
    return _files(MUTATED, "*.py")


def test_files() -> list[str]:
    """Every file of tests that mutants are played against."""
    return _files(TESTS, "test_*.py")


def _files(places: tuple[str, ...], pattern: str) -> list[str]:
    found = [
        file
        for place in places
        for file in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).glob(pattern))
    ]
    return sorted(file.relative_to(ROOT).as_posix() for file in found)


@cache
def source(file: str) -> bytes:
    """A module as it was when the run began, whatever is edited meanwhile."""
    return (ROOT / file).read_bytes()


def draw(number: int, seed: int, chosen: list[str]) -> list[Mutant]:
    """The same mutants for the same seed and the same sources, in a random order."""
    sources = {file: source(file) for file in sorted(chosen)}
    candidates = [mutant for file, text in sources.items() for mutant in mutants(file, text)]
    random.Random(seed).shuffle(candidates)
    changed = (mutant for mutant in candidates if is_another(mutant, sources[mutant.file]))
    return list(islice(changed, number))


def key(mutant: Mutant) -> str:
    """The identity of a mutant, as long as its module stays the same."""
    identity = (mutant.file, hashlib.sha256(source(mutant.file)).hexdigest(), mutant.start, mutant.end)
    return hashlib.sha256(repr((*identity, mutant.new)).encode()).hexdigest()[:20]


def known(*, again: bool) -> dict[str, Verdict]:
    """The verdicts of earlier runs."""
    if not VERDICTS.exists():
        return {}
    verdicts = [Verdict(**json.loads(line)) for line in VERDICTS.read_text().splitlines()]
    return {verdict.key: verdict for verdict in verdicts if not (again and verdict.verdict == "survived")}


class Copies:
    """A copy of the project for each job, so that the working tree is never touched."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True, text=True
        )
        for job in range(jobs):
            copy = folder / f"copy-{job}"
            for name in listed.stdout.splitlines():
                if (ROOT / name).exists():  # what was deleted and not committed is listed, too
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
            self._free.put(copy)

    @contextmanager
    def borrowed(self) -> Iterator[Path]:
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)

    def play(self, mutant: Mutant, tests: list[Covered]) -> Played:
        with self.borrowed() as copy:
            file = copy / mutant.file
            text, was = file.read_bytes(), file.stat()
            file.write_bytes(mutant.applied(text))
            try:
                return play(copy, mutant, tests)
            finally:
                file.write_bytes(text)
                os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def covers(copies: Copies, pool: ThreadPoolExecutor) -> Cover:
    """Which tests run which lines; kept for files that are unchanged. SystemExit: a test fails without a mutant."""
    kept = json.loads(COVERS.read_text()) if COVERS.exists() else {}
    mutated = sorted(files())

    def cover(test_file: str) -> str:
        """Record the lines of a file's tests; return the first failure."""
        was = kept.get(test_file)
        if was is not None and was["of"] == _texts(test_file, was["tests"]):
            return ""
        with copies.borrowed() as copy:
            tests, failure = record_lines(copy, test_file, mutated)
        if not failure:
            recorded = [asdict(test) for test in tests]
            kept[test_file] = {"of": _texts(test_file, recorded), "tests": recorded}
            print(f"{sum(test.seconds for test in tests):6.1f} s  {len(tests):>4} tests of {test_file}", flush=True)
        return failure

    wanted = test_files()
    failures = [failure for failure in pool.map(cover, wanted) if failure]
    COVERS.write_text(json.dumps({file: kept[file] for file in wanted if file in kept}))
    if failures:
        raise SystemExit("these tests fail without any mutant:\n" + "\n".join(failures))
    return Cover([Covered(**test) for file in wanted for test in kept[file]["tests"]])


def _texts(test_file: str, tests: list[dict[str, Any]]) -> str:
    """A hash of a file of tests and of the mutated modules that it runs."""
    modules = sorted({file for test in tests for file in test["lines"]})
    texts = [(ROOT / file).read_bytes() if (ROOT / file).exists() else b"" for file in (test_file, *modules)]
    return hashlib.sha256(b"".join(texts)).hexdigest()


def judge_all(todo: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, Verdict]]:
    """Each mutant with its verdict, as they come; each is kept at once."""
    VERDICTS.parent.mkdir(exist_ok=True)
    writing = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        copies = Copies(Path(folder), jobs)
        cover = covers(copies, pool)

        def judge(mutant: Mutant) -> tuple[Mutant, Verdict]:
            tests = cover.of(mutant)
            result = copies.play(mutant, tests) if tests else Played("survived", 0.0, "no test runs it")
            verdict = Verdict(key(mutant), result.verdict, round(result.seconds, 1), result.by or f"{len(tests)} tests")
            with writing, VERDICTS.open("a") as kept:
                kept.write(json.dumps(vars(verdict)) + "\n")
            return mutant, verdict

        try:
            yield from pool.map(judge, todo)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def difference(mutant: Mutant) -> str:
    """The lines that a mutant changes."""
    before = source(mutant.file)
    lines = (before.decode().splitlines(), mutant.applied(before).decode().splitlines())
    return "\n".join(f"    {line}" for line in list(difflib.unified_diff(*lines, n=0, lineterm=""))[3:])


def report(verdicts: dict[Mutant, Verdict]) -> None:
    """The survivors, and the score of each module and of all. A mutant that cannot be imported counts for nothing."""
    counted = {mutant: verdict for mutant, verdict in verdicts.items() if verdict.verdict != "broken"}
    survivors = [mutant for mutant, verdict in counted.items() if verdict.verdict == "survived"]
    for mutant in sorted(survivors, key=lambda mutant: (mutant.file, mutant.line)):
        print(f"\nsurvived {verdicts[mutant].by}: {mutant.file}:{mutant.line} ({mutant.what})\n{difference(mutant)}")
    print()
    total, alive = Counter(mutant.file for mutant in counted), Counter(mutant.file for mutant in survivors)
    for file, number in sorted(total.items()):
        print(f"{number - alive[file]:>5} of {number:>3} killed  {file}")
    share = (1 - len(survivors) / len(counted)) * 100 if counted else 100.0
    print(f"{len(counted) - len(survivors):>5} of {len(counted):>3} killed  {share:.1f} %")
    print(f"{len(verdicts) - len(counted):>5} more could not be imported")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("files", nargs="*", help="mutate these modules only")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="try earlier survivors again")
    given = parser.parse_args()
    chosen = [file for file in files() if not given.files or file in given.files]
    chosen_mutants = draw(given.count, given.seed, chosen)
    before = known(again=given.again)
    verdicts = {mutant: before[key(mutant)] for mutant in chosen_mutants if key(mutant) in before}
    todo = [mutant for mutant in chosen_mutants if mutant not in verdicts]
    print(f"{len(chosen_mutants)} mutants, seed {given.seed}; the verdicts of {len(verdicts)} are known", flush=True)
    for mutant, verdict in judge_all(todo, given.jobs) if todo else ():
        verdicts[mutant] = verdict
        place = f"{mutant.file}:{mutant.line}"
        print(f"{len(verdicts):>4} {verdict.verdict:<9} {verdict.seconds:5.1f} s  {place} ({mutant.what})", flush=True)
    report(verdicts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
