"""Mapping files to start from: a layer on a shipped file, and a rule drafted from an event that made no goal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

from bridge import limits, route
from bridge.model import MISSING, Document
from bridge.rules import compile_path
from bridge.rules.language.values import shown
from bridge.rules.reading.folder import shipped
from bridge.rules.reading.layers import default_id
from bridge.rules.reading.strict_yaml import Node, parse
from bridge.workbench import trace

if TYPE_CHECKING:
    from bridge.workbench.explain import Explained

_ALSO_ON: Final = {"stripe": ("trial_converted",)}  # off in the shipped file, but wanted by anyone who offers trials
_COMMENT_MAX: Final = 90  # characters of a comment
_SENTENCE: Final = re.compile(r"(?<=[.:;])\s|\s\(")
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WORDS: Final = ("true", "false", "null")
_COPIED: Final = ("once_per", "metadata")  # from the nearest rule


def layer(tool: str) -> str:
    """The mapping file for a tool: a line for each shipped goal that is on, and below them those that are off."""
    text = shipped()[tool]
    lines = text.splitlines()
    tree, _ = parse(text)
    assert tree is not None
    on: dict[str, str] = {}
    off: dict[str, str] = {}
    kept = tree.entries["in_layers"].plain() if "in_layers" in tree.entries else None
    for node in tree.entries["goals"].elements:
        goal = node.entries.get("goal")
        if goal is not None:
            name = str(goal.value)
            used = name in _ALSO_ON.get(tool, ()) or _is_on(node, kept)
            (on if used else off).setdefault(name, _sentence(lines, node.line))
    off = {name: meaning for name, meaning in off.items() if name not in on}
    head = f"extends: {tool} # starts from the shipped file; `python -m bridge check` checks this one\n"
    listed = "".join(f"  {_use(name, meaning)}\n" for name, meaning in on.items())
    use = f"\n# These goals are on.\nuse:\n{listed}" if on else "\nuse: []\n"
    commented = "".join(f"#  {_use(name, meaning)}\n" for name, meaning in off.items())
    rest = f"\n# These are off. To switch one on, move its line to the others.\n{commented}" if off else ""
    return head + use + rest


def _is_on(node: Node, kept: Any) -> bool:
    """Whether a rule is on in a layer that does not name any."""
    switch = node.entries.get("enabled")
    own = node.entries.get("id")
    rule_id = own.value if own is not None else default_id(str(node.entries["goal"].value))
    return (switch is None or switch.value is True) and (kept is None or rule_id in kept)


def _sentence(lines: Sequence[str], line: int) -> str:
    """The first sentence of the comment above a rule."""
    above: list[str] = []
    for text in reversed(lines[: line - 1]):
        if not text.lstrip().startswith("#"):
            break
        above.insert(0, text.strip().lstrip("# "))
    first = _SENTENCE.split(" ".join(above), maxsplit=1)[0]
    return "" if first.startswith("…") else first.rstrip(" .:;…")  # the end of a sentence means nothing by itself


def _use(name: str, meaning: str) -> str:
    item = f"- {name}" if re.fullmatch(r"\w+", name) else f'- "{name}"'
    return f"{item} # {shorten(meaning, _COMMENT_MAX, placeholder='…')}" if meaning else item


# ----------------------------------------------------------------------------------------------- a rule from an event


def with_rule(text: str, explained: Explained) -> str:
    """The file with a new first rule that this event matches, modelled on the rule that came nearest."""
    tree, _ = parse(text)
    lines = text.splitlines(keepends=True)
    goals = tree.entries.get("goals") if tree is not None else None
    if tree is None or goals is None:
        end = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{end}\ngoals:\n{_indented(explained, text, 2)}"
    line = tree.keys["goals"][0]
    first = goals.elements[0] if goals.elements else None
    if first is not None and first.line == line:  # [{…}, {…}]: a style that leaves no place for a comment
        return text + "".join(f"# {rule_line}" for rule_line in _indented(explained, text, 2).splitlines(keepends=True))
    if first is None:
        lines[line - 1] = "goals:\n"
    indent = 2 if first is None else lines[first.line - 1].find("-")
    return "".join(
        [*lines[:line], _indented(explained, text, max(indent, 0)), *(["\n"] if first else []), *lines[line:]]
    )


def _indented(explained: Explained, text: str, indent: int) -> str:
    return "".join(f"{' ' * indent}{line}\n" for line in _rule(explained, text))


def _rule(explained: Explained, text: str) -> Iterator[str]:
    event = explained.event
    elements: list[dict[str, Any]] = route.preview(explained.prepared)["elements"]
    element = elements[0] if elements else {}
    near: Mapping[str, Any] = element.get("nearest") or {}
    written = _written(text, str(near.get("rule", "")))
    event_type = str(element.get("type") or event.envelope.type)
    yield f"# Made from ev_{event.id}: a goal for each {_shown(event_type)}. Give it the name that you want to see."
    if near:
        yield f"# The nearest rule was {_shown(trace.nearest(element))}."
    yield f"- goal: {_value(limits.fit_goal_name(event_type or 'event')[0])}"
    yield f"  event: {_value(event_type)}"
    yield from _conditions(explained, near, written)
    yield from (f"  {key}: {_value(written[key])}" for key in _COPIED if key in written)
    yield _visitor(explained)


def _visitor(explained: Explained) -> str:
    """The path at which this event names its visitor, or could name one."""
    judged = (item for element in explained.prepared.elements for item in element.judged)
    path = next((item.path for item in judged if item.visitor is not None), None)
    if path is not None:
        return f"  visitor: {_value(path)}"
    return "  # visitor: data.metadata.visitor # the place where your site hands the visitor over"


def _conditions(explained: Explained, near: Mapping[str, Any], written: Mapping[str, Any]) -> Iterator[str]:
    """The conditions of the nearest rule; for the one that fails, the value that this event has instead."""
    when = written.get("when")
    if not isinstance(when, dict) or near.get("failing") != 1 or near.get("path") not in when:
        return
    found = compile_path(str(near["path"])).read(_document(explained))
    if shown(found) != near.get("actual") or not (found is MISSING or isinstance(found, str | int | float | bool)):
        return  # a value that is computed, secret or longer than one word
    yield "  when:"
    for path, expected in when.items():
        instead = {"exists": False} if found is MISSING else found
        yield f"    {_value(path)}: {_value(instead if path == near['path'] else expected)}"


def _document(explained: Explained) -> Document:
    try:
        return Document(json.loads(explained.event.body or b"null"))
    except ValueError:  # a form
        return Document(None)


def _written(text: str, rule_id: str) -> dict[str, Any]:
    """The rule as written in its file, or in the shipped file below a layer."""
    tree, _ = parse(text)
    base = tree.entries.get("extends") if tree is not None else None
    below = shipped().get(str(base.value), "") if base is not None else ""
    for file in (tree, parse(below)[0] if below else None):
        goals = file.entries.get("goals") if file is not None else None
        for node in goals.elements if goals is not None else ():
            written = node.plain()
            if isinstance(written, dict) and rule_id in (written.get("id"), default_id(str(written.get("goal")))):
                return written
    return {}


def _value(value: Any) -> str:
    """A value as one line of YAML, as a person would write it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(key)}: {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def _shown(text: str) -> str:
    """Text from outside made safe for a comment: on one line, without characters that a file may not contain."""
    return shorten("".join(c if c.isprintable() else " " for c in text), 160, placeholder="…")
