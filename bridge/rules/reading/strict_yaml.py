"""Strict YAML: a tree of nodes that know their place, and every error as (line, column, sentence).

Only `true`, `false`, `null` and JSON numbers are not strings: `on`, `no`, dates, `12:30:00` and `010` stay as written.
Duplicate keys, anchors, aliases, merge keys, tags and multiple documents are refused; size, depth and number of nodes
are bounded. PyYAML's parser is used (libyaml if available), but none of its constructors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from bridge.model import ExactFloat, Json

SIZE_MAX: Final = 524_288
DEPTH_MAX: Final = 40
NODES_MAX: Final = 20_000

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,30})", re.ASCII)
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
# What no editor shows. NEL, LS and PS are line breaks in YAML only, so every later place would be a line off.
_UNSEEN: Final = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
NOT_UTF8: Final = re.compile("[\udc80-\udcff]")  # how Python represents a byte that is not UTF-8 (surrogateescape)
_SECRET: Final = re.compile(r"secret|api.?key|require|token|password", re.IGNORECASE)
_HIDDEN: Final = "…"
QUOTES: Final = "put it in quotes"
KEY: Final = "~key"  # after the steps to an entry: its key is meant, not its value


@dataclass(slots=True)
class Node:
    """A value and its place (line and column from 1). `entries` of a mapping are in the file's order.

    file: the file it comes from, if that is not the file being read: a layer is merged with the shipped file below it.
    """

    line: int
    column: int
    value: Json = None
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    elements: list[Node] = field(default_factory=list)
    kind: str = "scalar"  # scalar | mapping | sequence
    file: str = ""

    def plain(self) -> Json:
        """The tree as JSON values."""
        if self.kind == "mapping":
            return {key: node.plain() for key, node in self.entries.items()}
        if self.kind == "sequence":
            return [node.plain() for node in self.elements]
        return self.value

    def text(self, key: str) -> str | None:
        """The string value of a key; None if the key is missing or its value is not a string."""
        found = self.entries.get(key)
        return found.value if found is not None and isinstance(found.value, str) else None

    def place(self, where: tuple[str | int, ...]) -> tuple[int, int, str]:
        """Line and column of the node that `where` leads to, as far as it leads; those of its key if KEY follows.

        If the node is in another file: the nearest place above it in this file, and `file:line:column` in the other.
        """
        node = self
        place = key_place = own = (self.line, self.column)
        for step in where:
            if step == KEY:
                place, own = key_place, own if node.file else key_place
                break
            if isinstance(step, int) and step < len(node.elements):
                node = node.elements[step]
                key_place = (node.line, node.column)
            elif isinstance(step, str) and step in node.entries:
                key_place = node.keys[step]
                node = node.entries[step]
            else:
                continue
            place = (node.line, node.column)
            own = own if node.file else place
        return (*own, f"{node.file}:{place[0]}:{place[1]}" if node.file else "")


@dataclass(frozen=True, slots=True, order=True)
class YamlProblem:
    line: int
    column: int
    sentence: str


class _StopError(Exception):
    """The rest of the file cannot be read."""


def parse(text: str) -> tuple[Node | None, list[YamlProblem]]:
    """The tree of a file (None if there is none) and all its errors; a syntax error is the last one."""
    reader = _Reader(text)
    try:
        return reader.document(), reader.problems
    except _StopError:
        return None, reader.problems


def secret_lines(text: str) -> set[int]:
    """The lines (from 1) that must not be quoted, even in part: the key of a secret, and what belongs to it.

    Judged by appearance, because a file that cannot be parsed has no tree. A bracket or quote that is opened there and
    not closed, or a value over several lines, may extend to the end.
    """
    found = set()
    below: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        begin = line.lstrip(" \t-?")
        indent = len(line) - len(begin)
        if (
            below is not None
            and begin
            and indent <= below
            and not begin.startswith(("]", "}", "#", "&", "*", "!", ":"))
        ):
            below = None
        if below is None and _SECRET.search(line):
            opened = sum(map(line.count, "[{")) - sum(map(line.count, "]}"))
            below = -1 if opened > 0 or line.count('"') % 2 or line.count("'") % 2 else indent
        if below is not None:
            found.add(number)
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.secret_lines = secret_lines(text)
        self.problems: list[YamlProblem] = []
        self.nodes = 0

    def problem(self, line: int, column: int, sentence: str) -> None:
        self.problems.append(YamlProblem(line, column, sentence))

    def stop(self, line: int, column: int, sentence: str) -> _StopError:
        self.problem(line, column, sentence)
        return _StopError()

    def shown(self, line: int, text: str, *, key: bool = False) -> str:
        """Text from the file as messages may quote it: of a secret only its first character, a key if it is a word."""
        if line not in self.secret_lines or (key and re.fullmatch(r"[a-z_]{1,20}", text)):
            return text
        return _HIDDEN if key else text[:1] + _HIDDEN

    def document(self) -> Node:
        self._check_text()
        events = self._events()
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise self.stop(*_at(event), "a file holds one document; a second one begins here")
            if isinstance(event, yaml.NodeEvent):
                root = self.node(event, events, 0)
        if root is None or (root.kind == "scalar" and root.value is None):
            raise self.stop(1, 1, "the file is empty")
        return root

    def _check_text(self) -> None:
        if len(self.text) > SIZE_MAX:
            raise self.stop(1, 1, f"the file has {len(self.text):,} characters, at most {SIZE_MAX:,} are allowed")
        wrong = _UNSEEN.search(self.text, 1 if self.text.startswith("\ufeff") else 0)
        if wrong is None:
            return
        before = re.split("\r\n?|\n", self.text[: wrong.start()])
        line, column = len(before), len(before[-1]) + 1
        if NOT_UTF8.match(wrong[0]):
            raise self.stop(line, column, "the file is not UTF-8 text")
        raise self.stop(line, column, f"the character U+{ord(wrong[0]):04X} is not allowed in a file")

    def _events(self) -> Iterator[Any]:
        """The parser's events. libyaml is quick; the Python parser words all errors, so they are always the same."""
        fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            events = list(_bounded(yaml.parse(self.text, Loader=fast)))
        except Exception:  # noqa: BLE001 - third-party code on arbitrary text; the second parse says what is wrong
            events = None
        return iter(events) if events is not None else self._slow_events()

    def _slow_events(self) -> Iterator[Any]:
        try:
            yield from _bounded(yaml.parse(self.text, Loader=yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            unclosed = _unclosed(error)
            mark = (error.context_mark if unclosed else error.problem_mark) or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            if unclosed:
                raise self.stop(line, column, unclosed) from None
            lines = self.text.splitlines()
            for number, text in enumerate(lines[:line], 1):  # looks like a space and is parsed as a letter
                if "\xa0" in text[: len(text) - len(text.lstrip())]:
                    sentence = "this line is indented by a no-break space; YAML allows only spaces"
                    raise self.stop(number, text.index("\xa0") + 1, sentence) from None
            source = lines[line - 1] if line <= len(lines) else ""
            secret = line in self.secret_lines
            if source[column - 2 : column - 1] == "*" and column > 1:
                column -= 1  # the parser points after the star
            raise self.stop(line, column, _explained(source, column, error, secret=secret)) from None
        except _StopError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise self.stop(1, 1, f"this is not valid YAML ({type(error).__name__})") from None

    # ------------------------------------------------------------------------------------------------- the tree

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        line, column = _at(event)
        self.nodes += 1
        if depth > DEPTH_MAX:
            raise self.stop(line, column, f"the file is nested more than {DEPTH_MAX} levels deep")
        if self.nodes > NODES_MAX:
            raise self.stop(line, column, f"the file has more than {NODES_MAX} values")
        if isinstance(event, yaml.AliasEvent):
            text = self.shown(line, f"*{event.anchor}")
            self.problem(line, column, f'aliases are not allowed; if "{text}" is a string, {QUOTES}')
            return Node(line, column, f"*{event.anchor}")
        self._refuse_properties(event, line, column)
        if isinstance(event, yaml.ScalarEvent):
            return Node(line, column, scalar(event.value) if event.implicit[0] and not event.style else event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, depth, line, column)
        return self._mapping(events, depth, line, column)

    def _refuse_properties(self, event: Any, line: int, column: int) -> None:
        if event.anchor is not None:
            text = self.shown(line, f"&{event.anchor}")
            self.problem(line, column, f'anchors are not allowed; if "{text}" begins a string, {QUOTES}')
        if event.tag is not None:
            text = self.shown(line, event.tag.replace("tag:yaml.org,2002:", "!!")[:40])
            self.problem(line, column, f'tags are not allowed; if "{text}" begins a string, {QUOTES}')

    def _sequence(self, events: Iterator[Any], depth: int, line: int, column: int) -> Node:
        node = Node(line, column, kind="sequence")
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            node.elements.append(self.node(event, events, depth + 1))
        return node

    def _mapping(self, events: Iterator[Any], depth: int, line: int, column: int) -> Node:
        node = Node(line, column, kind="mapping")
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            place = _at(event)
            key = self._key(event, events, depth)
            value = self.node(next(events), events, depth + 1)
            if key is None:
                continue
            if key in node.entries:
                text = self.shown(place[0], key[:60], key=True)
                self.problem(*place, f'key "{text}" appears twice (first on line {node.keys[key][0]})')
                continue
            node.entries[key], node.keys[key] = value, place
        return node

    def _key(self, event: Any, events: Iterator[Any], depth: int) -> str | None:
        line, column = _at(event)
        if not isinstance(event, yaml.ScalarEvent):
            self.node(event, events, depth + 1)
            if not isinstance(event, yaml.AliasEvent):
                self.problem(
                    line, column, f"a key is a string, not a list or map; if it is meant as a string, {QUOTES}"
                )
            return None
        self._refuse_properties(event, line, column)
        if event.value == "<<" and not event.style:
            self.problem(line, column, "merge keys (<<) are not allowed; write the entries out")
            return None
        key: str = event.value
        return key


def _unclosed(error: yaml.MarkedYAMLError) -> str | None:
    """The sentence for an unclosed bracket or quote: the file's end, where the parser noticed it, helps nobody."""
    if "end of stream" not in (error.problem or "") and "<stream end>" not in (error.problem or ""):
        return None
    context = error.context or ""
    if "quoted scalar" in context:
        return "a quote opens here and is never closed"
    if "flow sequence" in context or "flow mapping" in context:
        return f'a "{"{" if "mapping" in context else "["}" opens here and is never closed'
    return None


def _explained(source: str, column: int, error: yaml.MarkedYAMLError, *, secret: bool) -> str:
    """A sentence for a syntax error in this line, with the usual causes. secret: the line must not be quoted."""
    word = _HIDDEN if secret else _word(source, column)
    here = source[column - 1 : column]
    before = source[: column - 1]
    if here == "*":
        return f'a string that begins with "*" is read as an alias; {QUOTES}: "{word}"'
    if here in ("[", "{") and before and not before[-1].isspace():
        return f'a "{here}" inside an unquoted string within a list or map; {QUOTES}: "{word}"'
    if here in ("@", "`", "%"):
        return f'a string cannot begin with "{here}"; {QUOTES}'
    if re.search(r"[:\-,]\s+[\[{]", before) or before.lstrip().startswith(("{", "[")):
        return f'a "{{" or "[" opens a map or list that is not understood here; if it is part of a string, {QUOTES}'
    if "expected <block end>" in (error.problem or ""):
        return "this line is indented differently from the entries that it belongs to: begin it in the same column"
    if here == "\t":
        return "this line is indented by a tab; YAML allows only spaces"
    if ": " in (error.problem or "") or "mapping values are not allowed" in (error.problem or ""):
        return f'a ": " inside an unquoted string; {QUOTES}, or check the indentation'
    if secret:
        return f"this is not understood; check the indentation, and {QUOTES.replace('it', 'the value')}"
    problem = " ".join((error.problem or "it is not valid YAML").split())
    return f"this is not understood: {problem}; check the indentation and the quotes"


def _bounded(events: Iterator[Any]) -> Iterator[Any]:
    """Stop a parser that would go deeper, or on for longer, than a tree may."""
    depth = 0
    for count, event in enumerate(events):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        yield event
        if depth > DEPTH_MAX + 1 or count > 3 * NODES_MAX:
            return


def _at(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _word(source: str, column: int) -> str:
    """The unquoted text around a column, as it would be written between quotes."""
    start = column - 1
    while start > 0 and not source[start - 1].isspace() and source[start - 1] not in "[{,":
        start -= 1
    end = column - 1
    while end < len(source) and not source[end].isspace() and source[end] != ",":
        end += 1
    word = source[start:end]
    while word.endswith(("]", "}")) and word.count("]") + word.count("}") > word.count("[") + word.count("{"):
        word = word[:-1]
    return word.rstrip(":")[:80]


def scalar(text: str) -> Json:
    """The value of an unquoted scalar: true, false, null, a number, or the text itself. Empty text is null."""
    if text in ("", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return ExactFloat(text) if _FLOAT.fullmatch(text) else text
