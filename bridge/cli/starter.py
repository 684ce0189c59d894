"""What `init` writes: a folder that deploys, by file name. Nothing here touches a disk but the files of the package.

Everything is derived: layers from the shipped files, what to click from the presets, the hand-over from the recipes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files as packaged
from pathlib import Path
from typing import Final

import bridge
from bridge import rules, snippet, sources
from bridge.rules.reading.folder import shipped
from bridge.settings import TABLE
from bridge.text import listing
from bridge.workbench import drafts
from bridge.workbench.setting_up import PLACEHOLDER, Setup, hand_over, of_recipe, setup

_DATA: Final = packaged("bridge").joinpath("cli/starter")  # in a clone: links to the project's own files
_NEEDED: Final = ("DATAFAST_API_KEY", "BRIDGE_ADMIN_TOKEN")
_TRY: Final = re.compile(r"^\$ python -m bridge simulate --file docs/recipes/(samples/(\S+).*)$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^]]+)\]\([^)]*\)")
_IN_A_PAGE: Final = re.compile(r"^### Plain JavaScript\n.*?(?=^### |\Z)", re.MULTILINE | re.DOTALL)
_BY_SNIPPET: Final = "`snippet.html` does this on your pages.\n\n"
_IGNORED: Final = ".venv/\n__pycache__/\n.env\n*.db\n*.db-wal\n*.db-shm\n"


def names() -> list[str]:
    """The tools that have a shipped file, by its name."""
    return sorted(shipped())


def files(tools: Sequence[str]) -> dict[str, bytes]:
    """Path below the folder -> content."""
    layers = {f"{tool}.yaml": drafts.layer(tool) for tool in tools}
    rule_set = rules.load(layers, {}, sources.presets())
    setups = [setup(rule_set, tool, PLACEHOLDER) for tool in tools]
    texts = {f"mappings/{name}": text for name, text in layers.items()}
    snippet = _snippet(tools)
    if snippet:
        texts["snippet.html"] = snippet
    tried = {found[2]: found[1] for tool in tools if (found := _TRY.search(of_recipe(f"{tool}.md")))}
    samples = {f"samples/{name}": of_recipe(f"samples/{name}") for name in tried}
    texts |= {
        ".env.example": env_example(setups),
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


def meanings(written: Iterable[str]) -> dict[str, str]:
    """What each of these files is for, in a few words."""
    said = {**_MEANINGS, wheel_name(): "the bridge itself"}
    return {name: said[name.partition("/")[0]] for name in written}


_MEANINGS: Final = {  # a file's name can be long, and a terminal has 80 columns
    "mappings": "which events become goals",
    "snippet.html": "for the pages of your site",
    ".env.example": "every setting, explained",
    "Procfile": "release, web and worker",
    "README.md": "five steps to the first goal",
    "requirements.txt": "pinned packages, with hashes",
    ".python-version": "the Python that a host takes",
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


def env_example(setups: Iterable[Setup]) -> str:
    """Every everyday setting and every secret, each with what it means; what is not needed is commented out."""
    lines = ["# Copy this file to .env and fill it in. On a host, set the same variables in its settings instead."]
    lines += _setting(_NEEDED[0])
    for one in setups:
        for name in one.secret_names:
            hint = f": {one.secret_hint}" if one.secret_hint else ""
            lines += ["", f"# The secret of {one.source}{hint}", f"{name}="]
    lines += [line for name in _NEEDED[1:] for line in _setting(name)]
    for setting in TABLE:
        if setting.group == "everyday" and setting.name not in _NEEDED:
            lines += _setting(setting.name)
    return "\n".join(lines) + "\n"


def _setting(name: str) -> list[str]:
    (setting,) = (one for one in TABLE if one.name == name)
    default = "" if setting.default is None else f" [{setting.default}]"
    mark = "" if name in _NEEDED else "#"
    return ["", f"# {setting.help}{default}", f"{mark}{name}={setting.default or ''}"]


# ------------------------------------------------------------------------------------------------------ hand-over


def _snippet(tools: Sequence[str]) -> str:
    """The inline script for those tools whose links and embeds it knows; empty if there is none."""
    known = [tool for tool in tools if tool in snippet.TOOLS]
    return snippet.inline(known) if known else ""


def _hand_over(tool: str, *, by_snippet: bool) -> str:
    """The part of the tool's recipe about handing over, or what its shipped file says at its top."""
    found = hand_over(tool)
    if found is not None:
        text = _IN_A_PAGE.sub(_BY_SNIPPET, found) if by_snippet else found
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
    lines = "\n".join(f"$ python -m bridge simulate --file {words}" for words in tried)
    secrets = [name for one in setups for name in one.secret_names]
    return _read("README.md").format(
        tools=listing([_title(one.source) for one in setups]),
        wheel=wheel_name(),
        trying=_read("TRYING.md").format(lines=lines) if lines else "",
        example=secrets[0] if secrets else "NAME",
        urls="\n".join(_row(one) for one in setups),
        events="".join(f"\n{_ticks(one)}\n" for one in setups),
        hand_over="".join(_sections(setups, has_snippet=has_snippet)),
    )


def _row(one: Setup) -> str:
    variables = ", ".join(f"`{name}`" for name in one.secret_names)
    cells = (_title(one.source), f"`{one.url}`", one.where or "", variables, one.secret_hint or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _ticks(one: Setup) -> str:
    """The events of one source: those for goals, and those that only tell whose a later event is."""
    told = [f"**{_title(one.source)}.** For goals: {_quoted(one.goal_events)}."]
    if one.link_events:
        told.append(f"To find the visitor of later ones: {_quoted(one.link_events)}.")
    return " ".join(told)


def _quoted(events: Sequence[str]) -> str:
    return ", ".join(f"`{event}`" if event != "*" else "all" for event in events) or "none"


def _sections(setups: Sequence[Setup], *, has_snippet: bool) -> Iterator[str]:
    if has_snippet:
        yield "\nPaste `snippet.html` into the `<head>` of each page of your site.\n"
    for one in setups:
        text = _hand_over(one.source, by_snippet=one.source in snippet.TOOLS)
        yield f"\n### {_title(one.source)}\n\n{text}\n"


# -------------------------------------------------------------------------------------------------------- the wheel
# No package index has the bridge, so the folder brings it along: the package's own files, and a demand for exactly the
# versions that this release pins. The same files make the same bytes. It needs no build tool, so that it can also be
# made from an installed wheel.

_PACKAGE: Final = Path(bridge.__file__).parent
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+(?:\[[a-z,]+\])?==[^\s\\]+)", re.MULTILINE)
_TAGS: Final = "py3-none-any"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file knows
_WHEEL_METADATA: Final = """\
Metadata-Version: 2.1
Name: datafast-bridge
Version: {version}
Summary: The webhook URL that turns the world's sales, refunds and cancellations into DataFast goals.
License: MIT
Requires-Python: >=3.11
{requires}"""
_WHEEL_TAGS: Final = f"Wheel-Version: 1.0\nGenerator: datafast-bridge\nRoot-Is-Purelib: true\nTag: {_TAGS}\n"
_ENTRY_POINTS: Final = "[console_scripts]\ndatafast-bridge = bridge.cli:main\n"


def wheel_name() -> str:
    """The file's name, which says the version."""
    return f"datafast_bridge-{bridge.__version__}-{_TAGS}.whl"


def wheel(requirements: str) -> bytes:
    """The wheel. requirements: the pinned packages that it asks for, as pip writes them."""
    about = f"datafast_bridge-{bridge.__version__}.dist-info"
    requires = "".join(f"Requires-Dist: {pinned}\n" for pinned in _PINNED.findall(requirements))
    contents = dict(_package_files()) | {
        f"{about}/METADATA": _WHEEL_METADATA.format(version=bridge.__version__, requires=requires).encode(),
        f"{about}/WHEEL": _WHEEL_TAGS.encode(),
        f"{about}/entry_points.txt": _ENTRY_POINTS.encode(),
    }
    contents[f"{about}/RECORD"] = _record(contents, f"{about}/RECORD").encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            entry = zipfile.ZipInfo(path, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def _package_files() -> Iterator[tuple[str, bytes]]:
    """The files of the package, in one order; in a clone, some of its folders are links."""
    for folder, folders, names in os.walk(_PACKAGE, followlinks=True):
        folders[:] = sorted(each for each in folders if each != "__pycache__" and not each.startswith("."))
        for each in sorted(names):
            path = Path(folder, each)
            if path.suffix != ".pyc" and not each.startswith("."):
                yield path.relative_to(_PACKAGE.parent).as_posix(), path.read_bytes()


def _record(contents: Mapping[str, bytes], own: str) -> str:
    """The list of files that pip compares with what it unpacks."""
    lines = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in contents.items()]
    return "\n".join([*lines, f"{own},,", ""])


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
