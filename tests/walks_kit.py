"""Which functions of ours a webhook, an event and a goal pass, as docs/architecture.md lists them."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from docs_kit import ROOT, section

if TYPE_CHECKING:
    from types import FrameType

MOST = {"A webhook to its 200": 12, "An event to its goals": 15, "A goal to DataFast and back": 12}
ASIDES = ("bridge.store.database.", "bridge.store.clock", "bridge.store.facts")


def require_described(heading: str, functions: list[str]) -> None:
    """The page lists exactly these functions, not too many, and names no other that does not exist."""
    text = section("docs/architecture.md", heading)
    print("\n".join(functions))  # `pytest -s` shows what to write there
    assert functions == re.findall(r"^\d+\. `([^`]+)`", text, re.MULTILINE)
    assert len(functions) <= MOST[heading]
    assert [place for place in re.findall(r"`([a-z_]+\.[\w.]+)`", text) if not exists(place)] == []


def exists(place: str) -> bool:
    """Whether there is something of ours at this path below `bridge`."""
    if place.endswith(".py"):
        return (ROOT / "bridge" / place).exists()
    words = place.split(".")
    for modules in range(len(words), 0, -1):
        try:
            found = importlib.import_module("bridge." + ".".join(words[:modules]))
        except ImportError:
            continue
        for word in words[modules:]:
            found = getattr(found, word, None)
        return found is not None
    return False


def place_of(frame: FrameType) -> str:
    """The path of a function of ours, below `bridge`; empty for others."""
    module = frame.f_globals.get("__name__", "")
    return f"{module}.{frame.f_code.co_qualname}".removeprefix("bridge.") if module.startswith("bridge.") else ""


class Steps:
    """A profiler: the functions that some modules of ours call in the rooms which do the work, in order.

    Left out are values that answer about themselves (methods, but those of `classes`), and what every step uses.
    """

    def __init__(self, *, callers: tuple[str, ...], rooms: tuple[str, ...], classes: tuple[str, ...]) -> None:
        self._callers = callers
        self._rooms = rooms
        self._classes = classes
        self.functions: list[str] = []

    def __call__(self, frame: FrameType, what: str, _arg: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if what != "call" or not module.startswith(self._rooms) or module.startswith(ASIDES):
            return
        owner, dot, name = frame.f_code.co_qualname.rpartition(".")
        if (dot and owner not in self._classes) or name.startswith("_"):
            return
        caller = frame.f_back
        while caller is not None and not place_of(caller):
            caller = caller.f_back
        of = caller.f_globals["__name__"] if caller else None
        if (of is None or (of in self._callers and of != module)) and place_of(frame) not in self.functions:
            self.functions.append(place_of(frame))
