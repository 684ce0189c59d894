"""`demo`: the whole bridge at work on this machine, with nothing to set up and nothing left behind.

A stand-in for DataFast and the bridge itself run as processes on 127.0.0.1; signed events of five providers and of an
application are posted to the bridge; the table shows what became of each. It needs no network and reads no setting of
yours.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
import time
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli import demo_events
from bridge.cli.catalogue import command
from bridge.cli.demo_processes import DemoProcess, clean_environment, free_port, get_json, mappings
from bridge.cli.screen import Screen, of_context
from bridge.sandbox import simulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from bridge.cli.demo_events import Act
    from bridge.sandbox.simulator import Sent

ARRIVE_S: Final = 20.0
_LOOK_S: Final = 0.1
_KNOWS_ANYBODY: Final = ("--visitor", "any", "--option", "rate_per_minute=0")
_SOURCES: Final = ("stripe", "lemonsqueezy", "generic", "tally", "calcom", "clerk")
GIVE_UP_S: Final = 3.0  # when nothing moves any more


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is: a folder of its own, two ports, secrets made for this one run."""

    folder: Path
    mappings: Path
    port: int
    sandbox_port: int
    key: str = field(default_factory=lambda: f"df_demo_{secrets.token_hex(8)}", repr=False)
    admin: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    secrets: Mapping[str, str] = field(default_factory=lambda: {name: _secret() for name in _SOURCES}, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://127.0.0.1:{self.sandbox_port}"

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder / 'bridge.db'}"

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """The bridge's environment, with a raised rate limit: the stand-in has none."""
        return clean_environment(base) | {
            "DATABASE_URL": self.database,
            "BRIDGE_MAPPINGS": str(self.mappings),
            "DATAFAST_API_KEY": self.key,
            "DATAFAST_API_URL": f"{self.sandbox_url}/api/v1",
            "BRIDGE_HOST": "127.0.0.1",
            "PORT": str(self.port),
            "BRIDGE_ADMIN_TOKEN": self.admin,
            "BRIDGE_RATE_PER_MINUTE": "6000",
            "BRIDGE_MAX_AGE": "30d",
            "BRIDGE_WEAK_AFTER": "1s",
            "BRIDGE_LOG_FORMAT": "json",
            **{simulator.secret_name(source): secret for source, secret in self.secrets.items()},
        }


def _secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(24)).decode()


@command(
    examples=[
        ("demo", "runs until Ctrl-C, so that you can look around"),
        ("demo --once", "exits after the table: code 0 if every expected goal arrived, 1 otherwise"),
    ]
)
@click.option("--once", is_flag=True, help="Exit after the table.")
@click.option("--port", metavar="PORT", type=click.IntRange(1, 65_535), help="Port of the bridge. [any free one]")
@click.option(
    "--sandbox-port",
    metavar="PORT",
    type=click.IntRange(1, 65_535),
    help="Port of the stand-in for DataFast. [any free one]",
)
def demo(*, once: bool, port: int | None, sandbox_port: int | None) -> int:
    """See the bridge at work on this machine in a minute.

    Starts a stand-in for DataFast and the bridge with the shipped mapping files, posts signed events of Tally,
    Cal.com, Clerk, Stripe, Lemon Squeezy and a custom application, and shows what happened to each. Nothing leaves
    this machine, no setting or database of yours is read or written, and nothing is left behind.
    """
    screen = of_context()
    with _stopped_by_signals(), ExitStack() as stack:
        try:
            return _run(stack, screen, once=once, port=port, sandbox_port=sandbox_port)
        except KeyboardInterrupt:
            return 0 if not once else 1


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the demo the same way; a second one while it tidies up changes nothing."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(stack: ExitStack, screen: Screen, *, once: bool, port: int | None, sandbox_port: int | None) -> int:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-demo-", ignore_cleanup_errors=True)))
    stage = Stage(folder, mappings(folder / "mappings", _SOURCES), port or free_port(), sandbox_port or free_port())
    environ = stage.environ(os.environ)
    parts = _start(stack, stage, environ)
    acts = demo_events.play(secrets.randbits(32), int(time.time()))
    sent = [_post(act, stage) for act in acts]
    missing = _await(parts, acts, stage)
    rows = demo_events.rows(acts, sent, demo_events.read(stage.database), _recorded(stage))
    absent = [demo_events.sentence(step, goal) for step, goal in missing]
    if screen.as_json:
        found = {"ok": not missing, "events": [row.to_json() for row in rows], "missing": absent}
        screen.write_json(found | {"bridge": stage.url, "sandbox": stage.sandbox_url})
    else:
        demo_events.table(screen, rows, len(demo_events.expected(acts)), absent)
        demo_events.hero(screen, rows, stage.folder, environ)
    if not once and not screen.as_json:
        _stay(screen, stage, parts)
    return 1 if missing else 0


def _start(stack: ExitStack, stage: Stage, environ: Mapping[str, str]) -> tuple[DemoProcess, ...]:
    """The stand-in first: the bridge is only shown once it can deliver."""
    fake = DemoProcess(
        "the stand-in for DataFast",
        ["sandbox", "--port", str(stage.sandbox_port), "--key", stage.key, *_KNOWS_ANYBODY],
        folder=stage.folder,
        environ=clean_environment(os.environ),
    )
    bridge = DemoProcess("the bridge", ["serve"], folder=stage.folder, environ=environ)
    for part in (fake, bridge):
        stack.callback(part.stop)
        part.start()
    fake.wait(f"{stage.sandbox_url}/__fake__/clock")
    bridge.wait(f"{stage.url}/readyz")
    return fake, bridge


def _post(act: Act, stage: Stage) -> Sent:
    """One webhook, signed by its provider's secret, or by another one."""
    known = dict(stage.secrets)
    if act.how == demo_events.FORGED:
        known[act.step.source] = _secret()
    return next(simulator.play([act.step], [stage.url], known, now_s=time.time, sleep=time.sleep))


def _await(parts: Sequence[DemoProcess], acts: Sequence[Act], stage: Stage) -> list[tuple[Any, Any]]:
    """Until every expected goal is there; what is missing when the time is over."""
    until = time.monotonic() + ARRIVE_S
    wanted = demo_events.expected(acts)
    moved = time.monotonic()
    while True:
        missing = demo_events.missing(wanted, _recorded(stage))
        settled, now = demo_events.settled(demo_events.read(stage.database)), time.monotonic()
        moved = moved if settled else now
        if (settled and not missing) or now > until or now - moved > GIVE_UP_S:
            return missing
        for part in parts:
            part.check()
        time.sleep(_LOOK_S)


def _recorded(stage: Stage) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = get_json(f"{stage.sandbox_url}/__fake__/events")["events"]
    return events


def _stay(screen: Screen, stage: Stage, parts: Sequence[DemoProcess]) -> None:
    """Wait until a person stops it."""
    me = f"{_short(sys.executable)} -m bridge"
    name = simulator.secret_name("stripe")
    screen.section("Look around:")
    screen.line(f"  {stage.sandbox_url}/  the goals as the stand-in for DataFast received them")
    screen.line(f"  {stage.url}/console/  every event, goal and person; the token to sign in is {stage.admin}")
    screen.heading("Play more events, and look at the result:")
    screen.line(f"  {name}={stage.secrets['stripe']} {me} simulate stripe-subscription --to {stage.url}")
    screen.line(f"  DATABASE_URL={stage.database} {me} events")
    screen.say("Ctrl-C stops everything and leaves nothing behind.")
    screen.out.flush()
    while True:
        for part in parts:
            part.check()
        time.sleep(_LOOK_S)


def _short(program: str) -> str:
    """A path as one would type it here."""
    inside = Path(program).is_relative_to(Path.cwd())
    return str(Path(program).relative_to(Path.cwd())) if inside else program
