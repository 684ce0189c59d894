"""Files that start from a shipped one: layers, which extend it, and full copies, which no upgrade reaches.

The trees of a layer and of the shipped file below it are merged, then read like any other file.

Each node of the merged tree knows which file it comes from, so that every later check names the right place. Errors
that only the merge can cause are reported with both places, here or by means of `Part.merged_with`. For a copy, the
rules that differ from the shipped file of this release are reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge import limits
from bridge.rules.reading.folder import SHIPPED_PREFIX, provider_of, shipped
from bridge.rules.reading.rule import DEFAULTS
from bridge.rules.reading.strict_yaml import Node, parse
from bridge.text import did_you_mean

if TYPE_CHECKING:
    from bridge.rules.reading.report import Diagnostics
    from bridge.rules.reading.schema import GoalStanza

SHIPPED: Final = "shipped"
LAYER: Final = "layer"
OVERRIDE: Final = "override"
LIKE: Final = "like"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
_LIKE_TAKES: Final = ("event", "when", "once_per", "follows", "metadata")
_PAYMENT_LIKE_TAKES: Final = ("event", "when")  # a payment has its own fields, and is made once per transaction
_NOT_INHERITED: Final = ("secret", "goals", "tests", "in_layers")  # a layer's secret belongs to its own source
_SHARED_MIN: Final = 3  # a copy shares at least this many rules
_READS: Final = re.compile(r"\b(value|map)[.:](?P<name>[A-Za-z0-9_]+)")
_DIRECTION: Final = "a layer extends a shipped file; a layer of a layer is not possible"


@dataclass(frozen=True, slots=True)
class Part:
    """Where one rule of a merged file comes from: the layer, the shipped file, or both."""

    origin: str
    own: Node | None = None
    below: Node | None = None

    @property
    def line(self) -> int:
        """Its line in its own file: the layer, or else the shipped file."""
        node = self.own or self.below
        return node.line if node is not None else 0

    def alone(self, goal: GoalStanza) -> GoalStanza:
        """What the layer itself says about a merged rule."""
        own = self.own.entries if self.own is not None else {}
        changes: dict[str, Any] = {key: None for key in ("when", "metadata", "once_per", "follows") if key not in own}
        if "when" in own and goal.when is not None:
            changes["when"] = own["when"].plain()
        if "metadata" in own and not isinstance(goal.metadata, str):
            written = own["metadata"].plain()
            taken = isinstance(written, dict)
            changes["metadata"] = {k: v for k, v in written.items() if v is not False} if taken else written
        return goal.model_copy(update=changes)

    @property
    def merged_with(self) -> str:
        """The end of a sentence: what a rule of the layer was merged with; empty if with nothing."""
        return f" (together with {_place(self.below)})" if self.own is not None and self.below is not None else ""


@dataclass(frozen=True, slots=True)
class Layer:
    """A merged file. name: of the shipped file; parts: where its rules come from, in their order."""

    name: str
    tree: Node
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of the shipped file. switched: its node, switched on or off as the layer says."""

    id: str
    goal: str
    node: Node
    on: bool
    switched: Node


@dataclass(slots=True)
class _Merge:
    """The state of merging one layer."""

    name: str
    own: Node
    below: Node
    report: Diagnostics
    shipped: tuple[_Rule, ...] = ()
    changed: dict[str, int] = field(default_factory=dict)  # id -> line of the layer's rule that changes it

    def problem(self, node: Node, sentence: str) -> None:
        self.report.problem_at(node.line, node.column, sentence)


# ---------------------------------------------------------------------------------------------- what is extended


def extended(tree: Node, report: Diagnostics, known: Collection[str], files: Mapping[str, str]) -> str | None:
    """The name of the shipped file that this file extends; None if it is not a layer, or a broken one.

    known: the names of all shipped files. files: the names of the folder's own files by their stems.
    """
    node = tree.entries.get("extends") if tree.kind == "mapping" else None
    if node is None:
        return None
    line, column = tree.keys["extends"]
    if next(iter(tree.entries)) != "extends":
        report.problem_at(line, column, '"extends" is the first line of a layer: write it above all other keys')
    sentence = _refusal(node.value, known, files)
    if sentence is None:
        return str(node.value)
    report.problem_at(node.line, node.column, sentence)
    return None


def _refusal(name: Any, known: Collection[str], files: Mapping[str, str]) -> str | None:
    """What is wrong with the name in `extends:`; None if nothing is."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = f', not "{name[:60]}"' if isinstance(name, str) else ""
        return f'"extends" takes the name of one shipped file, such as stripe{shown}; no path, and no other file'
    if name in known:
        return None
    if name in files:
        return f'"{name}" is {files[name]} of this folder, and {_DIRECTION}'
    return f'there is no shipped file "{name}"{did_you_mean(name, known)}'


@lru_cache(maxsize=64)
def _parsed(name: str, text: str) -> tuple[Node | None, str]:
    """The tree of a shipped file, with its name in each node, or why there is none. The tree is never changed."""
    tree, problems = parse(text)
    file = f"{SHIPPED_PREFIX}{name}.yaml"
    if problems or tree is None or tree.kind != "mapping":
        found = [f"{file}:{problem.line}:{problem.column}: {problem.sentence}" for problem in problems]
        return None, f"the shipped file cannot be read: {next(iter(found), f'{file} holds no map')}"
    if "extends" in tree.entries:
        line, column = tree.keys["extends"]
        return None, f'"{name}" is itself a layer ({file}:{line}:{column}), and {_DIRECTION}'
    _mark(tree, file)
    return tree, ""


def _mark(node: Node, file: str) -> None:
    node.file = file
    for child in (*node.entries.values(), *node.elements):
        _mark(child, file)


def merged(name: str, text: str, own: Node, presets: Mapping[str, Any], report: Diagnostics) -> Layer | None:
    """The layer `own` of the shipped file `name`; problems go to the report. None: the shipped file cannot be used."""
    below, why = _parsed(name, text)
    if below is None:
        node = own.entries["extends"]
        report.problem_at(node.line, node.column, why)
        return None
    merge = _Merge(name, own, below, report)
    tree = Node(own.line, own.column, kind="mapping")
    for key, node in below.entries.items():
        if key not in _NOT_INHERITED:
            _put(tree, key, node, below.keys[key])
    for key, node in own.entries.items():
        _put(tree, key, _stanza(merge, key, node, presets), own.keys[key])
    if "provider" in own.entries:
        _check_provider(merge)
        _put(tree, "provider", below.entries["provider"], below.keys["provider"])
    goals, parts = _goals(merge)
    if goals is not None:
        _put(tree, "goals", goals, own.keys.get("goals", (own.line, own.column)))
    return Layer(name, tree, tuple(parts))


def _check_provider(merge: _Merge) -> None:
    written, provider = merge.own.entries["provider"], merge.below.entries["provider"].value
    if written.value != provider:
        merge.problem(written, f'a layer of {merge.name} has its provider "{provider}"; remove "provider"')


# ------------------------------------------------------------------------------------------------ single stanzas


def _stanza(merge: _Merge, key: str, own: Node, presets: Mapping[str, Any]) -> Node:
    """The node of one key of a merged file. A node of the wrong shape stays as it is, and is reported later."""
    below = merge.below.entries.get(key)
    match key:
        case "visitor":
            if below is None:
                preset = presets.get(str(merge.below.entries["provider"].value), {})
                below = _node_of(preset.get("visitor"))
            return _concatenated(own, below) if own.kind != "mapping" else own
        case "links" if below is not None:
            return _concatenated(_listed_links(own), _listed_links(below))
        case "values" | "maps" | "envelope" if below is not None and own.kind == "mapping":
            return _by_name(own, below)
        case "when" if below is not None:
            return _all_of(own, below)
    return own


def _put(mapping: Node, key: str, node: Node, place: tuple[int, int]) -> None:
    mapping.entries[key], mapping.keys[key] = node, place


def _by_name(own: Node, below: Node) -> Node:
    """The entries of both maps; those of the layer win."""
    return replace(own, entries={**below.entries, **own.entries}, keys={**below.keys, **own.keys})


def _concatenated(own: Node, below: Node) -> Node:
    """The values of both as one list, the layer's first; each is a single value or a list."""
    return Node(own.line, own.column, kind="sequence", elements=[*_elements(own), *_elements(below)])


def _elements(node: Node) -> list[Node]:
    return node.elements if node.kind == "sequence" else [node]


def _all_of(own: Node, below: Node) -> Node:
    """A node whose conditions must all hold."""
    both = Node(own.line, own.column, kind="sequence", elements=[below, own])
    return _map(own, {"all": both})


def _map(at: Node, entries: dict[str, Node]) -> Node:
    keys = {key: (node.line, node.column) for key, node in entries.items()}
    return Node(at.line, at.column, kind="mapping", entries=entries, keys=keys, file=at.file)


def _listed_links(node: Node) -> Node:
    """`links: {order: data.id}` as the list that it abbreviates."""
    if node.kind != "mapping":
        return node
    entries = []
    for kind, path in node.entries.items():
        line, column = node.keys[kind]
        named = Node(line, column, kind, file=node.file)
        entries.append(_map(named, {"kind": named, "path": path}))
    return Node(node.line, node.column, kind="sequence", elements=entries, file=node.file)


def _node_of(texts: Any) -> Node:
    listed = [texts] if isinstance(texts, str) else texts or []
    return Node(1, 1, kind="sequence", elements=[Node(1, 1, text, file="the preset") for text in listed])


# --------------------------------------------------------------------------------------------------------- rules


def _goals(merge: _Merge) -> tuple[Node | None, list[Part]]:
    """The rules of both files: the shipped ones, switched and changed as the layer says, then those of the layer."""
    merge.shipped = tuple(_shipped_rules(merge))
    own = merge.own.entries.get("goals")
    if own is not None and (own.kind != "sequence" or any(node.kind != "mapping" for node in own.elements)):
        return None, []  # its shape is reported with all others
    nodes = {rule.id: rule.switched for rule in merge.shipped}
    parts = {rule.id: Part(SHIPPED, below=rule.node) for rule in merge.shipped}
    added: list[tuple[Node, Part]] = []
    for node in own.elements if own is not None else ():
        changed = next((rule for rule in merge.shipped if rule.id == node.text("id")), None)
        if changed is None:
            added += _new_rule(merge, node)
        elif changed.id in merge.changed:
            merge.problem(
                node.entries["id"], f'id "{changed.id}" is taken by the rule on line {merge.changed[changed.id]}'
            )
        else:
            merge.changed[changed.id] = node.line
            nodes[changed.id] = _overridden(merge, changed, node)
            parts[changed.id] = Part(OVERRIDE, node, changed.node)
    at = own if own is not None else merge.own
    sequence = Node(at.line, at.column, kind="sequence", elements=[*nodes.values(), *(node for node, _ in added)])
    return sequence, [*parts.values(), *(part for _, part in added)]


def _shipped_rules(merge: _Merge) -> Iterator[_Rule]:
    """The shipped rules, switched on or off as `use` says."""
    rules = [_read_rule(node) for node in merge.below.entries["goals"].elements]
    frozen = merge.below.entries.get("in_layers")
    if frozen is not None:  # a rule added in a later release is off in every layer that does not name it
        known = frozen.plain()
        rules = [replace(rule, on=rule.on and rule.id in known) for rule in rules]
    used = _rules_in_use(merge, rules)
    for rule in rules:
        on = rule.on if used is None else rule.id in used
        yield replace(rule, on=on, switched=_switched(rule.node, on, (used or {}).get(rule.id)))


def _read_rule(node: Node) -> _Rule:
    goal, switch = _goal_name(node), node.entries.get("enabled")
    on = switch is None or switch.value is True
    return _Rule(id_of(node) or "", goal, node, on, node)


def _switched(node: Node, on: bool, at: Node | None) -> Node:
    """The rule, switched on or off. If it is on because `use` names it, errors name that place."""
    switch = node.entries.get("enabled")
    if (switch is None or switch.value is True) is on and at is None:
        return node
    entries = {key: child for key, child in node.entries.items() if key != "enabled"}
    keys = {key: place for key, place in node.keys.items() if key != "enabled"}
    copy = Node(node.line, node.column, kind="mapping", entries=entries, keys=keys, file=node.file)
    if not on:
        _put(copy, "enabled", Node(node.line, node.column, value=False, file=node.file), (node.line, node.column))
    return copy if at is None else replace(copy, line=at.line, column=at.column, file="")


def _rules_in_use(merge: _Merge, rules: list[_Rule]) -> dict[str, Node] | None:
    """The ids of the rules that `use` switches on, each with its place; None if the layer has no `use`."""
    use = merge.own.entries.get("use")
    if use is None or use.kind != "sequence":
        return None
    names = {rule.goal for rule in rules}
    found: dict[str, Node] = {}
    seen: set[str] = set()
    for node in use.elements:
        name = node.value
        if not isinstance(name, str):
            continue
        if name not in names:
            merge.problem(node, _not_a_goal(name, rules))
        elif name in seen:
            merge.problem(node, f'"{name}" is listed twice')
        seen.add(name)
        found |= {rule.id: node for rule in _rules_for_goal(name, rules)}
    return found


def _not_a_goal(name: str, rules: list[_Rule]) -> str:
    with_id = next((rule for rule in rules if rule.id == name), None)
    if with_id is not None:
        return f'"use" takes names of goals, and "{name}" is the id of a rule of the goal "{with_id.goal}"'
    return f'no shipped rule makes the goal "{name[:60]}"{did_you_mean(name, {rule.goal for rule in rules})}'


def _rules_for_goal(name: str, rules: list[_Rule]) -> list[_Rule]:
    """Of the rules that make this goal, those that are on in the shipped file, or else only the first.

    The others make the same goal in another way, which would count one fact twice; a layer switches them on by id.
    """
    making = [rule for rule in rules if rule.goal == name]
    return [rule for rule in making if rule.on] or making[:1]


def _overridden(merge: _Merge, rule: _Rule, own: Node) -> Node:
    """The shipped rule with the layer's changes."""
    if "like" in own.entries:
        merge.problem(
            own.entries["like"],
            f'"{rule.id}" is a shipped rule ({_place(rule.node)}), which this one changes; "like" is for a new rule',
        )
    sentence = ""
    if list(own.entries) == ["id"]:
        sentence = f'this changes nothing in "{rule.id}"; write what is different, or remove the entry'
    elif not rule.on and "enabled" not in own.entries:
        sentence = f'"{rule.id}" is switched off: add "{rule.goal}" to "use", or write enabled: true'
    if sentence:
        merge.report.suspect_at(own.line, own.column, sentence)
    return _merged_rule(merge, own, rule.switched, rule.switched.entries)


def _new_rule(merge: _Merge, own: Node) -> Iterator[tuple[Node, Part]]:
    """A rule of the layer's own, possibly like a shipped one."""
    written, like = own.text("id"), own.entries.get("like")
    ids = {rule.id: rule for rule in merge.shipped}
    if written is None and (shipped_rule := ids.get(default_id(_goal_name(own)) or "")):
        place = own.entries.get("goal") or own.entries["payment"]
        merge.problem(
            place,
            f'the shipped file has a rule "{shipped_rule.id}" ({_place(shipped_rule.node)}): write id:'
            f" {shipped_rule.id} to change it, or give this rule an id of its own, such as id: my-{shipped_rule.id}",
        )
        own = replace(own, entries=dict(own.entries), keys=dict(own.keys))
        _put(own, "id", Node(place.line, place.column, f"my-{shipped_rule.id}"), (place.line, place.column))
    if like is not None and isinstance(like.value, str):
        liked = _liked_rule(merge, like)
        if liked is None:
            return
        taken = _PAYMENT_LIKE_TAKES if "payment" in own.entries else _LIKE_TAKES
        yield _merged_rule(merge, own, liked.node, taken), Part(LIKE, own, liked.node)
    elif written is not None and not (_goal_name(own) and "event" in own.entries):
        merge.problem(
            own.entries["id"],
            f'no shipped rule has the id "{written[:60]}"{did_you_mean(written, ids)}'
            ' (a rule of your own needs "goal" and "event", or "like")',
        )
    else:
        yield own, Part(LAYER, own)


def _liked_rule(merge: _Merge, like: Node) -> _Rule | None:
    """The shipped rule with this id, or the only one that makes this goal."""
    name = str(like.value)
    found = [rule for rule in merge.shipped if rule.id == name] or [rule for rule in merge.shipped if rule.goal == name]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(rule.id for rule in found)
        merge.problem(like, f'several shipped rules make the goal "{name}": name one by its id ({ids})')
    else:
        own = {node.text("id") or _goal_name(node) for node in merge.own.entries["goals"].elements}
        known = did_you_mean(name, {rule.id for rule in merge.shipped})
        why = f'"{name}" is a rule of this file' if name in own else f'there is no shipped rule "{name[:60]}"{known}'
        merge.problem(like, f'{why}, and "like" takes a shipped one' if name in own else why)
    return None


def _merged_rule(merge: _Merge, own: Node, below: Node, taken: Collection[str]) -> Node:
    """`taken` keys of the shipped rule below the layer's: conditions are added, metadata is merged by name."""
    merged_ = _map(own, {})
    for key, node in below.entries.items():
        if key in taken:
            _put(merged_, key, node, below.keys[key])
    for key, node in own.entries.items():
        inherited = merged_.entries.get(key)
        if inherited is not None and key == "when" and node.kind == "mapping":
            node = _all_of(node, inherited)  # noqa: PLW2901 - the value for this key
        elif inherited is not None and key == "metadata" and node.kind != "scalar":
            node = _metadata(merge, node, inherited)  # noqa: PLW2901
        _put(merged_, key, node, own.keys[key])
    return merged_


def _metadata(merge: _Merge, own: Node, below: Node) -> Node:
    """Both, merged by name; `name: false` removes an entry. Two lists stay a list."""
    if below.kind == "scalar":
        merge.problem(
            own,
            f"the shipped rule's metadata is one template ({_place(below)}), so nothing can be merged with it by name",
        )
        return own
    known = [str(node.value) for node in below.elements] or list(below.entries)
    if own.kind == below.kind == "sequence":
        new = [node for node in own.elements if node.value not in known]
        return Node(own.line, own.column, kind="sequence", elements=[*below.elements, *new])
    result = _map(own, {**_as_map(below).entries})
    result.keys.update(_as_map(below).keys)
    for name, node in _as_map(own).entries.items():
        if node.value is not False:
            _put(result, name, node, _as_map(own).keys[name])
        elif result.entries.pop(name, None) is None:
            line, column = own.keys[name]
            merge.report.problem_at(
                line, column, f'the shipped rule has no "{name}" to take away{did_you_mean(name, known)}'
            )
    return result


def _as_map(node: Node) -> Node:
    """`[amount, plan]` as the map that it abbreviates."""
    if node.kind == "mapping":
        return node
    names = [name for name in node.elements if isinstance(name.value, str)]
    return _map(node, {str(n.value): Node(n.line, n.column, f"{{value.{n.value}}}", file=n.file) for n in names})


def _goal_name(node: Node) -> str:
    """The name of what a rule makes; empty if it states none."""
    return limits.PAYMENT if "payment" in node.entries else node.text("goal") or ""


def id_of(node: Node) -> str | None:
    """The id of a rule as stated in its file, or else its default id."""
    return node.text("id") or default_id(_goal_name(node))


def default_id(goal: str) -> str | None:
    """The id of a rule that states none; None if the name is a template or not valid."""
    if goal == limits.PAYMENT:
        return goal
    try:
        return None if "{" in goal else limits.goal_name(goal)
    except ValueError:
        return None


def _place(node: Node | None) -> str:
    return "" if node is None else f"{node.file}:{node.line}:{node.column}"


# -------------------------------------------------------------------------------------------------------- copies


class Copy(NamedTuple):
    """name: of the shipped file. differs: ids of rules that are not as shipped; lacks: ids of missing rules."""

    name: str
    differs: tuple[str, ...]
    lacks: tuple[str, ...]


def copy_of(text: str) -> Copy | None:
    """The shipped file that a file without `extends` copies: same provider, and at least half of its rules.

    Many files share one rule with a short shipped file by chance; `in_layers` occurs in no file but a copy.
    """
    own = _plain(text)
    if own is None or "extends" in own:
        return None
    own_rules = _rules_by_id(own)
    for name, shipped_text in shipped().items():
        original = _plain(shipped_text) if provider_of(shipped_text) == own.get("provider") else None
        if original is None:
            continue
        rules = _rules_by_id(original)
        common = [id_ for id_ in rules if id_ in own_rules]
        if 2 * len(common) >= len(rules) and (len(common) >= _SHARED_MIN or "in_layers" in own):
            differs = tuple(id_ for id_ in common if _meaning(own, own_rules[id_]) != _meaning(original, rules[id_]))
            return Copy(name, differs, tuple(id_ for id_ in rules if id_ not in own_rules))
    return None


def _plain(text: str) -> dict[str, Any] | None:
    tree, _ = parse(text)
    found = tree.plain() if tree is not None else None
    return found if isinstance(found, dict) else None


def _rules_by_id(file: dict[str, Any]) -> dict[str, dict[str, Any]]:
    listed = file.get("goals")
    goals = [rule for rule in listed if isinstance(rule, dict)] if isinstance(listed, list) else []
    made = [(rule, "payment" if "payment" in rule else str(rule.get("goal"))) for rule in goals]
    return {str(rule.get("id") or default_id(name) or ""): rule for rule, name in made}


def _meaning(file: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    """A rule with everything that it reads from its file's `values` and `maps`."""
    found: dict[str, Any] = {"rule": rule}
    waiting = list(_names_read(rule))
    while waiting:
        kind, name = waiting.pop()
        if f"{kind} {name}" not in found:
            written = (file.get("values" if kind == "value" else "maps") or {}).get(name)
            found[f"{kind} {name}"] = written
            waiting += _names_read(written)
    return found


def _names_read(written: Any) -> Iterator[tuple[str, str]]:
    """The named values and tables that a node reads."""
    if isinstance(written, dict) and isinstance(written.get("metadata"), list):
        yield from (("value", str(name)) for name in written["metadata"])
    if isinstance(written, dict) and isinstance(written.get("payment"), dict):
        yield from (("value", name) for names in DEFAULTS.values() for name in names)
    yield from ((match[1], match["name"]) for match in _READS.finditer(json.dumps(written, default=str)))
