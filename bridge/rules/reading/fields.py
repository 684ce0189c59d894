"""Which fields a provider's events have, judged by samples: suggests corrections for the paths and words of a rule.

The samples are never complete, and providers add fields, so nothing found here is a reason to refuse a file.

`docs.fields` writes fields.json. There, a field's kind is `b` (true or false), `n` (a number), `s` (a string, followed
by the words that it takes), `?` (no sample shows it) or `o` (anything); the fields of a list's elements are below `*`.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge.rules.language.values import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# Names below these are the user's own.
FREE: Final = frozenset(
    {"metadata", "custom_data", "customData", "custom_fields", "custom", "unsafe_metadata", "public_metadata",
     "private_metadata", "app_metadata", "user_metadata", "raw_user_meta_data", "raw_app_meta_data", "responses",
     "userFieldsResponses", "note_attributes", "properties", "previous_attributes", "url_params", "hidden",
     "passthrough"}
)  # fmt: skip
_SPECIAL: Final = frozenset({"header", "query", "envelope", "key", "root", "value"})
_STEP: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|\[[^\]]*\]|[^.\[\]"]+')
_OBJECTS_MAX: Final = 3  # a body with at most this many objects at its top may be an envelope
_WRAPPED: Final = 6  # a wrapper is one of at most so many fields, and has more: `data.object`, not `data.customer`
_ALIKE: Final = 0.85
_COMPLETE: Final = "="  # marks a field whose words are all that the provider sends
_DOCUMENTED: Final = "~"  # marks a field whose words are those that it documents, which are most of them
# Names that people put before a field that is at the top of the body.
_WRAPPERS: Final = frozenset({"data", "object", "payload", "event", "order", "sale", "json", "request", "attributes"})
_TRUE, _FALSE = frozenset({"yes", "on", "y", "1", "ja", "oui"}), frozenset({"no", "off", "n", "0", "nein", "non"})
_FUNCTION: Final = re.compile(r"([A-Za-z]+)\([^()]*\)")
_ARITHMETIC: Final = re.compile(r"([\w-]+ ?[/*+] ?[0-9.]+)$")
_FILTERS: Final = ("lower", "upper", "round", "join", "date")
_LABELS: Final = ("label", "name", "key", "ref")
_NUMBERED: Final = re.compile(r"\.([0-9]{1,2})(?=\.|$)")
_FOREIGN: Final = re.compile(r"->|::|__|/|\?\.|\.\.")


class PathStep(NamedTuple):
    """One step of a path: its name (`*` for a step into a list), and how it is written (`[0]`)."""

    name: str
    written: str


def steps_of(path: str) -> list[PathStep]:
    """Split a path into steps: `items[0].id` → items, *, id. A list is named at its first bracket."""
    found: list[PathStep] = []
    for match in _STEP.finditer(path):
        text = match[0]
        if not text.startswith("["):
            found.append(PathStep(match[1] if match[1] is not None else text, text))
        elif not found or found[-1].name != "*":
            found.append(PathStep("*", text))
    return found


def _written(steps: Iterable[PathStep]) -> str:
    return "".join(step.written if step.written.startswith("[") else f".{step.written}" for step in steps)[1:]


@cache
def _samples() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(Path(__file__).with_name("fields.json").read_text("utf-8"))
    return found


class Fields:
    """The fields of one provider. named: paths that its preset reads, in addition to the samples. values: its preset's.

    nested: everything is below one field, so that a name alone is never a path.
    """

    def __init__(self, provider: str, named: Iterable[str], values: Mapping[str, Any], *, nested: bool) -> None:
        self.provider = provider
        known = _samples().get(provider, {})
        self._tree: dict[str, Any] = known.get("fields", {})
        self.types = frozenset(known.get("types", ()))
        self._named = [[step.name for step in steps_of(path)] for path in named]
        self._roots = {*self._tree, *(names[0] for names in self._named if names)}
        objects = [below for below in self._tree.values() if isinstance(below, dict)]
        self._nested = nested and len(objects) <= _OBJECTS_MAX
        self._is_whole = known.get("whole", False)
        self.values = values
        self._all = sorted([*_paths(self._tree), *map(tuple, self._named)], key=lambda names: (len(names), names))

    @property
    def is_unknown(self) -> bool:
        return not self._tree

    def has(self, path: str) -> bool:
        """Whether the samples have exactly this path, with more than one step."""
        steps = steps_of(path)
        return len(steps) > 1 and self._has(self._tree, steps, own=True)

    # ------------------------------------------------------------------------------------------------------- paths

    def misplaced(self, path: str) -> str | None:
        """What is wrong with a path that the events do not have; None if they have it or may have it."""
        steps = steps_of(path)
        if not self._tree or not steps:
            return None
        if '"' not in path and (plain := self._in_another_language(path)) is not None:
            return plain
        before = ""
        while steps[0].name in ("was", "body") and len(steps) > 1:
            before, steps = f"{before}{steps[0].written}.", steps[1:]
        return None if steps[0].name in _SPECIAL else self._explanation(path, steps, before)

    def _in_another_language(self, path: str) -> str | None:
        """What is wrong with a path written as in JavaScript, a shell or a spreadsheet."""
        if found := _FUNCTION.search(path):
            filter_ = next((name for name in _FILTERS if name in found[1].lower()), "lower")
            return f'"{path}" names a field "{found[1]}"; there are no functions, but filters, such as |{filter_}'
        if found := _NUMBERED.search(path):
            better = f"{path[: found.start()]}[{found[1]}]{path[found.end() :]}"
            names = {step.name for step in steps_of(path[: found.start()])}
            return None if names & FREE else f'"{path}" names a field "{found[1]}"; of a list write {better}'
        if found := _ARITHMETIC.search(path):
            advice = "|money: and the path of the currency makes whole units of cents"
            return f'"{path}" names a field "{found[1]}"; a path does not compute: {advice}'
        plain = _FOREIGN.sub(".", path).strip(".!@/")
        if plain != path and self.has(plain):
            return f'"{path}" is not how a path is written; did you mean "{plain}"?'
        return None

    def _explanation(self, path: str, steps: list[PathStep], before: str) -> str | None:
        """What is wrong with the steps of a path. before: the roots `was` and `body` in front of them."""
        found, end = self._follow(steps)
        if found is None:
            return None
        step = steps[min(end, len(steps) - 1)]
        if "*" in found and step.name != "*" and not self._has(found["*"], steps[end:]):
            inner = found["*"]
            label = next((name for name in _LABELS if isinstance(inner, dict) and name in inner), "")
            at = _written(steps[:end])
            better = f"{at}[{label}={step.written}]" if label else f"{at}[0]"
            return f'"{before}{at}" is a list; one element of it is {before}{better}'
        meant = self._meant(steps, found, end)
        if meant is not None:
            return f'{self.provider} sends no field "{path}"; did you mean "{before}{meant}"?'
        if end == 0 and self._is_whole and steps[0].name not in self._roots:
            allowed = ", ".join(sorted(self._roots - {steps[0].name}))
            return f'{self.provider} sends no field "{path}": a path begins with one of {allowed}'
        return None

    def _follow(self, steps: Sequence[PathStep]) -> tuple[Any, int]:
        """What the last known step leads to, and how many steps are known; None if that cannot be said."""
        names = [step.name for step in steps]
        if any(names[: len(known)] == known or known[: len(names)] == names for known in self._named):
            return None, 0
        tree: Any = self._tree
        for end, name in enumerate(names):
            if not isinstance(tree, dict):
                return None, end
            if name not in tree:
                return tree, end
            tree = tree[name]
        return None, len(names)

    def _meant(self, steps: list[PathStep], tree: dict[str, Any], end: int) -> str | None:
        """The path that was probably meant. tree: what the first `end` steps, which are known, lead to."""
        step, head, rest = steps[end], steps[:end], steps[end + 1 :]
        if "*" in tree:  # a list is read like an object
            if step.name == "*" or not (step.name.isdecimal() or self._has(tree["*"], steps[end:])):
                return None
            return _written([*head, PathStep("*", f"[{step.name}]"), *rest] if step.name.isdecimal() else
                            [*head, PathStep("*", "[0]"), *steps[end:]])  # fmt: skip
        if step.name == "*":  # an object is read like a list
            lists = [name for name, below in tree.items() if isinstance(below, dict) and "*" in below]
            return _written([*head, PathStep(lists[0], lists[0]), *steps[end:]]) if len(lists) == 1 else None
        alike = [name for name in tree if _folded(name) == _folded(step.name)]
        longer = [name for name in tree if name in (f"{step.name}_code", f"{step.name}_id")] if end and not rest else []
        name = next(iter([*alike, *longer]), None)
        if name is not None and self._has(tree[name], rest):
            return _written([*head, _plain(name), *rest])
        return self._elsewhere(steps, end, tree)

    def _elsewhere(self, steps: list[PathStep], end: int, tree: dict[str, Any]) -> str | None:
        """The same steps below a wrapper that was left out, without one step too many, or below the outermost object.

        An object that no sample has is probably missing from the samples: only a wrapper that people add is removed.
        """
        names = [step.name for step in steps]
        for name, below in tree.items():
            wraps = isinstance(below, dict) and len(tree) <= _WRAPPED < len(below)
            if end and wraps and self._has(below, steps[end:]) and names[end] in below:
                return _written([*steps[:end], PathStep(name, name), *steps[end:]])
        may_remove = "previous_attributes" in names or (end == 0 and names[0] in _WRAPPERS)
        for removed in range(end + 1) if may_remove else ():
            rest = steps[:removed] + steps[removed + 1 :]
            if rest and self._has(self._tree, rest, own=True):
                return _written(rest)
        return self.ending(_written(steps)) if end == 0 and self._nested else None

    def ending(self, path: str) -> str | None:
        """The shortest known path that ends like this one: `data.object.amount_total`."""
        steps = steps_of(path)
        names = [step.name for step in steps]
        if self._has(self._tree, steps, own=True):
            return path
        for known in self._all:
            for shared in range(len(names), 0, -1):
                if known[-shared:] == tuple(names[:shared]) and len(known) > shared:
                    is_whole = shared == len(names) or self._kind(known) == "o"
                    if is_whole:
                        return _written([*(_plain(name) for name in known[:-shared]), *steps])
        return None

    def _has(self, tree: Any, steps: Sequence[PathStep], *, own: bool = False) -> bool:
        """Whether these steps lead somewhere from this tree. own: every step must be a known field."""
        for n, step in enumerate(steps):
            if not isinstance(tree, dict):
                return not own or (tree == "o" and n > 1)
            if step.name not in tree:
                return False
            tree = tree[step.name]
        return True

    def _kind(self, names: Sequence[str]) -> str:
        tree: Any = self._tree
        for name in names:
            tree = tree.get(name) if isinstance(tree, dict) else None
        return tree if isinstance(tree, str) else ""

    def is_value(self, path: str) -> bool:
        """Whether the last field of this path is one that people send: a number, a boolean, or named like a word."""
        name = steps_of(path)[-1].name
        kind = self._kind([step.name for step in steps_of(path)])
        is_word = re.search(r"_(?:status|email|name|reason|interval|country|currency|code|url|total)$", name)
        return kind == "n" or (kind == "b" and "_" in name) or (kind[:1] == "s" and is_word is not None)

    # ------------------------------------------------------------------------------------------------------- words

    def impossible(self, path: str, literal: object) -> tuple[str, str | None] | None:
        """Why a field never equals this literal, and what to write instead; None if it may."""
        steps = steps_of(path)
        if steps and steps[0].name in ("was", "body"):
            steps = steps[1:]
        kind = self._kind_of([step.name for step in steps])
        if kind == "b":
            return _not_boolean(literal)
        if kind == "n":
            return _not_number(literal)
        words = kind.split()[1:]
        return self._not_a_word(literal, words) if words and isinstance(literal, str) else None

    def _kind_of(self, names: list[str]) -> str:
        """The kind of a field, or of a value of the preset that consists only of fields."""
        if names[:1] != ["value"] or len(names) != 2:
            return self._kind(names)
        templates = re.findall(r"\{([^{}]*)\}", json.dumps(self.values.get(names[1], "")).strip('"'))
        alternatives = [path for template in templates if "|" not in template for path in template.split(" or ")]
        kinds = [self._kind([step.name for step in steps_of(path)]) for path in alternatives]
        if (
            not kinds
            or any("|" in template for template in templates)
            or any(kind[:1] != "s" or " " not in kind for kind in kinds)
        ):
            return ""
        words = {word for kind in kinds for word in kind.split()[1:]} - {_COMPLETE, _DOCUMENTED}
        signs = [{_COMPLETE, _DOCUMENTED} & set(kind.split()) for kind in kinds]
        sign = _COMPLETE if all(_COMPLETE in found for found in signs) else _DOCUMENTED if any(signs) else ""
        return " ".join(["s", *([sign] if sign else []), *sorted(words)])

    def _not_a_word(self, literal: str, words: list[str]) -> tuple[str, str | None] | None:
        plain = [word for word in words if word not in (_COMPLETE, _DOCUMENTED)]
        if literal in plain or not literal:
            return None
        if all(re.fullmatch("[a-z]{3}|[A-Z]{3}", word) for word in plain):
            better = literal.upper() if plain[0].isupper() else literal.lower()
            if re.fullmatch("[A-Za-z]{3}", literal):
                return None if literal == better else (f"{self.provider} writes currencies as {better}", better)
            return f"{self.provider} writes currencies as {plain[0]}", None
        if literal.startswith("not ") and literal[4:] in plain:
            return f'{self.provider} writes "{literal[4:]}"', f"{{not: {literal[4:]}}}"
        several = re.split(r" ?[/&+] ?| and ", literal)
        if len(several) > 1 and set(several) <= set(plain):
            return f"{self.provider} sends one of them", f"[{', '.join(several)}]"
        meant = _similar_word(literal, plain, known=plain != words)
        if meant is not None:
            return f'{self.provider} writes "{meant}"', meant
        return (f"{self.provider} sends {_listed(plain)}", None) if _COMPLETE in words else None


def _paths(tree: dict[str, Any], head: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, below in tree.items():
        yield (*head, name)
        if isinstance(below, dict):
            yield from _paths(below, (*head, name))


def _plain(name: str) -> PathStep:
    return PathStep(name, "[0]" if name == "*" else name)


def _folded(name: str) -> str:
    return re.sub("[_-]", "", name).lower()


def _similar_word(literal: str, words: Sequence[str], *, known: bool) -> str | None:
    """The word meant by another case or other punctuation; if the words are `known`, also by another spelling."""
    by_fold = {_folded(word.replace(" ", "")): word for word in words}
    folded = _folded(literal.replace(" ", ""))
    if folded in by_fold:
        return by_fold[folded]
    if not known:
        return None
    same_start = [
        word for fold, word in by_fold.items() if len(folded) > 3 < len(fold) and _either_begins(folded, fold)
    ]
    if len(same_start) == 1:
        return same_start[0]
    close = get_close_matches(folded, [fold for fold in by_fold if not folded.endswith(fold)], n=1, cutoff=_ALIKE)
    return by_fold[close[0]] if close else None


def _either_begins(first: str, second: str) -> bool:
    return first.startswith(second) or second.startswith(first)


def _not_boolean(literal: object) -> tuple[str, str | None] | None:
    word = str(literal).strip().lower()
    if isinstance(literal, bool) or literal is None or literal in ("true", "false"):
        return None
    better = "true" if word in {*_TRUE, "true"} else "false" if word in {*_FALSE, "false"} else None
    return "it is true or false", better


def _not_number(literal: object) -> tuple[str, str | None] | None:
    if literal is None or (not isinstance(literal, bool) and number(literal) is not None):
        return None
    if isinstance(literal, bool):
        return "it is a number", f"{{exists: {str(literal).lower()}}}"
    return "it is a number", None


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
