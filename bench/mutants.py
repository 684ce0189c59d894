"""`make mutants`: which small wrong changes of the code would no unit or contract test notice?

`python -m bench.mutants [--count 300] [--seed 1] [--jobs 2] [FILE …]` draws mutants of the modules on which no goal's
loss or doubling may hang (`COVERED`), applies each to a copy of the project, and runs the tests that cover it, the
quickest first, up to the first failure or the time limit. What survives is printed with its place and difference.

Nothing is written into the working tree but `build/mutants.jsonl`, the verdicts: a run that was stopped goes on there,
and a verdict counts as long as its module is as it was. `--again` asks about survivors anew, after tests were added.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

from bench.mutations import Mutant, is_another, mutants

ROOT = Path(__file__).parents[1]
VERDICTS = ROOT / "build/mutants.jsonl"
LEAST_S = 30.0  # of a time limit, which is otherwise four times what the tests take without a mutant

_SENT = ("tests/unit/deliver", "tests/unit/store", "tests/contract/delivering", "tests/contract/store/test_delivery.py")
_RULED = ("tests/unit/rules", "tests/contract/mappings")
# Module or folder -> the tests that cover it, in the order in which they run.
COVERED = {
    "bridge/deliver.py": _SENT,
    "bridge/store/delivery": _SENT,
    "bridge/identity": (
        "tests/unit/identity",
        "tests/contract/store/test_links.py",
        "tests/contract/mappings/test_shipped.py",
        "tests/contract/sources/test_envelopes.py",
        "tests/contract/sources/test_presets.py",
    ),
    "bridge/sources/verifier.py": ("tests/unit/sources/test_verifier.py", "tests/contract/sources"),
    "bridge/rules/engine.py": _RULED,
    "bridge/rules/language/conditions.py": _RULED,
    "bridge/rules/goals.py": _RULED,
    "bridge/rules/language/paths.py": _RULED,
    "bridge/rules/language/templates.py": _RULED,
}


@dataclass(frozen=True)
class Verdict:
    """killed, survived, or too long (which is as good as killed)."""

    key: str
    verdict: str
    seconds: float


def files() -> dict[str, tuple[str, ...]]:
    """Every module that is mutated, and its tests."""
    return {
        file.relative_to(ROOT).as_posix(): suite
        for place, suite in COVERED.items()
        for file in ([ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).glob("*.py")))
    }


def drawn(count: int, seed: int, chosen: dict[str, tuple[str, ...]]) -> list[Mutant]:
    """The same mutants for the same seed and the same sources, in a random order."""
    sources = {file: (ROOT / file).read_bytes() for file in sorted(chosen)}
    everyone = [mutant for file, source in sources.items() for mutant in mutants(file, source)]
    random.Random(seed).shuffle(everyone)
    others = (mutant for mutant in everyone if is_another(mutant, sources[mutant.file]))
    return list(islice(others, count))


def key(mutant: Mutant) -> str:
    """Who a mutant is, as long as its module stays the same."""
    told = (mutant.file, hashlib.sha256((ROOT / mutant.file).read_bytes()).hexdigest(), mutant.start, mutant.end)
    return hashlib.sha256(repr((*told, mutant.new)).encode()).hexdigest()[:20]


def known(*, again: bool) -> dict[str, Verdict]:
    """What earlier runs found out."""
    if not VERDICTS.exists():
        return {}
    told = [Verdict(**json.loads(line)) for line in VERDICTS.read_text().splitlines()]
    return {one.key: one for one in told if not (again and one.verdict == "survived")}


class Copies:
    """A copy of the project for each job, so that the working tree is never touched."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        told = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True, text=True
        )
        for job in range(jobs):
            copy = folder / f"copy-{job}"
            for name in told.stdout.splitlines():
                if (ROOT / name).exists():  # what was deleted and not committed is listed, too
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
            self._free.put(copy)

    def run(self, suite: tuple[str, ...], mutant: Mutant | None, limit_s: float | None) -> tuple[str, float]:
        copy = self._free.get()
        try:
            if mutant is None:
                return _tested(copy, suite, limit_s, cached=True)
            file = copy / mutant.file
            source = file.read_bytes()
            file.write_bytes(mutant.applied(source))
            try:
                return _tested(copy, suite, limit_s, cached=False)
            finally:
                file.write_bytes(source)
        finally:
            self._free.put(copy)


def _tested(copy: Path, suite: tuple[str, ...], limit_s: float | None, *, cached: bool) -> tuple[str, float]:
    """Run tests in a copy. A mutant's bytecode is not kept: one as long as the one before would be taken for it."""
    environ = {**os.environ, **({} if cached else {"PYTHONDONTWRITEBYTECODE": "1"})}
    words = [sys.executable, "-m", "pytest", "-q", "-x", "--hypothesis-seed=0", *suite]
    began = time.monotonic()
    with subprocess.Popen(
        words, cwd=copy, env=environ, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        try:
            output, _ = running.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            _end(running)
            return "too long", time.monotonic() - began
        except BaseException:
            _end(running)
            raise
    if cached and running.returncode:
        print(output.decode(errors="replace")[-3_000:])
    return "killed" if running.returncode else "survived", time.monotonic() - began


def _end(running: subprocess.Popen[bytes]) -> None:
    """Like Ctrl-C first, so that the tests stop the servers that they started."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if running.poll() is None:
            os.killpg(running.pid, number)
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                continue
    if running.stdout is not None:
        running.stdout.close()


def limits(copies: Copies, suites: set[tuple[str, ...]], pool: ThreadPoolExecutor) -> dict[tuple[str, ...], float]:
    """How long each suite may take; SystemExit where one fails without a mutant."""
    taken = dict(zip(suites, pool.map(lambda suite: copies.run(suite, None, None), suites), strict=True))
    if red := [suite for suite, (verdict, _) in taken.items() if verdict != "survived"]:
        raise SystemExit(f"these tests fail without any mutant: {' '.join(sorted({*sum(red, ())}))}")
    for suite, (_, seconds) in taken.items():
        print(f"{seconds:6.1f} s without a mutant: {' '.join(suite)}", flush=True)
    return {suite: max(LEAST_S, 4 * seconds) for suite, (_, seconds) in taken.items()}


def judged(todo: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, Verdict]]:
    """Each mutant with its verdict, as they come; each is kept at once."""
    covered = files()
    VERDICTS.parent.mkdir(exist_ok=True)
    writing = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        copies = Copies(Path(folder), jobs)
        allowed = limits(copies, {covered[mutant.file] for mutant in todo}, pool)

        def judge(mutant: Mutant) -> tuple[Mutant, Verdict]:
            suite = covered[mutant.file]
            verdict = Verdict(key(mutant), *copies.run(suite, mutant, allowed[suite]))
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
    source = (ROOT / mutant.file).read_bytes()
    lines = (source.decode().splitlines(), mutant.applied(source).decode().splitlines())
    return "\n".join(f"    {line}" for line in list(difflib.unified_diff(*lines, n=0, lineterm=""))[3:])


def report(verdicts: dict[Mutant, Verdict]) -> None:
    """The survivors, and the score of each module and of all."""
    survivors = [mutant for mutant, told in verdicts.items() if told.verdict == "survived"]
    for mutant in sorted(survivors, key=lambda one: (one.file, one.line)):
        print(f"\nsurvived: {mutant.file}:{mutant.line} ({mutant.what})\n{difference(mutant)}")
    print()
    everyone, alive = Counter(mutant.file for mutant in verdicts), Counter(mutant.file for mutant in survivors)
    for file, count in sorted(everyone.items()):
        print(f"{count - alive[file]:>5} of {count:>3} killed  {file}")
    share = (1 - len(survivors) / len(verdicts)) * 100 if verdicts else 100.0
    print(f"{len(verdicts) - len(survivors):>5} of {len(verdicts):>3} killed  {share:.1f} %")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("files", nargs="*", help="mutate these modules only")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="ask about earlier survivors anew")
    given = parser.parse_args()
    chosen = {file: suite for file, suite in files().items() if not given.files or file in given.files}
    chosen_mutants = drawn(given.count, given.seed, chosen)
    before = known(again=given.again)
    verdicts = {mutant: before[key(mutant)] for mutant in chosen_mutants if key(mutant) in before}
    todo = [mutant for mutant in chosen_mutants if mutant not in verdicts]
    print(f"{len(chosen_mutants)} mutants, seed {given.seed}; the verdicts of {len(verdicts)} are known", flush=True)
    for mutant, verdict in judged(todo, given.jobs) if todo else ():
        verdicts[mutant] = verdict
        place = f"{mutant.file}:{mutant.line}"
        print(f"{len(verdicts):>4} {verdict.verdict:<9} {verdict.seconds:5.1f} s  {place} ({mutant.what})", flush=True)
    report(verdicts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
