"""`snippet`: the script that hands visitors over to other tools, as a tag to paste into a page or as a file."""

from __future__ import annotations

import gzip
from pathlib import Path

import click

from bridge import snippet as scripts
from bridge.cli import parameters
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, UsageError, os_reason


@command(
    examples=[
        ("snippet --for stripe,calcom,tally", "HTML to paste into the head of every page"),
        ("snippet --for stripe --out public/", "the file public/bridge.<hash>.js, and the tag that loads it"),
        ("snippet --base-url https://hooks.example.com", "the tag that loads the bridge's own copy, for all tools"),
    ]
)
@click.option("--for", "tools", metavar="TOOLS", help="The tools of your pages, separated by commas. [all]")
@click.option(
    "--out",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Write a file into this folder, or to this name ending in .js, instead of printing the script.",
)
@parameters.BASE_URL
def snippet(tools: str | None, out: Path | None, base_url: str | None) -> None:
    """Print the script that hands the visitor over to payment links, bookings and forms.

    The script gives links, embeds, popups and forms of these tools the visitor id of DataFast's cookie. It sends
    nothing. It changes nothing if there is no visitor or a value is already there, nor inside `data-datafast="off"`.
    The bridge serves a copy for all tools, which never changes, as `/bridge.<hash>.js`. docs/snippet.md says what the
    script cannot do.
    """
    screen = current_screen()
    if base_url is not None and (tools is not None or out is not None):
        raise UsageError("--base-url loads the bridge's own copy, for all tools: leave out --for and --out.")
    names = scripts.chosen(scripts.TOOLS if tools is None else tools.split(","))
    code = scripts.script(names)
    if base_url is not None:
        _show_tag(screen, names, code, f"{base_url.rstrip('/')}/{scripts.file_name(code)}")
    elif out is not None:
        file = out if out.suffix == ".js" else out / scripts.file_name(code)
        _write(file, code)
        _show_tag(screen, names, code, f"/{file.name}", file)
    else:
        html = scripts.inline(names)
        screen.write_json({"tools": names, "script": code, "csp": scripts.integrity(code), "html": html})
        for line in html.splitlines():
            screen.line(line)


def _write(file: Path, code: str) -> None:
    """Write the whole file or none of it: a web server may be reading the folder."""
    temporary = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(code, "utf-8")
        temporary.replace(file)
    except OSError as error:
        raise BridgeError(f"{file} cannot be written: {os_reason(error)}.") from None


def _show_tag(screen: Screen, names: list[str], code: str, address: str, file: Path | None = None) -> None:
    html = scripts.tag(address, code)
    written = None if file is None else str(file)
    screen.write_json(
        {"tools": names, "file": written, "src": address, "integrity": scripts.integrity(code), "html": html}
    )
    if file is not None:
        size = len(gzip.compress(code.encode(), mtime=0)) / 1024
        screen.mark("ok", f"{file} has the script for {', '.join(names)}: {size:.1f} KB gzipped.")
    screen.say("Paste this into the head of every page:")
    for line in html.splitlines():
        screen.line(line)
