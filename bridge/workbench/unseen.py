"""Find paths in a mapping file that no stored event of these types has: most are misspelt.

Only the newest events are read, and per type only until every path was seen. Paths that the provider's shipped file has
for the same event type are left out: such a field is optional.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from bridge.globs import Glob, compile_glob
from bridge.model import MISSING, Document, Event, Json
from bridge.prepare import Preparer, ReadEvent
from bridge.rules.language.paths import CompiledPath, Every, Field, Index, Segment, ValuePath, WasPath, Where, walk
from bridge.rules.language.templates import with_values
from bridge.rules.language.values import Value, json_in_text, was
from bridge.rules.reading.folder import shipped
from bridge.rules.reading.written import WrittenPaths, written_paths
from bridge.sources.events import BATCH
from bridge.store.operator import history
from bridge.text import count, nearest

if TYPE_CHECKING:
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store import Store

EVENTS_MAX: Final = 500  # events of one type to check
_BYTES_MAX: Final = 16_000_000  # bytes of bodies in total
_PAGE: Final = 50
_PATHS_MAX: Final = 2_000  # paths of an event to remember, for suggesting the one that was meant


@dataclass(frozen=True, slots=True)
class UnseenPath:
    """A path, or alternatives, that none of the newest events of these types has. meant: one that they do have."""

    place: str
    source: str
    rule: str | None
    path: str
    events: int
    types: tuple[str, ...]
    meant: str | None

    @property
    def sentence(self) -> str:
        seen = "was" if " or " not in self.path else "were"
        of = f" of {' or '.join(self.types[:3])}{' …' if self.types[3:] else ''}"
        meant = f'; did you mean "{self.meant}"?' if self.meant else ""
        return f"{self.path} {seen} never seen in {count(self.events, 'event')}{of}{meant}"

    @property
    def line(self) -> str:
        """The message with its position, in the format of `check`."""
        return f"{self.place}: {self.sentence}"


def unseen(store: Store, rule_set: RuleSet, settings: Settings, since_ms: int = 0) -> tuple[UnseenPath, ...]:
    """The unseen paths of all files in a set, checked against the newest events since then."""
    return Search(store, rule_set, settings, since_ms).unseen()


class Search:
    """A search for unseen paths.

    A caller that reads stored events for another purpose shows them first (`see`), so that few are read twice.
    """

    def __init__(self, store: Store, rule_set: RuleSet, settings: Settings, since_ms: int = 0) -> None:
        self._store = store
        self._preparer = Preparer(rule_set, settings, {}, b"")
        self._checks = [check for name in sorted(rule_set.sources) for check in _path_checks(rule_set, name)]
        sources = {check.source for check in self._checks}
        ids: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        with store.read() as conn:
            for event_id, source, event_type in history.newest(conn, sources, since_ms):
                if len(ids[source, event_type]) < EVENTS_MAX:
                    ids[source, event_type].append(event_id)
        self._by_type = [(self._checks_for(*place), event_ids) for place, event_ids in ids.items()]
        self._by_event = {event_id: checks for checks, event_ids in self._by_type for event_id in event_ids}

    def _checks_for(self, source: str, event_type: str) -> list[_PathCheck]:
        checks = [check for check in self._checks if check.source == source]
        return checks if event_type == BATCH else [check for check in checks if check.is_for(event_type)]

    def see(self, read: ReadEvent) -> None:
        """Record which paths this event has."""
        checks = [check for check in self._by_event.get(read.event.id, ()) if not check.seen]
        for event_type, document in self._documents(read) if checks else ():
            for check in checks:
                check.see(document, event_type)

    def unseen(self) -> tuple[UnseenPath, ...]:
        """The paths that no event has; reads events again while paths are undecided."""
        left = _BYTES_MAX
        for checks, ids in self._by_type:
            for start in range(0, len(ids), _PAGE):
                if left <= 0 or all(check.seen for check in checks):
                    break
                with self._store.read() as conn:
                    events = history.events_by_id(conn, ids[start : start + _PAGE])
                left -= sum(len(event.body or b"") for event in events)
                self._look(events, checks)
        return tuple(check.unseen_path() for check in self._checks if check.types and not check.seen)

    def _look(self, events: Sequence[Event], checks: Sequence[_PathCheck]) -> None:
        for event in events:
            read = self._preparer.read(event) if event.body is not None else None
            for event_type, document in self._documents(read) if read is not None else ():
                for check in checks:
                    check.look(document, event_type)

    def _documents(self, read: ReadEvent) -> Iterator[tuple[str, Document]]:
        """Each document with its type and with room for its values."""
        for read_document in read.documents:
            source = self._preparer.rule_set.sources[read.event.source]
            event_type = read_document.envelope.type
            yield event_type, with_values(read_document.document, source, event_type, b"")


@dataclass(slots=True)
class _PathCheck:
    """Whether one of these paths was seen, and how many events lacked it."""

    source: str
    file: str
    written: WrittenPaths
    globs: tuple[Glob, ...]
    seen: bool = False
    events: int = 0
    types: dict[str, None] = field(default_factory=dict)
    known: dict[str, None] = field(default_factory=dict)

    def is_for(self, event_type: str) -> bool:
        return any(glob.matches(event_type) for glob in self.globs)

    def see(self, document: Document, event_type: str) -> bool:
        """Look in an event; True once the path has been seen, here or before."""
        if not self.seen and self.is_for(event_type):
            self.seen = any(_has(document, path) for path in self.written.paths)
        return self.seen

    def look(self, document: Document, event_type: str) -> None:
        if self.seen or not self.is_for(event_type):
            return
        self.events += 1
        self.types[event_type] = None
        if not self.see(document, event_type) and len(self.known) < _PATHS_MAX:
            path = self.written.paths[0]
            body = was(document).body if isinstance(path, WasPath) else document.body
            self.known |= dict.fromkeys(_all_paths(document.root if path.root == "root" else body))

    def unseen_path(self) -> UnseenPath:
        written = self.written
        place = f"{self.file}:{written.line}:{written.column}"
        meant = _suggestion(written.paths[0], tuple(self.known))
        return UnseenPath(place, self.source, written.rule, written.text, self.events, tuple(self.types), meant)


def _path_checks(rule_set: RuleSet, source: str) -> Iterator[_PathCheck]:
    """The paths that one file itself names in enabled rules."""
    file = PurePath(rule_set.mappings[source].file)
    usual = _shipped_paths(rule_set.sources[source].provider)
    rules = {rule.id: rule for rule in rule_set.rules[source]}
    for written in written_paths(rule_set.files.get(file.name, "")):
        rule = rules.get(written.rule or "")
        if written.rule is not None and (rule is None or not rule.enabled):
            continue
        types = rule.events if rule is not None else written.events
        if not any((text, event) in usual for text in _texts(written) for event in (*types, "*")):
            yield _PathCheck(source, str(file), written, tuple(map(compile_glob, types)))


def _shipped_paths(provider: str) -> set[tuple[str, str]]:
    """The paths in the provider's shipped file, each with the event types that have it."""
    texts = (text for text in shipped().values() if f"provider: {provider}\n" in text)
    found = (written for text in texts for written in written_paths(text))
    return {(text, event) for written in found for text in _texts(written) for event in written.events}


def _texts(written: WrittenPaths) -> list[str]:
    return [path.text for path in written.paths]


# ------------------------------------------------------------------------------------------------ what an event has


def _has(document: Document, path: CompiledPath) -> bool:
    """Whether the event has this path. Below a null and in an empty list this is unknown, so it counts as present."""
    if isinstance(path, WasPath):
        return _has(was(document), path.inner)
    if isinstance(path, ValuePath) and document.derived is not None and document.derived.has(path.name):
        return True
    return _exists(document.root if path.root == "root" else document.body, path.segments)


def _exists(value: Value, segments: Sequence[Segment]) -> bool:
    for number, segment in enumerate(segments):
        if isinstance(value, str):
            value = json_in_text(value)
        if value is None or (isinstance(value, list) and not value and not isinstance(segment, Field)):
            return True
        if isinstance(segment, Every):
            elements = value if isinstance(value, list) else []
            return any(_exists(element, segments[number + 1 :]) for element in elements)
        if isinstance(segment, Where) and isinstance(value, dict):  # behind a star
            value = walk([value], (segment,))
        else:
            value = walk(value, (segment,))
    return value is not MISSING


def _all_paths(value: Json, path: str = "", depth: int = 0) -> Iterator[str]:
    """Every path of a body; `*` stands for the elements of a list."""
    if path:
        yield path
    if isinstance(value, dict) and depth < 12:
        for name, below in list(value.items())[:200]:
            written = name if name.replace("_", "").replace("-", "").isalnum() else f'"{name}"'
            yield from _all_paths(below, f"{path}.{written}" if path else written, depth + 1)
    elif isinstance(value, list):
        for element in value[:3]:
            yield from _all_paths(element, f"{path}.*", depth + 1)


def _suggestion(path: CompiledPath, known: Sequence[str]) -> str | None:
    """The path that was probably meant: similar from the point of mismatch on, or with the same last name elsewhere."""
    in_lists = (segment for segment in path.segments if isinstance(segment, Index | Every))
    lists = [f"[{segment.position}]" if isinstance(segment, Index) else "" for segment in in_lists]
    names = [segment.name if isinstance(segment, Field) else "*" for segment in path.segments]
    if names[0] in ("was", "root", "body"):
        return _suggestion_in_was(path, known, names)
    begin = next((n for n in range(len(names) - 1, -1, -1) if n == 0 or ".".join(names[:n]) in known), 0)
    head = "".join(f"{name}." for name in names[:begin])
    rest = {text.removeprefix(head): text for text in known if text.startswith(head) and text != head}
    meant = nearest(".".join(names[begin:]), list(rest), likeness=0.75)
    found = rest[meant] if meant is not None else _same_name_elsewhere(names[-1], known)
    for text in lists:
        found = found.replace(".*", text, 1) if found is not None and text else found
    return found


def _suggestion_in_was(path: CompiledPath, known: Sequence[str], names: list[str]) -> str | None:
    inner = path.inner if isinstance(path, WasPath) else None
    found = _suggestion(inner, known) if inner is not None and not isinstance(inner, ValuePath) else None
    return None if found is None else f"{names[0]}.{found}"


def _same_name_elsewhere(name: str, known: Sequence[str]) -> str | None:
    return min((path for path in known if path.rsplit(".", 1)[-1] == name), key=len, default=None)
