"""`init`: a folder that deploys, with a layer for each tool that sends webhooks. `starter` says what is in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from bridge.cli import starter
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, of_context
from bridge.errors import BridgeError, UsageError, os_reason
from bridge.text import nearest

_SEPARATORS: Final = re.compile(r"[^a-z0-9]")


@command(
    "init",
    examples=[
        (
            "init shop --for stripe,clerk,calcom",
            "a folder `shop` with the goals of these three tools",
        ),
    ],
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--for", "tools", metavar="TOOLS", multiple=True, help="Tools that send webhooks, separated by commas.")
def init(folder: Path, tools: Sequence[str]) -> None:
    """Write a folder that is ready to deploy: mapping files, settings, Procfile, requirements, bridge and README.

    Each tool gets a mapping file of a few lines, which lists the shipped goals that are on. Nothing is overwritten: DIR
    must be new or empty.
    """
    chosen = _chosen(tools, starter.names())
    _demand_empty(folder)
    files = starter.files(chosen)
    _write(folder, files)
    screen = of_context()
    if screen.as_json:
        screen.write_json({"folder": str(folder), "files": list(files)})
    else:
        _print(screen, folder, starter.meanings(files))


def _chosen(given: Sequence[str], known: Collection[str]) -> list[str]:
    """The tools by the names of their shipped files, each once; UsageError for others."""
    asked = [each.strip() for each in ",".join(given).split(",") if each.strip()]
    there = f"There are {', '.join(sorted(known))}."
    if not asked:
        raise UsageError(f"Name the tools that send webhooks, such as --for stripe,clerk. {there}")
    folded = {_SEPARATORS.sub("", each): each for each in known}
    names = {each: folded.get(_SEPARATORS.sub("", each.lower())) for each in asked}
    unknown = [_guess(each, known) for each, name in names.items() if name is None]
    if unknown:
        raise UsageError(f"No mapping file is shipped for {', '.join(unknown)}. {there}")
    return list(dict.fromkeys(name for name in names.values() if name is not None))


def _guess(asked: str, known: Collection[str]) -> str:
    meant = nearest(asked, known, likeness=0.6)
    return f'"{asked[:60]}"' + (f' (did you mean "{meant}"?)' if meant else "")


def _demand_empty(folder: Path) -> None:
    try:
        there = folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise BridgeError(f"{folder} cannot be read ({os_reason(error)}); nothing was written.") from None
    if there:
        raise BridgeError(f"{folder} is not empty: name a new folder. Nothing was written.")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files, or none: BridgeError says why."""
    written: list[Path] = []
    try:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                written.append(path)
                file.write(data)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise BridgeError(f"{folder} cannot be written ({os_reason(error)}); no file was left in it.") from None


def _print(screen: Screen, folder: Path, meanings: Mapping[str, str]) -> None:
    """What was written, and what to type next."""
    screen.heading(f"Wrote {folder}:")
    wide = max(map(len, meanings))
    for name, meaning in meanings.items():
        screen.line(f"  {name:<{wide}}  {meaning}")
    screen.section("Next:")
    screen.line(f"  cd {shlex.quote(str(folder))} && python3 -m venv .venv && . .venv/bin/activate")
    screen.line("  pip install --require-hashes -r requirements.txt")
    screen.line("  python -m bridge check --strict")
