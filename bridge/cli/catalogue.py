"""The list of commands, in the order of `--help`, and the format of a help page.

A command is listed here with one sentence and loaded only when it runs, so that `--help` and a mistyped name answer
at once. The eight everyday commands set the bridge up, edit a rule, and find out what became of a sale; those that run
or repair the bridge, or try things out, follow.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

import bridge
from bridge.cli.screen import hang_up
from bridge.settings import TABLE, Setting

EVERYDAY: Final = {
    "serve": ("serve", "Start the bridge: receive webhooks, send goals."),
    "check": ("check", "Check the settings and the mapping files, and run their tests."),
    "sources": ("sources", "Show the URL, secret and event types that each provider needs."),
    "doctor": ("doctor", "Test the whole setup, down to a goal that arrives in DataFast."),
    "explain": ("explain", "Show what an event would do, and why. Nothing is sent."),
    "why": ("why", "Show what happened to an event, goal, customer or visitor."),
    "events": ("events", "List, show and replay received webhooks."),
    "goals": ("goals", "List, show, retry and cancel goals."),
}
MORE: Final = {
    "init": ("init", "Write a folder that is ready to deploy, for the tools that you name."),
    "worker": ("serve", "Route events and send goals in a separate process."),
    "migrate": ("serve", "Bring the database to this release's schema."),
    "restored": ("restored", "Tell the bridge that a backup was restored, so that nothing is sent twice."),
    "links": ("links", "Show, add and forget the links from keys to visitors."),
    "alerts": ("alerts", "Show the messages to BRIDGE_ALERTS, and test its targets."),
    "report": ("report", "Show the goals, money and visitors of the last few days."),
    "coverage": ("report", "Show event types that no rule uses, and rules that made no goal."),
    "backtest": ("report", "Show which goals other rules would have made from the stored events."),
    "relearn": ("links", "Learn links again from the stored events."),
    "forget": ("links", "Remove everything that is stored about a person."),
    "snippet": ("snippet", "Print the script that hands visitors over to links, bookings and forms."),
    "detect": ("detect", "Find the signature scheme of a captured request."),
    "simulate": ("simulate", "Post a provider's signed events, or a file of your own, to a bridge."),
    "sandbox": ("sandbox", "Run a stand-in for DataFast on this machine."),
    "demo": ("demo", "See the bridge at work on this machine in a minute."),
}
_ATTRIBUTES: Final = {"forget": "forget_person"}  # `forget` exists in `links`, too
_WIDEST: Final = 100
_UNWRAPPED: Final = 10_000


def help_width() -> dict[str, int]:
    """Settings by which piped help is not wrapped, so that `… --help | grep` finds whole lines."""
    return {"max_content_width": _WIDEST} if sys.stdout.isatty() else {"terminal_width": _UNWRAPPED}


class Command(click.Command):
    """A command whose help has examples: pairs of a line to type and what it does."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params.append(_json_option())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_options(ctx, formatter)


class Section(Command, click.Group):
    """A command with subcommands, one of which runs if none is named."""

    command_class = Command

    def __init__(self, *args: Any, default: str | None = "list", **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": default is None, **kwargs})
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Run the default for `goals --state held`, as if it were `goals list --state held`."""
        if self.default is not None and (not args or (args[0].startswith("-") and args[0] not in ("--help", "-h"))):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


def command(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command whose help has examples: `@command(examples=[…])`."""
    return click.command(name, cls=Command, **settings)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[tuple[str, str]]) -> None:
    """Write each line to type, with what it does below it."""
    if not examples:
        return
    with formatter.section("Examples"):
        for line, meaning in examples:
            # An example that names the program may begin with `cat … |`.
            typed = line if "python -m bridge" in line else f"python -m bridge {line}"
            formatter.write(f"  {typed}\n")
            with formatter.indentation(), formatter.indentation():
                formatter.write_text(meaning)


def _json_option() -> click.Option:
    """For the help page only: `main` removes `--json` from the line before click sees it."""
    return click.Option(["--json"], is_flag=True, expose_value=False, help="Answer as JSON, for scripts.")


class Catalogue(click.Group):
    """`python -m bridge` itself."""

    def __init__(self) -> None:
        super().__init__(
            name="bridge",
            context_settings={"help_option_names": ["--help", "-h"], **help_width()},
            help=(
                "The webhook URL that you paste into Stripe, Lemon Squeezy and others. The bridge verifies each event,"
                " finds the DataFast visitor it belongs to, and sends the goal that your mapping files describe."
            ),
            params=[_json_option()],
        )
        shown = "datafast-bridge %(version)s"
        click.version_option(bridge.__version__, message=shown, help="Show the version.")(self)

    def invoke(self, ctx: click.Context) -> Any:
        """Like click's, except that a reader that is gone (`| head`) is not a failure: click would exit with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            hang_up()
            return 0

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*EVERYDAY, *MORE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        known = {**EVERYDAY, **MORE}
        if cmd_name not in known:
            return None
        module = importlib.import_module(f"bridge.cli.{known[cmd_name][0]}")
        loaded: click.Command = getattr(module, _ATTRIBUTES.get(cmd_name, cmd_name))
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, but suggestions come from the catalogue, because no command is loaded yet."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for heading, commands in (("Everyday commands", EVERYDAY), ("More commands", MORE)):
            with formatter.section(heading):
                formatter.write_dl([(name, sentence) for name, (_module, sentence) in commands.items()])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands first, because people look for them."""
        self.format_commands(ctx, formatter)
        write_examples(
            formatter,
            [
                ("check", "before anything else: every problem with settings and mapping files, one per line"),
                ("why cus_9s6XKzkNRiz8i3", "what the bridge knows about a customer, as a timeline"),
            ],
        )
        click.Command.format_options(self, ctx, formatter)
        write_settings(formatter, advanced=False)


def write_settings(formatter: click.HelpFormatter, *, advanced: bool) -> None:
    """Write the table of settings as a section of a help page."""
    everyday = [setting for setting in TABLE if setting.group == "everyday"]
    rest = [setting for setting in TABLE if setting.group != "everyday"]
    with formatter.section("Settings (environment variables, or .env where you start it)"):
        rows = [(setting.name, _meaning(setting)) for setting in everyday]
        rows += [("…_WEBHOOK_SECRET", "one per source, as its mapping file names it; …_OLD holds the previous one")]
        formatter.write_dl(rows, col_max=24)
        if not advanced:
            formatter.write_paragraph()
            names = ", ".join(setting.name for setting in rest)
            formatter.write_text(f"Advanced, explained by `python -m bridge serve --help`: {names}")
    if advanced:
        with formatter.section("Advanced settings (durations are written 500ms, 5s, 2min, 1h, 3d)"):
            formatter.write_dl([(setting.name, _meaning(setting)) for setting in rest], col_max=32)


def _meaning(setting: Setting) -> str:
    return setting.help if setting.default is None else f"{setting.help} [{setting.default}]"
