"""`sandbox` and `simulate`: DataFast and the providers, played on this machine.

Together with `serve` they play a whole sale, without a key and without anybody's money. The scenarios and the stand-in
are in `bridge.sandbox`; this is their command line.
"""

from __future__ import annotations

import random
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli import resources
from bridge.cli.catalogue import command
from bridge.cli.formatting import count
from bridge.cli.screen import of_context
from bridge.errors import BridgeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.cli.screen import Screen
    from bridge.sandbox.scenarios import Step
    from bridge.sandbox.simulator import Sent

_SECRET: Final = "whsec_of_the_sandbox"  # noqa: S105 - of a play
_DATABASE: Final = "DATABASE_URL=sqlite:///sandbox.db"  # what waits in a real one must not go to the sandbox


@command(
    examples=[
        ("sandbox", "listens on 127.0.0.1:8100 and knows every visitor"),
        (
            "sandbox --option rate_per_minute=600 --option suspended=true",
            "a DataFast that behaves differently; a wrong NAME lists all options",
        ),
    ]
)
@click.option("--port", type=click.IntRange(0, 65_535), default=8100, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--key", "keys", multiple=True, default=("df_sandbox",), show_default="df_sandbox", help="A website's API key."
)
@click.option(
    "--visitor",
    type=click.Choice(["seeded", "any"]),
    default="any",
    show_default=True,
    help="Know any visitor, or only the seeded ones (as DataFast does).",
)
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="A switch of the stand-in (JSON value).")
def sandbox(port: int, host: str, keys: Sequence[str], visitor: str, options: Sequence[str]) -> None:
    """Run a stand-in for DataFast that shows the goals it received on a page.

    It follows DataFast's documents: keys, limits, the rate limit of 60 requests per minute, unknown visitors. Point a
    bridge at it with DATAFAST_API_URL and DATAFAST_API_KEY, as it says when it starts. Nothing leaves this machine.
    """
    from bridge.sandbox import server
    from bridge.sandbox.options import Options, changed

    screen = of_context()
    try:
        chosen = changed(Options(keys=tuple(keys), known="any" if visitor == "any" else "seeded"), _switches(options))
        running = server.Sandbox(chosen, host=host, port=port)
    except ValueError as error:
        raise UsageError(f"--option: {error}") from None
    except OSError as error:
        raise BridgeError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None
    _introduce(screen, running.url, running.api_url, keys[0] if keys == ("df_sandbox",) else "<the key>")
    try:
        running.run()
    except KeyboardInterrupt:
        screen.say("Stopped.")


def _switches(options: Sequence[str]) -> dict[str, Any]:
    import json

    values: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals:
            raise ValueError(f"{option!r} has no value; write NAME=VALUE")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _introduce(screen: Screen, url: str, api_url: str, key: str) -> None:
    from bridge.sandbox.simulator import secret_name

    if screen.as_json:
        screen.write_json({"url": url, "api_url": api_url})
    else:
        screen.say(f"The sandbox listens on {url}: open it in a browser to see the goals. Ctrl-C stops it.")
        me = f"{shlex.quote(sys.executable)} -m bridge"
        secret = f"{secret_name('stripe')}={_SECRET}"
        screen.say("For the bridge, with a database of its own:")
        there = f"DATAFAST_API_URL={api_url} DATAFAST_API_KEY={key} {_DATABASE}"
        screen.line(f"    {there} {secret} {me} serve --port 8000")
        screen.say("For a sale, once the bridge listens:")
        screen.line(f"    {secret} {me} simulate stripe-purchase --to http://127.0.0.1:8000")
    screen.out.flush()


@command(
    examples=[
        ("simulate --list", "every scenario, a line each"),
        ("simulate stripe-refund --to http://127.0.0.1:8000", "a purchase, and its refund that carries no visitor id"),
        (
            "simulate stripe-purchase --to http://127.0.0.1:8000 --set data.object.amount_total=0",
            "the same with another value in the body",
        ),
    ]
)
@click.argument("scenario", required=False)
@click.option(
    "--to", "targets", multiple=True, metavar="URL", help="The bridge (several take turns), or one whole URL."
)
@click.option(
    "--set", "sets", multiple=True, metavar="PATH=VALUE", help="Put a value at this path of every body that has it."
)
@click.option("--seed", type=int, help="The same seed gives the same ids; without one, every run is a new sale.")
@click.option("--test", is_flag=True, help="Send what the provider sends in test mode.")
@click.option("--duplicates", is_flag=True, help="Send events again, as providers do.")
@click.option("--shuffle", is_flag=True, help="Send the events in any order.")
@click.option("--list", "listed", is_flag=True, help="List the scenarios.")
def simulate(
    scenario: str | None,
    targets: Sequence[str],
    sets: Sequence[str],
    seed: int | None,
    test: bool,
    duplicates: bool,
    shuffle: bool,
    listed: bool,
) -> None:
    """Post the signed events of a named scenario to a bridge.

    Events are signed with the variables that the bridge reads (STRIPE_WEBHOOK_SECRET, …), so set the same values.
    Exit code 1: an event was not answered with 200.
    """
    screen = of_context()
    if listed:
        _list(screen)
        return
    if scenario is None or not targets:
        raise UsageError("Name a scenario and a URL: simulate stripe-refund --to http://127.0.0.1:8000 (or --list).")
    chosen = random.randrange(1_000_000) if seed is None else seed  # noqa: S311 - a play, not a secret
    steps = _steps(scenario, sets, seed=chosen, test=test, duplicates=duplicates, shuffle=shuffle)
    sent = _play(screen, steps, targets)
    if screen.as_json:
        screen.write_json({"seed": chosen, "sent": [_row(one) for one in sent]})
    elif not all(one.ok for one in sent):
        screen.say(f"{count(sum(not one.ok for one in sent), 'event')} not accepted.")
    if not all(one.ok for one in sent):
        raise click.exceptions.Exit(1)


def _list(screen: Screen) -> None:
    from bridge.sandbox.scenarios import SCENARIOS

    rows = [(one.name, one.help, " ".join(one.shapes)) for one in SCENARIOS.values()]
    if screen.as_json:
        screen.write_json([{"name": name, "help": text, "versions": shapes.split()} for name, text, shapes in rows])
        return
    screen.table(("SCENARIO", "WHAT HAPPENS", "VERSIONS (name@version)"), rows)


def _steps(
    scenario: str, sets: Sequence[str], *, seed: int, test: bool, duplicates: bool, shuffle: bool
) -> tuple[Step, ...]:
    from bridge.sandbox import mix, scenarios

    steps = scenarios.build(scenario, seed=seed, end_s=int(time.time()), test=test)
    steps = mix.changed(steps, [mix.parse_set(text) for text in sets])
    if duplicates:
        steps = mix.duplicated(steps, seed=seed)
    return mix.reordered(steps, seed=seed) if shuffle else steps


def _play(screen: Screen, steps: Sequence[Step], targets: Sequence[str]) -> list[Sent]:
    from bridge.sandbox import simulator

    for to in targets:
        simulator.target(to, "")  # a wrong URL is said before anything is sent
    secrets = simulator.secrets_from(resources.environ(), steps)
    sent = []
    for one in simulator.play(steps, targets, secrets, now_s=time.time, sleep=time.sleep):
        sent.append(one)
        if one.unreachable:
            raise BridgeError(
                f"{one.url} cannot be reached ({one.answer}): start the bridge with `python -m bridge serve`, or name"
                f" another --to; {len(sent) - 1} of {count(len(steps), 'event')} sent before"
            )
        if not screen.as_json:
            answer = one.answer if one.status is None else f"{one.status} {one.answer}"
            screen.mark("ok" if one.ok else "fail", f"{one.step.type} {one.step.id}: {answer}")
    return sent


def _row(one: Sent) -> dict[str, Any]:
    return {
        "type": one.step.type,
        "id": one.step.id,
        "url": one.url,
        "status": one.status,
        "answer": one.answer,
        "ms": round(one.ms, 1),
    }
