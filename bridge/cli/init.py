"""`init`: a folder that is ready to deploy, with a layer for each tool that sends webhooks.

Its contents are all derived: layers from the shipped files, what to click from the presets, the hand-over from the
recipes. Only the command itself touches a disk, except to read the files of the package.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shlex
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files as packaged
from pathlib import Path
from typing import Final

import click

import bridge
from bridge import rules, snippet, sources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, UsageError, os_reason
from bridge.presets import stated
from bridge.rules.reading.folder import shipped
from bridge.settings import TABLE
from bridge.text import listing, nearest
from bridge.workbench import drafts, setting_up
from bridge.workbench.setting_up import PLACEHOLDER, Setup, hand_over_section, recipe_text

_SEPARATORS: Final = re.compile(r"[^a-z0-9]")
_DATA: Final = packaged("bridge").joinpath("cli/starter")  # in a clone: links to the project's own files
_NEEDED: Final = ("DATAFAST_API_KEY", "BRIDGE_ADMIN_TOKEN")
_TRY_COMMAND: Final = re.compile(r"^\$ python -m bridge simulate --file docs/recipes/(samples/(\S+).*)$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^]]+)\]\([^)]*\)")
_PLAIN_JAVASCRIPT: Final = re.compile(r"^### Plain JavaScript\n.*?(?=^### |\Z)", re.MULTILINE | re.DOTALL)
_BY_SNIPPET: Final = "`snippet.html` does this on your pages.\n\n"
_IGNORED: Final = ".venv/\n__pycache__/\n.env\n*.db\n*.db-wal\n*.db-shm\n"


@command(
    "init", examples=[("init shop --for stripe,clerk,calcom", "a folder `shop` with the goals of these three tools")]
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--for", "tools", metavar="TOOLS", multiple=True, help="Tools that send webhooks, separated by commas.")
def init(folder: Path, tools: Sequence[str]) -> None:
    """Write a folder that is ready to deploy: mapping files, settings, Procfile, requirements, bridge and README.

    Each tool gets a mapping file of a few lines, which lists the shipped goals that are on. Nothing is overwritten: DIR
    must be new or empty.
    """
    chosen = _chosen(tools, sorted(shipped()))
    _require_empty(folder)
    files = files_for(chosen)
    _write(folder, files)
    screen = current_screen()
    screen.write_json({"folder": str(folder), "files": list(files)})
    _print(screen, folder, _meanings(files))


def _chosen(given: Sequence[str], known: Collection[str]) -> list[str]:
    """The tools by the names of their shipped files, each once; UsageError for unknown ones."""
    asked = [tool.strip() for tool in ",".join(given).split(",") if tool.strip()]
    available = f"There are {', '.join(sorted(known))}."
    if not asked:
        raise UsageError(f"Name the tools that send webhooks, such as --for stripe,clerk. {available}")
    folded = {_SEPARATORS.sub("", tool): tool for tool in known}
    names = {tool: folded.get(_SEPARATORS.sub("", tool.lower())) for tool in asked}
    unknown = [_guess(tool, known) for tool, name in names.items() if name is None]
    if unknown:
        raise UsageError(f"No mapping file is shipped for {', '.join(unknown)}. {available}")
    return list(dict.fromkeys(name for name in names.values() if name is not None))


def _guess(asked: str, known: Collection[str]) -> str:
    meant = nearest(asked, known, likeness=0.6)
    return f'"{asked[:60]}"' + (f' (did you mean "{meant}"?)' if meant else "")


def _require_empty(folder: Path) -> None:
    try:
        is_occupied = folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise BridgeError(f"{folder} cannot be read ({os_reason(error)}); nothing was written.") from None
    if is_occupied:
        raise BridgeError(f"{folder} is not empty: name a new folder. Nothing was written.")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files or none; BridgeError says why."""
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
    """Print what was written, and what to type next."""
    screen.heading(f"Wrote {folder}:")
    wide = max(map(len, meanings))
    for name, meaning in meanings.items():
        screen.line(f"  {name:<{wide}}  {meaning}")
    screen.section("Next:")
    screen.line(f"  cd {shlex.quote(str(folder))} && python3 -m venv .venv && . .venv/bin/activate")
    screen.line("  pip install --require-hashes -r requirements.txt")
    screen.line("  python -m bridge check --strict")


# ----------------------------------------------------------------------------------------- what is written


def files_for(tools: Sequence[str]) -> dict[str, bytes]:
    """The contents of the folder: path below it -> content."""
    layers = {f"{tool}.yaml": drafts.layer(tool) for tool in tools}
    rule_set = rules.load(layers, {}, sources.presets())
    setups = [setting_up.setup(rule_set, tool, PLACEHOLDER) for tool in tools]
    texts = {f"mappings/{name}": text for name, text in layers.items()}
    snippet = _snippet(tools)
    if snippet:
        texts["snippet.html"] = snippet
    tried = {found[2]: found[1] for tool in tools if (found := _TRY_COMMAND.search(recipe_text(f"{tool}.md")))}
    samples = {f"samples/{name}": recipe_text(f"samples/{name}") for name in tried}
    texts |= {
        ".env.example": _env_example(setups),
        "Procfile": _read("Procfile"),
        "README.md": _readme(setups, list(tried.values()), has_snippet=bool(snippet)),
        ".python-version": _read("python-version"),
        ".gitignore": _IGNORED,
    }
    pinned = _read("requirements.txt")
    built = wheel(pinned)
    own = f"./{wheel_name()} --hash=sha256:{hashlib.sha256(built).hexdigest()}\n"
    texts |= {"requirements.txt": _REQUIREMENTS.format(pinned=pinned, own=own), **samples}
    return {**{name: text.encode() for name, text in texts.items()}, wheel_name(): built}


def _meanings(written: Iterable[str]) -> dict[str, str]:
    """The purpose of each of these files, in a few words."""
    meanings = {**_MEANINGS, wheel_name(): "the bridge itself"}
    return {name: meanings[name.partition("/")[0]] for name in written}


_MEANINGS: Final = {  # a file's name can be long, and a terminal has 80 columns
    "mappings": "which events become goals",
    "snippet.html": "for the pages of your site",
    ".env.example": "every setting, explained",
    "Procfile": "release, web and worker",
    "README.md": "five steps to the first goal",
    "requirements.txt": "pinned packages, with hashes",
    ".python-version": "the Python that a host uses",
    ".gitignore": "keeps secrets out of git",
    "samples": "an event to try it with",
}
_REQUIREMENTS: Final = """\
# Install with: pip install --require-hashes -r requirements.txt (a host does that by itself, because of the hashes).
# The bridge is not a published package; its own line is that of the wheel in this folder. To upgrade, run `init` of the
# new release into another folder, and take both its wheel and its requirements.txt.
{own}
{pinned}"""


# ------------------------------------------------------------------------------------------------------- settings


def _env_example(setups: Iterable[Setup]) -> str:
    """Every common setting and every secret, each with its meaning; those not needed are commented out."""
    lines = ["# Copy this file to .env and fill it in. On a host, set the same variables in its settings instead."]
    lines += _setting(_NEEDED[0])
    for setup in setups:
        for name in setup.secret_names:
            hint = f": {setup.secret_hint}" if setup.secret_hint else ""
            lines += ["", f"# The secret of {setup.source}{hint}", f"{name}="]
    lines += [line for name in _NEEDED[1:] for line in _setting(name)]
    for setting in TABLE:
        if setting.group == "everyday" and setting.name not in _NEEDED:
            lines += _setting(setting.name)
    return "\n".join(lines) + "\n"


def _setting(name: str) -> list[str]:
    (setting,) = (row for row in TABLE if row.name == name)
    default = "" if setting.default is None else f" [{setting.default}]"
    mark = "" if name in _NEEDED else "#"
    return ["", f"# {setting.help}{default}", f"{mark}{name}={setting.default or ''}"]


# ------------------------------------------------------------------------------------------------------ hand-over


def _snippet(tools: Sequence[str]) -> str:
    """The inline script for those tools whose links and embeds it supports; empty if there are none."""
    known = [tool for tool in tools if tool in snippet.TOOLS]
    return snippet.inline(known) if known else ""


def _hand_over(tool: str, *, by_snippet: bool) -> str:
    """The hand-over section of the tool's recipe, or the top of its shipped file."""
    found = hand_over_section(tool)
    if found is not None:
        text = _PLAIN_JAVASCRIPT.sub(_BY_SNIPPET, found) if by_snippet else found
        return re.sub(r"^### ", "#### ", _LINK.sub(r"\1", text).strip(), flags=re.MULTILINE)
    head = shipped()[tool].split("\n\n", 1)[0].splitlines()[1:]
    return "\n".join(["```text", *(line.removeprefix("#").removeprefix(" ") for line in head if line != "#"), "```"])


def _title(tool: str) -> str:
    """The tool's own name, with which its shipped file begins."""
    return shipped()[tool].removeprefix("# ").partition(" → ")[0]


def _read(name: str) -> str:
    return _DATA.joinpath(name).read_text("utf-8")


# --------------------------------------------------------------------------------------------------------- README


def _readme(setups: Sequence[Setup], tried: Sequence[str], *, has_snippet: bool) -> str:
    lines = "\n".join(f"$ python -m bridge simulate --file {arguments}" for arguments in tried)
    secrets = [name for setup in setups for name in setup.secret_names]
    return _read("README.md").format(
        tools=listing([_title(setup.source) for setup in setups]),
        wheel=wheel_name(),
        trying=_read("TRYING.md").format(lines=lines) if lines else "",
        example=secrets[0] if secrets else "NAME",
        urls="\n".join(_row(setup) for setup in setups),
        events="".join(f"\n{_event_types(setup)}\n" for setup in setups),
        hand_over="".join(_sections(setups, has_snippet=has_snippet)),
    )


def _row(setup: Setup) -> str:
    variables = ", ".join(f"`{name}`" for name in setup.secret_names)
    cells = (_title(setup.source), f"`{setup.url}`", setup.where or "", variables, setup.secret_hint or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _event_types(setup: Setup) -> str:
    """The event types of one source: those for goals, and those that only lead to the visitor of a later event."""
    sentences = [f"**{_title(setup.source)}.** For goals: {_quoted(setup.goal_events)}."]
    if setup.link_events:
        sentences.append(f"To find the visitor of later ones: {_quoted(setup.link_events)}.")
    if setup.subscribe:
        needs = stated(setup.provider, "subscribe")["needs"]
        calls = "\n".join(f"$ {line}" for line in setup.subscribe)
        sentences.append(
            f"One command for each event that the URL above does not receive; {needs}:\n\n```console\n{calls}\n```"
        )
    return " ".join(sentences)


def _quoted(events: Sequence[str]) -> str:
    return ", ".join(f"`{event}`" if event != "*" else "all" for event in events) or "none"


def _sections(setups: Sequence[Setup], *, has_snippet: bool) -> Iterator[str]:
    if has_snippet:
        yield "\nPaste `snippet.html` into the `<head>` of each page of your site.\n"
    for setup in setups:
        text = _hand_over(setup.source, by_snippet=setup.source in snippet.TOOLS)
        yield f"\n### {_title(setup.source)}\n\n{text}\n"


# -------------------------------------------------------------------------------------------------------- the wheel
# No package index has the bridge, so the folder includes it: the package's own files, and a requirement for exactly
# the versions that this release pins. The same files make the same bytes. No build tool is needed, so the wheel can
# also be made from an installed wheel.

_PACKAGE: Final = Path(bridge.__file__).parent
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+(?:\[[a-z,]+\])?==[^\s\\]+)", re.MULTILINE)
_TAGS: Final = "py3-none-any"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
_WHEEL_METADATA: Final = """\
Metadata-Version: 2.1
Name: datafast-bridge
Version: {version}
Summary: The webhook URL that turns sales, refunds and cancellations into DataFast goals.
License: MIT
Requires-Python: >=3.11
{requires}"""
_WHEEL_TAGS: Final = f"Wheel-Version: 1.0\nGenerator: datafast-bridge\nRoot-Is-Purelib: true\nTag: {_TAGS}\n"
_ENTRY_POINTS: Final = "[console_scripts]\ndatafast-bridge = bridge.cli:main\n"


def wheel_name() -> str:
    """The file's name, which includes the version."""
    return f"datafast_bridge-{bridge.__version__}-{_TAGS}.whl"


def wheel(requirements: str) -> bytes:
    """The wheel. requirements: the pinned packages that it requires, in pip's format."""
    dist_info = f"datafast_bridge-{bridge.__version__}.dist-info"
    requires = "".join(f"Requires-Dist: {pinned}\n" for pinned in _PINNED.findall(requirements))
    contents = dict(_package_files()) | {
        f"{dist_info}/METADATA": _WHEEL_METADATA.format(version=bridge.__version__, requires=requires).encode(),
        f"{dist_info}/WHEEL": _WHEEL_TAGS.encode(),
        f"{dist_info}/entry_points.txt": _ENTRY_POINTS.encode(),
    }
    contents[f"{dist_info}/RECORD"] = _record(contents, f"{dist_info}/RECORD").encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            entry = zipfile.ZipInfo(path, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _package_files() -> Iterator[tuple[str, bytes]]:
    """The files of the package, in a fixed order; in a clone, some of its folders are links."""
    for folder, folders, names in os.walk(_PACKAGE, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix != ".pyc" and not name.startswith("."):
                yield path.relative_to(_PACKAGE.parent).as_posix(), path.read_bytes()


def _record(contents: Mapping[str, bytes], own: str) -> str:
    """The list of files with which pip compares what it unpacks."""
    lines = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in contents.items()]
    return "\n".join([*lines, f"{own},,", ""])


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
