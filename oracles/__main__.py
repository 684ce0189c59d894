"""`python -m oracles [--write]`: asks for each row of rows.py its library and the bridge, and compares the verdicts.

Exits 1 if a verdict is not the expected one, if a named difference is gone, if a preset's `checked` says something else
than what ran, or if docs/oracles.json is not what ran. `--write` writes that file; docs/providers.md shows it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import time_machine

from bridge import sources
from bridge.errors import SignatureError
from oracles import ROOT, node, python
from oracles.cases import NOW, Case, cases, source
from oracles.differences import DIFFERENCES, Difference, difference
from oracles.rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KEPT: Final = ROOT / "docs/oracles.json"

Library = python.Library | node.Library


@dataclass
class Verdict:
    """What came of one preset and one library."""

    preset: str
    how: str
    against: str
    cases: int = 0
    differences: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def kept(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "wrong"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m oracles", description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the verdicts in docs/oracles.json")
    write = parser.parse_args().write
    asked = node.Node(NOW)
    verdicts, problems = judge_all(ROWS, {**python.LIBRARIES, **node.libraries(asked)})
    asked.close()
    show(verdicts)
    problems += list(untrue_labels(verdicts))
    kept = json.dumps([verdict.kept() for verdict in verdicts], indent=1, ensure_ascii=False) + "\n"
    if write:
        KEPT.write_text(kept)
    elif not KEPT.exists() or KEPT.read_text() != kept:
        problems.append("docs/oracles.json is not what ran: `make oracles ARGS=--write`, then `make docs`")
    for problem in problems:
        print(problem, file=sys.stderr)
    presets, ran = {verdict.preset for verdict in verdicts}, sum(verdict.cases for verdict in verdicts)
    print(f"{len(presets)} presets, {ran} requests, {len(problems)} problems")
    return 1 if problems else 0


def judge_all(rows: Sequence[Row], libraries: Mapping[str, Library]) -> tuple[list[Verdict], list[str]]:
    """The verdicts of the rows, one for each preset and library; and what is wrong with them, a line each."""
    verdicts: dict[tuple[str, str], Verdict] = {}
    met: set[Difference] = set()
    with time_machine.travel(NOW, tick=False):
        for row in rows:
            against = libraries[row.library].against
            verdict = verdicts.setdefault((row.preset, against), Verdict(row.preset, row.how, against))
            judge(row, libraries, verdict, met)
    asked = {(row.preset, row.library) for row in rows}
    gone = [known for known in DIFFERENCES if known not in met and (known.preset, known.library) in asked]
    wrong = [
        f"{verdict.preset} against {verdict.against}: {line}" for verdict in verdicts.values() for line in verdict.wrong
    ]
    wrong += [
        f"differences.py, {known.preset} against {known.library}: {known.cases} no longer differ" for known in gone
    ]
    return list(verdicts.values()), wrong


def judge(row: Row, libraries: Mapping[str, Library], verdict: Verdict, met: set[Difference]) -> None:
    library = libraries[row.library]
    for case in cases(row, libraries[row.signer or row.library].sign):
        verdict.cases += 1
        theirs, ours = library.accepts(case.request, case.secret), bridge_accepts(row.preset, case)
        known = difference(row.preset, row.library, case.name)
        if known is not None and (theirs, ours) == (not known.bridge, known.bridge):
            met.add(known)
            verdict.differences += [known.why] if known.why not in verdict.differences else []
        elif (theirs, ours) != (case.good, case.good):
            says = {True: "accepts", False: "refuses"}
            verdict.wrong.append(f"{case.name}: the library {says[theirs]}, the bridge {says[ours]}")


def bridge_accepts(preset: str, case: Case) -> bool:
    try:
        sources.verify(source(preset, case.secret), case.request, NOW)
    except SignatureError:
        return False
    return True


def untrue_labels(verdicts: list[Verdict]) -> Iterator[str]:
    """Where `checked` of a preset names another library, another version, or a run that is none."""
    for verdict in verdicts:
        checked = sources.presets()[verdict.preset].get("checked", {})
        if checked.get("how") != verdict.how or verdict.against not in checked.get("against", ""):
            yield f"presets.yaml, {verdict.preset}: `checked` must say how: {verdict.how}, against: {verdict.against}"


def show(verdicts: list[Verdict]) -> None:
    print(f"{'preset':<19}{'how':<8}{'against':<34}{'requests':>8}  verdict")
    for verdict in verdicts:
        named = f"same, but for {len(verdict.differences)} named" if verdict.differences else "same"
        outcome = f"WRONG: {len(verdict.wrong)}" if verdict.wrong else named
        print(f"{verdict.preset:<19}{verdict.how:<8}{verdict.against:<34}{verdict.cases:>8}  {outcome}")


if __name__ == "__main__":
    sys.exit(main())
