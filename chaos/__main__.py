"""`make chaos` or `python -m chaos`: one run of the ledger. Exit code 1: a promise did not hold.

MODE=kill|term|stop|pg-restart|silent|failover|upgrade|outage|slow|memory|same|forged|malformed|crowd|restore|clock
EVENTS=5000 KILLS=100 FAULTS=10 SEED=1
DATABASE_URL=sqlite (a file of its own), postgresql (a server of its own), or the URL of an empty database
UNCONFIRMED=resend|hold · FAULT_PATH=/goals (or *: reading back is disturbed, too)
FROM=f44b843 (upgrade: the Git revision of the release before)
WEBS=2 WORKERS=1 · KEEP=folder · POOLER=transaction|session (silent, failover)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos import ledger, run
from chaos.plan import GAPS_S, MODES, STORMS, Plan

FIRST_RELEASE = "f44b843"  # 0.1.0
SHOWN = (
    *("took_s", "sending_s", "draining_s", "starts", "tries", "doubts", "answers"),
    *("slowest_503_s", "slowest_503_with_stops_s", "slowest_exit_s", "slowest_ack_s"),
    *("silenced", "commits_unanswered", "promoting_s", "acks_after_move_s"),
    *("migrated_after", "former_starts_on_new_tables"),
)


def main(environ: Mapping[str, str]) -> int:
    wanted = _plan(environ)
    print(f"chaos: {_title(wanted)}", flush=True)
    if wanted.mode in STORMS:
        keep = environ.get("KEEP")
        if keep:
            Path(keep).mkdir(parents=True, exist_ok=True)
        result, facts = run.play(wanted, Path(keep).resolve() if keep else None, say)
        ok = run.holds(wanted, result)
        print(ledger.as_text(result))
    else:
        ok, facts = _play_calm(wanted)
    for name in SHOWN:
        if name in facts:
            print(f"  {name}: {facts[name]}")
    print(ledger.as_json({**facts, "ok_overall": ok}))
    print("every promise held" if ok else f"A PROMISE DID NOT HOLD (SEED={wanted.seed})")
    return 0 if ok else 1


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def _play_calm(wanted: Plan) -> tuple[bool, dict[str, Any]]:
    """Play a mode that has no storm of signals."""
    from chaos import clocks, crowds, floods, outage, restore

    modes = {"outage": outage.play, "slow": floods.slow, "memory": floods.memory, "same": floods.same}
    modes |= {"forged": floods.forged, "malformed": floods.malformed, "crowd": crowds.play}
    modes |= {"restore": restore.play, "clock": clocks.play}
    return modes[wanted.mode](wanted, say)


def _plan(environ: Mapping[str, str]) -> Plan:
    mode = environ.get("MODE", "kill")
    if mode not in MODES:
        sys.exit(f"MODE is {mode!r}, but must be one of {', '.join(MODES)}")
    database = environ.get("DATABASE_URL") or (
        "postgresql" if mode in ("pg-restart", "same", "silent", "failover") else "sqlite"
    )
    return Plan(
        mode=mode,
        events=int(environ.get("EVENTS", "5000")),
        kills=int(environ.get("KILLS", {"term": "50", "silent": "20", "failover": "1"}.get(mode, "100"))),
        faults=float(environ.get("FAULTS", "0" if mode == "term" else "10")),
        seed=int(environ.get("SEED", "1")),
        database="postgresql" if database in ("pg", "postgres", "postgresql") else database,
        unconfirmed=environ.get("UNCONFIRMED", "resend"),
        webs=int(environ.get("WEBS", "2")),
        workers=int(environ.get("WORKERS", "1")),
        senders=int(environ.get("SENDERS", "8")),
        fault_path=environ.get("FAULT_PATH", "/goals"),
        former=environ.get("FROM", FIRST_RELEASE) if mode == "upgrade" else "",
        pooler=environ.get("POOLER", ""),
        gap_s=GAPS_S.get(mode, Plan.gap_s),
        drain_s=max(600.0, int(environ.get("EVENTS", "5000")) / 8),
    )


def _title(wanted: Plan) -> str:
    kind = "PostgreSQL" if wanted.database.startswith("postgres") else "SQLite"
    return (
        f"MODE={wanted.mode} on {kind}, EVENTS={wanted.events} KILLS={wanted.kills} FAULTS={wanted.faults:g}"
        f" SEED={wanted.seed} UNCONFIRMED={wanted.unconfirmed}"
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    sys.exit(main(os.environ))
