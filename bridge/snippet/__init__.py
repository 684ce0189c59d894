"""The web page script that passes the visitor id to other tools: snippet.js, with the table tools.yaml in it.

The same tools always give the same bytes, so that the hash in a site's Content-Security-Policy stays right. What the
bridge serves (`hosted`) is kept permanently: sites name these files by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from textwrap import fill
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import yaml

from bridge.errors import UsageError
from bridge.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HOME: Final = files("bridge.snippet")
_UNFOLDED: Final = re.compile(r"[^a-z0-9]")


def _table() -> Mapping[str, dict[str, Any]]:
    """Tool name → what the script knows about it; tools.yaml explains each key. Plain data: do not modify it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return MappingProxyType(yaml.load(_HOME.joinpath("tools.yaml").read_text("utf-8"), Loader=loader))  # noqa: S506 - both are safe loaders


TOOLS: Final = _table()


def chosen(names: Iterable[str]) -> list[str]:
    """The tools with these names, in the table's order; `Cal.com` is calcom. Raises UsageError for an unknown tool."""
    folded = {_UNFOLDED.sub("", name.lower()): name.strip() for name in names if name.strip()}
    unknown = [name for word, name in folded.items() if word not in TOOLS]
    if unknown:
        raise UsageError(" ".join(f'The snippet has no tool "{name}"{did_you_mean(name, TOOLS)}' for name in unknown))
    if not folded:
        raise UsageError(f"The snippet needs at least one tool{did_you_mean('', TOOLS)}")
    return [name for name in TOOLS if name in folded]


def script(tools: Iterable[str] = TOOLS) -> str:
    """The JavaScript for these tools, without comments and indentation."""
    written = _HOME.joinpath("snippet.js").read_text("utf-8")
    lines = [line.strip() for line in written.splitlines()]
    code = "\n".join(line for line in lines if line and not line.startswith("//"))
    rows = [f"{json.dumps(name)}:{json.dumps(TOOLS[name], separators=(',', ':'))}" for name in chosen(tools)]
    return code.replace("(TOOLS)", "({\n" + ",\n".join(rows) + "\n})")


def inline(tools: Iterable[str]) -> str:
    """HTML to paste into a page's head: the script, and above it the hash for a Content-Security-Policy."""
    names = chosen(tools)
    code = script(names)
    said = f"Hands the DataFast visitor over to: {', '.join(names)}. A Content-Security-Policy needs in script-src:"
    return f"<!-- {fill(said, 75, break_on_hyphens=False)}\n'{integrity(code)}' -->\n<script>{code}</script>\n"


def integrity(code: str) -> str:
    """`sha256-…`, as a Content-Security-Policy and the attribute `integrity` want it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


def file_name(code: str) -> str:
    """`bridge.<hash>.js`: the name changes with the contents, so a copy may be cached permanently."""
    return f"bridge.{hashlib.sha256(code.encode()).hexdigest()[:16]}.js"


def tag(address: str, code: str) -> str:
    """The HTML that loads a copy of this script."""
    return f'<script async src="{address}"\n  integrity="{integrity(code)}"\n  crossorigin="anonymous"></script>'


@cache
def hosted() -> Mapping[str, bytes]:
    """File name → contents, of the scripts for all tools that this release and those before it serve."""
    return MappingProxyType({file.name: file.read_bytes() for file in _HOME.joinpath("hosted").iterdir()})
