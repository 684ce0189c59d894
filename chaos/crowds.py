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
FILE = "provider: {0}\ngoals:\n  - {{goal: never, event: never}}\n"
P99_S = 1.0
MEMORY_MB = 256


@dataclass(frozen=True)
class Wish:
    """What `make chaos MODE=crowd` was told beside the plan."""

    crowd: str = "all"
    seconds: float = 30.0
    files: int | None = None
    count: int | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Wish:
        """From the environment."""
        files, count = environ.get("NOFILE"), environ.get("COUNT")
        return cls(
            environ.get("CROWD", "all"),
            float(environ.get("LASTS", "30")),
            int(files) if files else None,
            int(count) if count else None,
        )


def play(wanted: Plan, say: Any) -> tuple[bool, Facts]:
    """One crowd after the other, each against a bridge of its own."""
    wish = Wish.of(os.environ)
    facts = {}
    for kind in COUNTS if wish.crowd == "all" else [wish.crowd]:
        facts[kind] = one(wanted, replace(wish, crowd=kind))
        say(f"  {kind}: {json.dumps(facts[kind])}")
    return all(fact["ok"] for fact in facts.values()), {"mode": "crowd", "seed": wanted.seed, "crowds": facts}


def one(wanted: Plan, wish: Wish) -> Facts:
    """One crowd."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crowd-")))
        shutil.copy(ROOT / "mappings" / "stripe.yaml", folder)
        more = {"BRIDGE_MAPPINGS": str(folder)}
        for source in ("thrivecart", "slack"):
            (folder / f"{source}.yaml").write_text(FILE.format(source))
            more[f"{source.upper()}_WEBHOOK_SECRET"] = f"the-secret-of-{source}-0123456789"
        plan = replace(wanted, webs=1, workers=0, more=more)
        run = stack.enter_context(bridge(plan, unread=wish.crowd == "log", files=wish.files))
        web = run.webs[0]
        workers = web.children()
        rest = cpu_s(web)
        peak = Peak(web)
        crowd = _program("chaos.crowd", wish.crowd, web.port, wish.seconds + 2, wanted.seed, *_count(wish))
        time.sleep(1.5)
        honest = _program("chaos.honest", web.port, wish.seconds - 2)
        told = json.loads(honest.communicate(timeout=wish.seconds + 120)[0])
        crowded = json.loads(crowd.communicate(timeout=wish.seconds + 60)[0])
        used = cpu_s(web) - rest
        memory = peak.stop()
        same = web.children() == workers
    ok = set(told["statuses"]) == {"200"} and told["p99_s"] <= P99_S and memory <= MEMORY_MB and same
    return {"ok": ok, **told, "crowd": crowded, "peak_mb": memory, "cpu_s": round(used, 1), "same_worker": same}


def _count(wish: Wish) -> tuple[int, ...]:
    return () if wish.count is None else (wish.count,)


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
