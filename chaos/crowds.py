"""MODE=crowd: a hostile crowd and an honest provider at once, each in a process of its own, against one real `serve`.

CROWD=kept|stalled|announced|large|percent|parse|chunks|log|all, LASTS=30, NOFILE= (the bridge's open-file limit).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chaos.crowd import COUNTS
from chaos.family import ROOT, Member
from chaos.floods import Peak, bridge
from chaos.plan import Plan

Facts = dict[str, Any]
MAPPING = "provider: {0}\ngoals:\n  - {{goal: never, event: never}}\n"
P99_S = 1.0
MEMORY_MB = 256


@dataclass(frozen=True)
class CrowdOptions:
    """The variables of `make chaos MODE=crowd` besides those of the plan."""

    crowd: str = "all"
    seconds: float = 30.0
    files: int | None = None
    count: int | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> CrowdOptions:
        """Read them from the environment."""
        files, count = environ.get("NOFILE"), environ.get("COUNT")
        return cls(
            environ.get("CROWD", "all"),
            float(environ.get("LASTS", "30")),
            int(files) if files else None,
            int(count) if count else None,
        )


def play(wanted: Plan, say: Any) -> tuple[bool, Facts]:
    """Play one crowd after the other, each against a bridge of its own."""
    options = CrowdOptions.from_environ(os.environ)
    facts = {}
    for kind in COUNTS if options.crowd == "all" else [options.crowd]:
        facts[kind] = run_crowd(wanted, replace(options, crowd=kind))
        say(f"  {kind}: {json.dumps(facts[kind])}")
    return all(fact["ok"] for fact in facts.values()), {"mode": "crowd", "seed": wanted.seed, "crowds": facts}


def run_crowd(wanted: Plan, options: CrowdOptions) -> Facts:
    """Play one crowd; return its facts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crowd-")))
        shutil.copy(ROOT / "mappings" / "stripe.yaml", folder)
        more = {"BRIDGE_MAPPINGS": str(folder)}
        for source in ("thrivecart", "slack"):
            (folder / f"{source}.yaml").write_text(MAPPING.format(source))
            more[f"{source.upper()}_WEBHOOK_SECRET"] = f"the-secret-of-{source}-0123456789"
        plan = replace(wanted, webs=1, workers=0, more=more)
        run = stack.enter_context(bridge(plan, unread=options.crowd == "log", files=options.files))
        web = run.webs[0]
        workers = web.children()
        cpu_before = cpu_s(web)
        peak = Peak(web)
        crowd = _program("chaos.crowd", options.crowd, web.port, options.seconds + 2, wanted.seed, *_count(options))
        time.sleep(1.5)
        honest = _program("chaos.honest", web.port, options.seconds - 2)
        figures = json.loads(honest.communicate(timeout=options.seconds + 120)[0])
        crowded = json.loads(crowd.communicate(timeout=options.seconds + 60)[0])
        used = cpu_s(web) - cpu_before
        memory = peak.stop()
        same = web.children() == workers
    ok = set(figures["statuses"]) == {"200"} and figures["p99_s"] <= P99_S and memory <= MEMORY_MB and same
    return {"ok": ok, **figures, "crowd": crowded, "peak_mb": memory, "cpu_s": round(used, 1), "same_worker": same}


def _count(options: CrowdOptions) -> tuple[int, ...]:
    return () if options.count is None else (options.count,)


def _program(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def cpu_s(member: Member) -> float:
    """Processor time of a process and its children."""
    ticks = 0
    for pid in (member.pid, *member.children()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
