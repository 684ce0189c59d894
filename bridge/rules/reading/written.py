"""Which paths a file itself names, and where, so that they can be looked up in the stored events.

Excluded are the paths that a layer takes from the shipped file, and those that a rule can do without: a template with
a `default`, a condition that holds for a missing value. Alternatives (`{a or b}`, `any`, a list of paths) are kept
together, because one of them is enough. Headers, parameters and what the bridge itself finds are never looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge.model import MISSING, Document, Json
from bridge.rules.language.filters import Scope
from bridge.rules.language.paths import CompiledPath, WasPath, compile_path
from bridge.rules.language.templates import compile_template
from bridge.rules.reading.layers import id_of
from bridge.rules.reading.strict_yaml import Node, parse
from bridge.rules.reading.when import OPERATORS, compile_when

if TYPE_CHECKING:
    Maps = Mapping[str, Mapping[str, Json]]

_PATH_KEYS: Final = ("once_per", "visitor")
_TEMPLATE_KEYS: Final = ("goal", "description", "metadata", "payment")
_NEGATIONS: Final = ("not", "not_in")


class WrittenPaths(NamedTuple):
    """Paths of which one is enough, with their place in the file.

    rule: the id of the rule that names them; None: the file names them for all events, or for those of `events`.
    """

    line: int
    column: int
    paths: tuple[CompiledPath, ...]
    rule: str | None = None
    events: tuple[str, ...] = ("*",)

    @property
    def text(self) -> str:
        return " or ".join(path.text for path in self.paths)


def written_paths(text: str) -> list[WrittenPaths]:
    """The paths of a valid file, in its order."""
    tree, _ = parse(text)
    if tree is None:
        return []
    tables = tree.entries.get("maps")
    maps: Maps = {name: {} for name in (tables.entries if tables is not None else ())}
    found = [*_key_paths(tree, "visitor", maps), *_value_paths(tree.entries.get("values"), maps)]
    for node in tree.entries["goals"].elements if "goals" in tree.entries else ():
        events = tuple(_texts(node.entries.get("event")))
        found += [written._replace(rule=id_of(node), events=events) for written in _rule_paths(node, maps)]
    return [written for written in found if all(_is_looked_up(path) for path in written.paths)]


def _is_looked_up(path: CompiledPath) -> bool:
    inner = path.inner if isinstance(path, WasPath) else path
    return inner.root in ("body", "root") and bool(inner.segments)


def _rule_paths(node: Node, maps: Maps) -> Iterator[WrittenPaths]:
    for key in _PATH_KEYS:
        yield from _key_paths(node, key, maps)
    for key in _TEMPLATE_KEYS:
        below = node.entries.get(key)
        for child in below.entries.values() if below is not None and below.entries else [below]:
            yield from _template_paths(child, maps)
    if "when" in node.entries:
        yield from _condition_paths(node.entries["when"])


def _value_paths(named: Node | None, maps: Maps) -> Iterator[WrittenPaths]:
    for node in named.entries.values() if named is not None else ():
        for choice in node.elements or [node]:
            template = choice.entries.get("value", choice)
            events = tuple(_texts(choice.entries.get("event"))) or ("*",)
            yield from (written._replace(events=events) for written in _template_paths(template, maps))


def _key_paths(node: Node, key: str, maps: Maps) -> Iterator[WrittenPaths]:
    """A path or a list whose first match counts; each may be a template."""
    below, found = node.entries.get(key), list[CompiledPath]()
    for child in (below.elements or [below]) if below is not None else ():
        templates = list(_template_paths(child, maps))
        found += [path for written in templates for path in written.paths]
        if not templates and isinstance(child.value, str) and "{" not in child.value:
            with suppress(ValueError):
                found.append(compile_path(child.value))
    if below is not None and found:
        yield WrittenPaths(below.line, below.column, tuple(found))


def _template_paths(node: Node | None, maps: Maps) -> Iterator[WrittenPaths]:
    if node is None or not isinstance(node.value, str) or "{" not in node.value:
        return
    with suppress(ValueError):  # it reads a table of the shipped file
        for placeholder in compile_template(node.value, maps).placeholders:
            if placeholder.value(Scope(Document({}))) is MISSING:
                yield WrittenPaths(node.line, node.column, placeholder.paths)


def _condition_paths(node: Node) -> Iterator[WrittenPaths]:
    """The paths of conditions that do not hold for missing values."""
    for key, below in node.entries.items():
        if _holds({key: below.plain()}):
            continue
        line, column = node.keys[key]
        if key == "any":
            branches = below.elements or [_only(below, name) for name in below.entries]
            found = [path for branch in branches for written in _condition_paths(branch) for path in written.paths]
            yield WrittenPaths(line, column, tuple(found))
        elif key == "all":
            for branch in below.elements or [below]:
                yield from _condition_paths(branch)
        elif key != "not":
            yield WrittenPaths(line, column, (compile_path(key),))
            yield from (written._replace(line=line, column=column) for written in _element_paths(key, below))
            yield from _operand_paths(below)


def _holds(when: Json) -> bool:
    return compile_when(when, lambda _where, _sentence: None).test(Document({})) is None


def _only(node: Node, name: str) -> Node:
    return type(node)(node.line, node.column, kind="mapping", entries={name: node.entries[name]}, keys=node.keys)


def _element_paths(path: str, node: Node) -> Iterator[WrittenPaths]:
    """`items.*: {kind: tax}` names `items.*.kind`."""
    if "*" not in path or node.kind != "mapping" or set(node.entries) <= set(OPERATORS):
        return
    for written in _condition_paths(node):
        with suppress(ValueError):
            yield written._replace(paths=tuple(compile_path(f"{path}.{inner.text}") for inner in written.paths))


def _operand_paths(node: Node) -> Iterator[WrittenPaths]:
    """The paths that a value is compared with."""
    for key, below in node.entries.items():
        if key in ("path", "after") and isinstance(below.value, str):
            yield WrittenPaths(below.line, below.column, (compile_path(below.value),))
        elif key in OPERATORS and key not in _NEGATIONS:
            yield from _operand_paths(below)


def _texts(node: Node | None) -> list[str]:
    return [str(item.value) for item in (node.elements or [node])] if node is not None else []
