"""`sandbox`: the command line of `bridge.sandbox`, a stand-in for DataFast on this machine.

Together with `simulate` and `serve`, it plays a whole sale without a key and without anybody's money.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, UsageError
from bridge.sandbox import server
from bridge.sandbox.options import Options, changed
from bridge.sandbox.simulator import secret_name

_SECRET: Final = "whsec_of_the_sandbox"  # noqa: S105 - of the sandbox only
_DATABASE: Final = "DATABASE_URL=sqlite:///sandbox.db"  # goals that wait in a real database must not go to the sandbox


@command(
    examples=[
        ("sandbox", "listens on 127.0.0.1:8100 and knows every visitor"),
        (
            "sandbox --option rate_per_minute=600 --option suspended=true",
            "a DataFast that behaves differently; a wrong NAME lists all options",
        ),
    ]
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=8100,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--key",
    "keys",
    metavar="KEY",
    multiple=True,
    default=("df_sandbox",),
    show_default="df_sandbox",
    help="A website's API key.",
)
@click.option(
    "--visitor",
    type=click.Choice(["seeded", "any"]),
    default="any",
    show_default=True,
    help="Know any visitor, or only the seeded ones (as DataFast does).",
)
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="Change a behaviour of the stand-in (JSON value)."
)
def sandbox(port: int, host: str, keys: Sequence[str], visitor: str, options: Sequence[str]) -> None:
    """Run a stand-in for DataFast, with a page that shows the goals it received.

    It follows DataFast's documentation: keys, limits, the rate limit of 60 requests per minute, unknown visitors. To
    point a bridge at it, set DATAFAST_API_URL and DATAFAST_API_KEY as it says when it starts. Nothing leaves this
    machine.
    """
    screen = current_screen()
    try:
        defaults = Options(keys=tuple(keys), known="any" if visitor == "any" else "seeded")
        chosen = changed(defaults, _parsed_options(options))
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


def _parsed_options(options: Sequence[str]) -> dict[str, Any]:
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
    screen.write_json({"url": url, "api_url": api_url})
    screen.say(f"The sandbox listens on {url}: open it in a browser to see the goals. Ctrl-C stops it.")
    program = f"{shlex.quote(sys.executable)} -m bridge"
    secret = f"{secret_name('stripe')}={_SECRET}"
    screen.say("For the bridge, with a database of its own:")
    variables = f"DATAFAST_API_URL={api_url} DATAFAST_API_KEY={key} {_DATABASE}"
    screen.line(f"    {variables} {secret} {program} serve --port 8000")
    screen.say("For a sale, once the bridge listens:")
    screen.line(f"    {secret} {program} simulate stripe-purchase --to http://127.0.0.1:8000")
    screen.out.flush()
