"""Writes the parts of the docs that the code knows best: `make docs`. A test compares them with what is checked in.

Whole files: settings.md, commands.md, providers.md, rooms.md with its picture, mapping.schema.json, fields.json,
`.env.example` and the script that the bridge serves.

In other files, only what is between `<!-- generated: NAME -->` and `<!-- /generated -->` is written; everything around
it is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bridge import rules, snippet
from bridge.cli.catalogue import EVERYDAY, MORE, Catalogue, Command
from bridge.presets import presets
from bridge.server import framing
from bridge.settings import TABLE, Setting
from bridge.web.hooks import FAILED, REFUSALS, USE_POST, HttpAnswer
from docs import fields, providers, rooms, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT: Final = Path(__file__).parents[1]
PARTLY: Final = ("http", "performance", "rules", "snippet")
NOTE: Final = "<!-- Written by `make docs`; change the code instead. -->"
_DATABASE: Final = re.compile(r"^(?:SQLite|PostgreSQL)(?:: |, )")
_PART: Final = re.compile(r"(<!-- generated: ([a-z]+) -->\n)(.*?)(<!-- /generated -->)", re.DOTALL)


def pages() -> dict[str, Callable[[], str]]:
    """Path below the repository -> what writes its text, of everything that is generated wholly or in part."""
    whole: dict[str, Callable[[], str]] = {
        "bridge/rules/reading/fields.json": fields.page,
        ".env.example": env_example,
        "docs/commands.md": commands,
        "docs/mapping.schema.json": schema,
        "docs/providers.md": lambda: providers.table() + verdicts(),
        "docs/rooms.md": lambda: rooms.page(NOTE),
        "docs/rooms.svg": rooms.picture,
        "docs/settings.md": settings,
    }
    whole[f"bridge/snippet/hosted/{snippet.file_name(snippet.script())}"] = snippet.script
    return whole | {f"docs/{name}.md": partial(with_parts, f"docs/{name}.md") for name in PARTLY}


def schema() -> str:
    """What editors check mapping files with."""
    return json.dumps(rules.schema_json(), indent=1, ensure_ascii=False) + "\n"


def with_parts(name: str) -> str:
    """A page with its generated parts written anew."""
    text = (ROOT / name).read_text()
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[4]}", text)


# ------------------------------------------------------------------------------------------------------- settings


SETTINGS: Final = """\
# Settings

{note}

Settings are environment variables. On your own machine the bridge also reads `.env` in the folder where you start it;
it never overrides a variable, and is not read on a dyno (where `DYNO` is set). `python -m bridge check` lists every
wrong value. Copy [.env.example](../.env.example) to get started.

| name | default | meaning |
|---|---|---|
{everyday}
| `<SOURCE>_WEBHOOK_SECRET` | unset | {secret} |
| `<SOURCE>_WEBHOOK_SECRET_OLD` | unset | {before} |
| `<SOURCE>_VERIFY_TOKEN` | unset | {verify_token} |

## Advanced

Durations are written `500ms`, `5s`, `2min`, `1h`, `3d`. A schedule is a list of durations. The last one repeats until
the time after `...` is over, counted from the first try (72 h if none is given).

| name | default | meaning |
|---|---|---|
{advanced}

The bridge also reads variables that others set. It recognises Heroku (`DYNO`), Render, Railway, Fly.io, Cloud Run,
App Engine, Azure, Koyeb and Northflank by the variables that these hosts set. Their disks do not last, so the bridge
refuses a SQLite database there, unless it lies below `RAILWAY_VOLUME_MOUNT_PATH` or Azure's `/home`, or
`BRIDGE_ALLOW_EPHEMERAL=1` says that the disk lasts (a volume of Fly.io, a disk of Render).
`HEROKU_APP_DEFAULT_DOMAIN_NAME` tells `sources` the bridge's own address. The bridge reads no proxy headers and ignores
`WEB_CONCURRENCY`.
"""
PER_SOURCE: Final = (
    "the secret of one source, as its mapping file names it: `STRIPE_WEBHOOK_SECRET`, `LEMONSQUEEZY_WEBHOOK_SECRET`, …"
    " It holds one secret, or several if each has the provider's own form (`whsec_…`, `pdl_ntfset_…`) and commas or"
    " white space separate them. If it is unset, empty, or evidently not a secret, that source answers 503, and the"
    " others work"
)
PER_SOURCE_OLD: Final = (
    "the previous secret, which also works while you rotate it; every variable that a mapping file names in `secret`"
    " has one"
)
PER_SOURCE_VERIFY: Final = (
    "a string of your own that a provider repeats when it checks the URL (Meta). If it is unset, the provider is"
    " answered 401"
)


def settings() -> str:
    """The table of settings as a page."""
    rows = {
        group: "\n".join(_row(setting) for setting in TABLE if setting.group == group)
        for group in ("everyday", "advanced")
    }
    return SETTINGS.format(note=NOTE, secret=PER_SOURCE, before=PER_SOURCE_OLD, verify_token=PER_SOURCE_VERIFY, **rows)


def _row(setting: Setting) -> str:
    default = "unset" if setting.default is None else f"`{setting.default}`"
    return f"| `{setting.name}` | {default} | {_escaped(setting.help)} |"


def _escaped(text: str) -> str:
    """Prose in a Markdown table: no cell ends and no tag begins in it."""
    return text.replace("|", "\\|").replace("<", "\\<")


def env_example() -> str:
    """Every everyday setting, commented out, with what it means and its default."""
    lines = ["# Copy this file to .env and fill in what you need; you can begin without it. docs/settings.md has more."]
    for setting in (setting for setting in TABLE if setting.group == "everyday"):
        default = "" if setting.default is None else f" [{setting.default}]"
        lines += ["", f"# {setting.help}{default}", f"#{setting.name}={setting.default or ''}"]
        if setting.name == "DATAFAST_API_URL":
            lines += [
                "",
                "# The secrets that the providers show, one per source; `python -m bridge sources` says where.",
            ]
            lines += [
                "# Write the bare value. While you rotate a secret, put the previous one into the same name with _OLD"
            ]
            lines += [f"#{name}=" for name in _secrets_of_shipped_files()]
    return "\n".join(lines) + "\n"


def _secrets_of_shipped_files() -> list[str]:
    shipped = rules.load(rules.read_files(ROOT / "mappings"), {}, presets())
    return sorted({name for source in shipped.sources.values() for name in source.secret_names}, reverse=True)


# ------------------------------------------------------------------------------------------------------- commands


COMMANDS: Final = """\
# Commands

{note}

Write `python -m bridge COMMAND`, or after `pip install .` also `datafast-bridge COMMAND`. With `--json`, anywhere on
the line, the answer is one JSON document. `--help` prints what this page says. Piped output is plain and never wrapped.
The exit code is 0 if all is well, 1 if the answer is no, 2 if the command was used wrongly, and 130 after Ctrl-C.

"""


def commands() -> str:
    """Every command with its arguments, options and examples, as click knows them."""
    lines = []
    for heading, named in (("Everyday", EVERYDAY), ("More", MORE)):
        lines += [f"## {heading}", ""]
        for name in named:
            lines += _command(every_command()[name], name)
    return COMMANDS.format(note=NOTE) + "\n".join(lines).rstrip() + "\n"


def every_command() -> dict[str, click.Command]:
    """Name on the line (`goals retry`) -> command, in the order of `--help`."""
    found = {}
    catalogue = Catalogue()
    context = click.Context(catalogue)
    for name in catalogue.list_commands(context):
        command = catalogue.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {sub}": below for sub, below in command.commands.items()}
    return found


def _command(command: click.Command, name: str) -> Iterator[str]:
    depth = "###" if " " not in name else "####"
    usage = " ".join(["python -m bridge", name, *_arguments(command)])
    yield from (f"{depth} `{name}`", "", _text(command.help or ""), "", "```", usage, "```", "")
    options = [param for param in command.params if isinstance(param, click.Option) and param.opts != ["--json"]]
    if options:
        yield from ("| option | meaning |", "|---|---|")
        yield from (_option(option, click.Context(command)) for option in options)
        yield ""
    if isinstance(command, Command):
        for line, meaning in command.examples:
            typed = line if "python -m bridge" in line else f"python -m bridge {line}"
            yield f"- `{typed}`: {_escaped(meaning)}"
        yield ""
    if isinstance(command, click.Group):
        for sub, below in command.commands.items():
            yield from _command(below, f"{name} {sub}")


def _arguments(command: click.Command) -> Iterator[str]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        yield "[" + "|".join(command.commands) + "]"
    for param in command.params:
        if isinstance(param, click.Argument):
            yield param.make_metavar(context)


def _option(option: click.Option, context: click.Context) -> str:
    written = option.opts[0]
    if not option.is_flag:
        written += f" {option.make_metavar(context)}"
    stated = option.show_default if isinstance(option.show_default, str) else option.default
    default = "" if option.is_flag or stated is None or not option.show_default else f" [{stated}]"
    cell = written.replace("|", "\\|")
    return f"| `{cell}` | {_escaped((option.help or '').strip())}{default} |"


def _text(text: str) -> str:
    """A docstring as Markdown: its paragraphs, each unwrapped."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


# ------------------------------------------------------------------------------------------------------ providers


VERDICTS: Final = """\

## Verdicts

`make oracles` gives the same requests to a provider's own library (or that of its scheme) and to the bridge: valid and
altered requests, requests with another secret, without a signature or with several, requests that are too old or too
far ahead, and every form that the provider has used. The bridge's tests sign them, and so does every library that can
sign. Both sides must give the same verdict. Where they differ on purpose, the table says why.

| provider | checked | against | requests | verdict |
|---|---|---|---|---|
"""


def verdicts() -> str:
    """What `make oracles ARGS=--write` kept, as a section."""
    kept = json.loads((ROOT / "docs/oracles.json").read_text())
    return VERDICTS + "".join(_verdict(**verdict) for verdict in kept)


def _verdict(*, preset: str, how: str, against: str, cases: int, differences: list[str]) -> str:
    verdict = "; ".join(["same", *(f"but {why}" for why in differences)])
    return f"| `{preset}` | {how} | {against} | {cases} | {_escaped(verdict)} |\n"


# ---------------------------------------------------------------------------------------------- parts of other pages


def language() -> str:
    """The reference of the rule language, one heading deeper than the page."""
    body = rules.reference().split("\n", 4)[4]
    return re.sub(r"^## ", "### ", body, flags=re.MULTILINE).strip() + "\n"


def answers() -> str:
    """The answers that a sender may get, besides 200."""
    rows = [_answer(answer) for answer in (*REFUSALS.values(), FAILED, USE_POST)]
    return "\n".join(["| status | body | headers |", "|---|---|---|", *rows]) + "\n"


def _answer(answer: HttpAnswer) -> str:
    headers = [f"`{name}: {value}`" for name, value in answer.headers if name in ("Retry-After", "Allow", "Connection")]
    return f"| {answer.status} | {answer.body.decode().strip()} | {', '.join(headers)} |"


def door() -> str:
    """The answers to bytes that never become a request."""
    rendered = dict.fromkeys(
        (
            framing.MALFORMED,
            framing.TOO_LATE,
            *dict(framing.REFUSALS).values(),
            framing.NO_PLACE,
            framing.FAILED,
        )
    )
    rows = [_raw_answer(*answer.decode().split("\r\n\r\n")) for answer in rendered]
    return "\n".join(["| status | body | headers |", "|---|---|---|", *rows]) + "\n"


def _raw_answer(head: str, body: str) -> str:
    status, *headers = head.split("\r\n")
    shown = [f"`{header}`" for header in headers if header.startswith("Retry-After")]
    return f"| {status.partition(' ')[2]} | {body.strip()} | {', '.join(shown)} |"


def tools() -> str:
    """What the snippet does for each tool."""
    rows = [_tool(name, **known) for name, known in snippet.TOOLS.items()]
    return "\n".join(["| tool | links and forms to | parameter | also |", "|---|---|---|---|", *rows]) + "\n"


def _tool(name: str, *, keys: list[str], hosts: list[str] | None = None, **known: Any) -> str:
    """A row. Besides addresses, an attribute or an option of the tool's own function carries the visitor."""
    where = ", ".join(f"`{host}{known.get('path', '')}`" for host in hosts or ())
    only = " (forms only)" if known.get("forms") else ""
    written = ", ".join(f"`{'#' if known.get('fragment') else ''}{key}={known.get('prefix', '')}…`" for key in keys)
    carriers = [mark[1] for mark in known.get("marks", ())] + [
        f"{call[0]}({call[2]})" for call in known.get("calls", ())
    ]
    return f"| `{name}` | {where}{only} | {written} | {', '.join(f'`{carrier}`' for carrier in carriers)} |"


DATABASES: Final = ("SQLite", "PostgreSQL")


def figures() -> str:
    """The figures without a budget, from the latest measurement that was kept."""
    rows = [f"| {what} | {_cells(found)} |" for what, found in _kept().items() if not found[0]["budget"]]
    return "\n".join(["| what | SQLite | PostgreSQL |", "|---|---|---|", *rows]) + "\n"


def budgets() -> str:
    """The figures with a budget, from the same measurement."""
    marks = {True: "yes", False: "**no**"}
    rows = [
        f"| {what} | {_cells(found)} | {found[0]['budget']} {found[0]['unit']}"
        f" | {marks[all(figure['ok'] for figure in found)]} |"
        for what, found in _kept().items()
        if found[0]["budget"]
    ]
    return "\n".join(["| what | SQLite | PostgreSQL | budget | kept |", "|---|---|---|---|---|", *rows]) + "\n"


def _kept() -> dict[str, list[dict[str, Any]]]:
    """What is measured -> its figures: of SQLite and of PostgreSQL, or one that needs no database."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for figure in json.loads((ROOT / "docs/figures.json").read_text()):
        by_name.setdefault(_DATABASE.sub("", figure["what"]), []).append(figure)
    return by_name


def _cells(found: list[dict[str, Any]]) -> str:
    """The figures of one row, by database."""
    by_name = {figure["what"].partition(":")[0].partition(",")[0]: _figure(figure) for figure in found}
    if not by_name.keys() & set(DATABASES):  # neither is named: it needs none, or was measured with each in turn
        values = [_figure(figure) for figure in found]
        return f"{values[0]} | {values[-1]}"
    return " | ".join(by_name.get(name, "") for name in DATABASES)


def _figure(figure: Mapping[str, Any]) -> str:
    """A figure with about three significant digits."""
    digits = 0 if figure["value"] >= 100 else 1 if figure["value"] >= 10 else 2
    return f"{figure['value']:,.{digits}f} {figure['unit']}"


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "language": language,
    "answers": answers,
    "tools": tools,
    "door": door,
    "figures": figures,
    "budgets": budgets,
    "values": values.table,
}


def main() -> int:
    """Write the files that have changed, and name them."""
    for name, write in pages().items():
        file, text = ROOT / name, write()
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
