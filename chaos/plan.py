"""What one run does, and the events it sends: a seed decides everything."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.sandbox.faults import MIXED

STORMS = ("kill", "term", "stop", "pg-restart", "silent", "failover", "upgrade")
MODES = (*STORMS, "outage", "slow", "memory", "same", "forged", "malformed", "crowd", "restore", "clock")
GAPS_S = {"silent": (13.0, 16.0), "failover": (2.0, 3.0)}  # between two signals, where it is not short
SECRET = "whsec_chaos_secret_0123456789abcdef"
KEY = "df_" + "c" * 48


@dataclass(frozen=True)
class Plan:
    """One run. database: `sqlite`, `postgresql` (a server of its own), or a URL of an empty database."""

    mode: str = "kill"
    events: int = 5_000
    kills: int = 100
    faults: float = 10.0
    seed: int = 1
    database: str = "sqlite"
    unconfirmed: str = "resend"
    webs: int = 2
    workers: int = 1
    senders: int = 8
    duplicates: float = 0.10
    refunds: float = 0.15
    gap_s: tuple[float, float] = (0.1, 1.2)  # between two signals
    drain_s: float = 600.0
    fault_path: str = "/goals"  # "*": reading back is disturbed, too
    former: str = ""  # the Git revision of an earlier release, which writes the database (upgrade)
    pooler: str = ""  # `transaction` or `session`: pgbouncer in between (silent, failover)
    more: Mapping[str, str] = field(default_factory=dict)  # settings of the bridge
    destination_environ: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        """The bridge's settings: all waits are short, so that minutes of a run hold what otherwise takes days."""
        calm = self.mode == "term"  # no process vanishes, so no lease has to run out
        return {
            "BRIDGE_LEASE": "20s" if calm else "2s",
            "BRIDGE_DEADLINE": "5s" if calm else "1s",
            "BRIDGE_READBACK": "300ms,600ms",
            "BRIDGE_RETRY_SCHEDULE": "200ms,500ms,1s",
            "BRIDGE_RATE_PER_MINUTE": "60000",
            "BRIDGE_UNCONFIRMED": self.unconfirmed,
            "BRIDGE_LOG_FORMAT": "json",
            **self.more,
        }

    def destination(self, port: int) -> list[str]:
        """The command line of the sandbox that takes the goals."""
        options = {
            "rate_per_minute": 0,
            "fault_percent": self.faults,
            "fault_kinds": list(MIXED),
            "fault_path": self.fault_path,
            "fault_hang_ms": 3_000,
            "fault_retry_after_s": 1,
            "seed": self.seed,
        }
        chosen = [word for name, value in options.items() for word in ("--option", f"{name}={json.dumps(value)}")]
        return ["-m", "bridge", "sandbox", "--port", str(port), "--visitor", "any", "--key", KEY, *chosen]


@dataclass(frozen=True)
class Sent:
    """One event and the goal that must come of it."""

    id: str
    body: bytes
    goal: str
    visitor: str

    @property
    def description(self) -> str:
        """The goal's description, by which it is found at the destination."""
        return f"stripe {self.id}"


def make_events(plan: Plan, rng: random.Random, first: int = 1_000) -> list[Sent]:
    """Sales that name their visitor, and refunds that do not and may come first. A visitor buys up to three times."""
    made: list[Sent] = []
    number = first  # an id of zeros identifies nobody
    while len(made) < plan.events:
        visitor = f"00000000-0000-4000-8000-{number // 3:012x}"
        made.append(_sale(number, visitor))
        if len(made) < plan.events and rng.random() < plan.refunds:
            made.append(_refund(number, visitor))
        number += 1
    return _shuffled(made, rng)


def deliveries(plan: Plan, events: list[Sent], rng: random.Random) -> list[Sent]:
    """The order in which the events are sent; some are sent twice."""
    twice = [sent for sent in events if rng.random() < plan.duplicates]
    return _shuffled(events + twice, rng, reach=60) if twice else list(events)


def _shuffled(events: list[Sent], rng: random.Random, reach: int = 25) -> list[Sent]:
    """Out of order, as providers deliver: by up to `reach` places."""
    places = {id(sent): place for place, sent in enumerate(events)}
    return sorted(events, key=lambda sent: places[id(sent)] + rng.uniform(0, reach))


def _sale(number: int, visitor: str) -> Sent:
    session = {
        "id": f"cs_live_{number}",
        "object": "checkout.session",
        "mode": "payment",
        "payment_status": "paid",
        "status": "complete",
        "amount_total": 4900,
        "currency": "usd",
        "payment_intent": f"pi_{number}",
        "metadata": {"datafast_visitor_id": visitor},
    }
    return _event(f"evt_s{number}", "checkout.session.completed", session, "purchase", visitor)


def _refund(number: int, visitor: str) -> Sent:
    charge = {
        "id": f"ch_{number}",
        "object": "charge",
        "amount": 4900,
        "amount_refunded": 4900,
        "refunded": True,
        "currency": "usd",
        "payment_intent": f"pi_{number}",
        "metadata": {},
    }
    return _event(f"evt_r{number}", "charge.refunded", charge, "refund", visitor)


def _event(event_id: str, kind: str, thing: Mapping[str, object], goal: str, visitor: str) -> Sent:
    event = {
        "id": event_id,
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": int(time.time()),
        "livemode": True,
        "type": kind,
        "data": {"object": thing},
    }
    return Sent(event_id, json.dumps(event).encode(), goal, visitor)
