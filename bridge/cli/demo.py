"""`demo`: the whole bridge at work on this machine, with nothing to set up and nothing left behind.

A stand-in for DataFast and the bridge itself run as processes on 127.0.0.1. Signed events of five providers and an
application are posted to the bridge, and the table shows what became of each. The demo needs no network and reads no
setting of yours. The same seed and the same second produce the same play.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import requests

import bridge
from bridge import rules, store
from bridge.cli.catalogue import command
from bridge.cli.screen import BAD, GOOD, Screen, current_screen
from bridge.errors import BridgeError
from bridge.identity.choice import FoundVisitor
from bridge.model import TO_SEND
from bridge.sandbox import scenarios, simulator
from bridge.settings.hosts import is_host_variable
from bridge.store.operator import queries
from bridge.workbench.describe import how_known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import FrameType

    from bridge.sandbox.scenarios import Expected, Step
    from bridge.sandbox.simulator import Sent
    from bridge.store.operator.queries import EventLine, GoalLine

ARRIVE_S: Final = 20.0
_POLL_S: Final = 0.1
_KNOWS_ANYBODY: Final = ("--visitor", "any", "--option", "rate_per_minute=0")
_SOURCES: Final = ("stripe", "lemonsqueezy", "generic", "tally", "calcom", "clerk")
GIVE_UP_S: Final = 3.0  # when nothing changes any more
READY_S: Final = 20.0
_END_S: Final = 20.0
_SETTING_PREFIXES: Final = ("BRIDGE_", "DATAFAST_", "STRIPE_", "LEMONSQUEEZY_")
_OTHER_SETTINGS: Final = frozenset({"DATABASE_URL", "PORT", "WEB_CONCURRENCY"})
FORGED: Final = "forged"
REPEATED: Final = "repeated"
HERO: Final = "charge.refunded"  # of a sale on another device: neither the sale nor the refund names a visitor
_MANY: Final = 500
# A dispute names its charge, a charge its payment intent, and a session both the payment intent and the visitor.
_EARLY: Final = ("charge.dispute.created", "charge.succeeded", "checkout.session.completed")


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

    Starts a stand-in for DataFast and the bridge with the shipped mapping files, posts signed events from Tally,
    Cal.com, Clerk, Stripe, Lemon Squeezy and a custom application, and shows what happened to each. Nothing leaves
    this machine, no setting or database of yours is read or written, and nothing is left behind.
    """
    screen = current_screen()
    with _stopped_by_signals(), ExitStack() as stack:
        try:
            return _run(stack, screen, once=once, port=port, sandbox_port=sandbox_port)
        except KeyboardInterrupt:
            return 0 if not once else 1


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the demo the same way; a second signal during cleanup changes nothing."""

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
    stage = Stage(folder, _mappings(folder / "mappings", _SOURCES), port or _free_port(), sandbox_port or _free_port())
    environ = stage.environ(os.environ)
    parts = _start(stack, stage, environ)
    acts = play(secrets.randbits(32), int(time.time()))
    sent = [_post(act, stage) for act in acts]
    missing = _await(parts, acts, stage)
    rows = _rows(acts, sent, _read_events(stage.database), _recorded(stage))
    absent = [sentence(step, goal) for step, goal in missing]
    found = {"ok": not missing, "events": [row.to_json() for row in rows], "missing": absent}
    screen.write_json(found | {"bridge": stage.url, "sandbox": stage.sandbox_url})
    _table(screen, rows, len(expected(acts)), absent)
    if not screen.as_json:
        _hero(screen, rows, stage.folder, environ)
        if not once:
            _stay(screen, stage, parts)
    return 1 if missing else 0


@dataclass(frozen=True, slots=True)
class Stage:
    """The places of one run: a folder of its own, two ports, and newly made secrets."""

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
        """The bridge's environment, with a raised rate limit, because the stand-in has none."""
        return _clean_environment(base) | {
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


def _start(stack: ExitStack, stage: Stage, environ: Mapping[str, str]) -> tuple[DemoProcess, ...]:
    """Start the stand-in first, because the bridge is shown only once it can deliver."""
    fake = DemoProcess(
        "the stand-in for DataFast",
        ["sandbox", "--port", str(stage.sandbox_port), "--key", stage.key, *_KNOWS_ANYBODY],
        folder=stage.folder,
        environ=_clean_environment(os.environ),
    )
    bridge = DemoProcess("the bridge", ["serve"], folder=stage.folder, environ=environ)
    for part in (fake, bridge):
        stack.callback(part.stop)
        part.start()
    fake.wait(f"{stage.sandbox_url}/__fake__/clock")
    bridge.wait(f"{stage.url}/readyz")
    return fake, bridge


def _post(act: Act, stage: Stage) -> Sent:
    """Post one webhook, signed with its provider's secret or with another one."""
    known = dict(stage.secrets)
    if act.how == FORGED:
        known[act.step.source] = _secret()
    return next(simulator.play([act.step], [stage.url], known, time.time))


def _await(parts: Sequence[DemoProcess], acts: Sequence[Act], stage: Stage) -> list[tuple[Any, Any]]:
    """Wait until every expected goal has arrived; return what is missing when the time is up."""
    give_up_at = time.monotonic() + ARRIVE_S
    wanted = expected(acts)
    changed_at = time.monotonic()
    while True:
        missing = not_arrived(wanted, _recorded(stage))
        settled, now = _settled(_read_events(stage.database)), time.monotonic()
        changed_at = changed_at if settled else now
        if (settled and not missing) or now > give_up_at or now - changed_at > GIVE_UP_S:
            return missing
        for part in parts:
            part.check()
        time.sleep(_POLL_S)


def _recorded(stage: Stage) -> list[dict[str, Any]]:
    answer = _get(f"{stage.sandbox_url}/__fake__/events")
    answer.raise_for_status()
    events: list[dict[str, Any]] = json.loads(answer.content)["events"]
    return events


def _stay(screen: Screen, stage: Stage, parts: Sequence[DemoProcess]) -> None:
    """Wait until somebody stops the demo."""
    program = f"{_short(sys.executable)} -m bridge"
    name = simulator.secret_name("stripe")
    screen.section("Look around:")
    screen.line(f"  {stage.sandbox_url}/  the goals as the stand-in for DataFast received them")
    screen.line(f"  {stage.url}/console/  every event, goal and person; the token to sign in is {stage.admin}")
    screen.heading("Play more events, and look at the result:")
    screen.line(f"  {name}={stage.secrets['stripe']} {program} simulate stripe-subscription --to {stage.url}")
    screen.line(f"  DATABASE_URL={stage.database} {program} events")
    screen.say("Ctrl-C stops everything and leaves nothing behind.")
    screen.out.flush()
    while True:
        for part in parts:
            part.check()
        time.sleep(_POLL_S)


def _short(program: str) -> str:
    """A path as one would type it here."""
    inside = Path(program).is_relative_to(Path.cwd())
    return str(Path(program).relative_to(Path.cwd())) if inside else program


# ------------------------------------------------------------------------------------------------------ what is played


@dataclass(frozen=True, slots=True)
class Act:
    """One webhook. how: "" (as its provider sends it), `repeated`, or `forged` (signed with a wrong secret)."""

    step: Step
    how: str = ""


def play(seed: int, now_s: int) -> tuple[Act, ...]:
    """Everything that happens in the demo, in the order in which it is posted."""
    person = scenarios.build("across-tools", seed=seed, end_s=now_s, spread=True)
    early = {step.type: step for step in scenarios.build("stripe-dispute", seed=seed, end_s=now_s)}
    order = scenarios.build("lemonsqueezy-order", seed=seed, end_s=now_s)
    application = scenarios.build("generic-application", seed=seed, end_s=now_s)
    test = scenarios.build("stripe-purchase", seed=seed, end_s=now_s, test=True)[-1]
    forged = scenarios.build("lemonsqueezy-licence", seed=seed, end_s=now_s)[0]
    played = [Act(step) for step in (*person, *order, *application, *(early[name] for name in _EARLY), test)]
    return (*played, Act(checkout(person), REPEATED), Act(forged, FORGED))


def checkout(steps: Iterable[Step]) -> Step:
    return next(step for step in steps if step.type == "checkout.session.completed")


def expected(acts: Sequence[Act]) -> list[tuple[Step, Expected]]:
    """Every goal that must arrive, once each."""
    return [(act.step, goal) for act in acts if not act.how for goal in act.step.goals]


def not_arrived(
    wanted: Sequence[tuple[Step, Expected]], recorded: Iterable[Mapping[str, Any]]
) -> list[tuple[Step, Expected]]:
    """The expected goals that DataFast's stand-in did not record; each record counts for one of them."""
    left = list(recorded)
    absent = []
    for step, goal in wanted:
        found = next((record for record in left if _matches(record, goal)), None)
        if found is None:
            absent.append((step, goal))
        else:
            left.remove(found)
    return absent


def _matches(record: Mapping[str, Any], goal: Expected) -> bool:
    metadata = record["metadata"]
    return (
        record["name"] == goal.name
        and record["visitor"] == goal.visitor
        and all(metadata.get(key) == value for key, value in goal.metadata.items())
    )


def sentence(step: Step, goal: Expected) -> str:
    """The goal in words: `refund of stripe charge.refunded evt_… for visitor …`."""
    return f"{goal.name} of {step.source} {step.type} {step.id} for the visitor {goal.visitor}"


# ----------------------------------------------------------------------------------------------------- what came of it


def _read_events(url: str) -> list[EventLine]:
    """Every event with its goals, in the order of arrival."""
    with closing(store.open(url, pool_size=1)) as opened, opened.read() as conn:
        return queries.list_events(conn, queries.EventFilter(limit=_MANY))[::-1]


def _settled(seen: list[EventLine]) -> bool:
    """Whether every event is routed, and no goal is on its way."""
    return all(event.state != "received" and all(goal.state not in TO_SEND for goal in event.goals) for event in seen)


def _found_by(goal: GoalLine) -> str:
    """The kind of key that led to a goal's visitor; empty if the event itself names the visitor."""
    found = FoundVisitor.from_json(goal.provenance) if goal.provenance else None
    return "" if found is None or found.by == "own" else (found.kind or "").replace("_", " ")


_NOTES: Final = (
    "The repeated event made no second goal, the forged one was refused, and the test purchase is not sent.",
    "The dispute came before the checkout that names its visitor, and its goal waited for it.",
    "BRIDGE_WEAK_AFTER=1s, for this demo: by default the sale waits two minutes for an event that names its visitor.",
    "BRIDGE_MAX_AGE=30d, for this demo's ten days: by default no goal older than 7 days is sent.",
)
_STATES: Final = {"dry": "test mode"}


@dataclass(frozen=True, slots=True)
class Row:
    """One posted event and what became of it. seen: by the bridge; recorded: its goals at the stand-in."""

    act: Act
    sent: Sent
    seen: EventLine | None
    recorded: tuple[Mapping[str, Any], ...]

    @property
    def verdict(self) -> str:
        if self.seen is not None:
            return self.seen.verdict or self.seen.state
        return self.sent.answer if self.sent.ok else "refused"

    def goals(self) -> str:
        if self.recorded:
            return ", ".join(map(_goal_text, self.recorded))
        kept = self.seen.goals if self.seen else ()
        return ", ".join(f"{goal.name} ({_STATES.get(goal.state, goal.state)})" for goal in kept)

    def cells(self) -> tuple[str, ...]:
        visitor = self.recorded[0]["visitor"][:6] if self.recorded else ""
        if visitor and self.seen and (kind := _found_by(self.seen.goals[0])):
            visitor += f" by {kind}"
        return (self.act.step.source, self.act.step.type, self.verdict, self.goals(), visitor)

    def to_json(self) -> dict[str, Any]:
        step = self.act.step
        named = ("name", "visitor", "description", "metadata")
        return {
            "source": step.source,
            "type": step.type,
            "id": step.id,
            "carries_visitor": step.visitor is not None,
            "answer": self.sent.answer,
            "verdict": self.verdict,
            "goals": [{name: record[name] for name in named} for record in self.recorded],
            "kept": [{"name": goal.name, "state": goal.state} for goal in (self.seen.goals if self.seen else ())],
        }


def _rows(
    acts: Sequence[Act], sent: Sequence[Sent], seen: Sequence[EventLine], recorded: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """The posted events, each with what became of it.

    The bridge numbers events in the order of arrival, so the n-th accepted one is its event n.
    """
    stored, by_id = iter(seen), {record["event_id"]: record for record in recorded}
    result = []
    for act, outcome in zip(acts, sent, strict=True):
        event = next(stored, None) if outcome.answer == "accepted" else None
        ids = [goal.datafast_event_id or "" for goal in event.goals] if event else []
        result.append(Row(act, outcome, event, tuple(by_id[id_] for id_ in ids if id_ in by_id)))
    return result


def _goal_text(record: Mapping[str, Any]) -> str:
    """`refund 49.00 USD`, or the goal's name with its first value."""
    metadata = record["metadata"]
    amount = metadata.get("amount") or metadata.get("refunded_total")
    if amount:
        return f"{record['name']} {amount} {metadata.get('currency', '')}".rstrip()
    values = [value for name, value in metadata.items() if name not in ("provider", "occurred_at")]
    return " ".join([record["name"], *values[:1]])


def _table(screen: Screen, rows: Sequence[Row], wanted: int, absent: Sequence[str]) -> None:
    """Print each event, its verdict and the goal as the stand-in recorded it; then whether all have arrived."""
    shown = [row for row in rows if row.verdict != "unmatched"]
    screen.table(("source", "event", "verdict", "goal at DataFast", "visitor"), [row.cells() for row in shown])
    screen.say()
    screen.say(f"{len(rows) - len(shown)} more events made no goal; some of them tie the ids of a purchase together.")
    if not absent:
        screen.say(f"All {wanted} expected goals arrived, each once.", style=GOOD)
    else:
        screen.say(f"{len(absent)} of {wanted} expected goals did not arrive:", style=BAD)
        for sentence in absent:
            screen.say(sentence, indent=2)
    for note in _NOTES:
        screen.say(note)


def _hero(screen: Screen, rows: Sequence[Row], folder: Path, environ: Mapping[str, str]) -> None:
    """Print the refund of a sale on another device: how its visitor was found, and the whole answer of `why`."""
    row = next(row for row in rows if row.act.step.type == HERO)
    screen.section("Neither the sale at Stripe nor its refund names a visitor, yet both are attributed:")
    for goal in row.seen.goals if row.seen else ():
        for part in (how_known(goal) or "has no visitor").split(", "):
            screen.say(part, indent=2)
    command = [sys.executable, "-m", "bridge", "why", row.act.step.id]
    answer = subprocess.run(command, cwd=folder, env=dict(environ), capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter and module
    if answer.returncode == 0:
        screen.section(f"$ python -m bridge why {row.act.step.id}")
        for line in answer.stdout.rstrip().splitlines():
            screen.line(line)


# ------------------------------------------------------------------------------------------------------- its processes


def _free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def _clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without any setting of a real bridge, in which this package can be imported from any folder."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_SETTING_PREFIXES)
        and not name.endswith(("_WEBHOOK_SECRET", "_WEBHOOK_SECRET_OLD"))
        and name not in _OTHER_SETTINGS
        and not is_host_variable(name)
    }
    paths = [str(Path(bridge.__file__).parents[1]), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def _mappings(folder: Path, sources: Iterable[str]) -> Path:
    """Make a folder of mapping files in which each source extends the shipped file of its name."""
    if not (rules.SHIPPED / "stripe.yaml").is_file():
        raise BridgeError(f"the demo needs the shipped mapping files, but {rules.SHIPPED} has none: install it again")
    folder.mkdir()
    for source in sources:
        (folder / f"{source}.yaml").write_text(f"extends: {source}\n")
    return folder


class DemoProcess:
    """One process: `python -m bridge …` in a folder, with its output in a file there.

    It has a session of its own, so that Ctrl-C reaches only the demo, which then ends its processes in order.
    """

    def __init__(self, name: str, arguments: Sequence[str], *, folder: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "bridge", *arguments]
        self._folder, self._environ = folder, environ
        self._log = folder / f"{arguments[0]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process. Register `stop` first, so that an interruption leaves nothing behind."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command,
                cwd=self._folder,
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ask the process to end, and kill it if it does not; every process that it started ends with it."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wait(self, url: str) -> None:
        """Wait until the URL answers 200; BridgeError says in one sentence why it does not."""
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            self.check()
            with suppress(requests.RequestException):
                if _get(url).status_code == requests.codes.ok:
                    return
            time.sleep(_POLL_S)
        raise BridgeError(f"{self.name} did not answer within {READY_S:.0f} s at {url}: {self._last_log_line()}")

    def check(self) -> None:
        """Raise BridgeError if the process has ended."""
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            raise BridgeError(f"{self.name} ended by itself (exit code {code}): {self._last_log_line()}")

    def _last_log_line(self) -> str:
        lines = [line.strip() for line in self._log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return _message_of(lines[-1]) if lines else "it printed nothing"


def _message_of(line: str) -> str:
    """The message of a structured log line; any other line unchanged."""
    with suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            return str(entry.get("message") or entry.get("event") or line)
    return line


def _get(url: str) -> requests.Response:
    """Make one request to this machine, whatever proxy or .netrc the user has."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=5, allow_redirects=False)
