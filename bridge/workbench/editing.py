"""A mapping file being edited away from the disk: reading it, trying it, making a patch, saving it.

A page carries text with LF line ends; a file keeps its own line ends and byte order mark. A name leads only to a file
of the folder. The text is tried (`check`, the goals of an event, a backtest) in a copy of the folder in memory, with
this one file replaced. Changes made on the disk meanwhile are never overwritten, and a save is atomic: the file is
entirely old or entirely new. A file that contains a secret is neither shown nor written.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from bridge import rules
from bridge.errors import EditRefused, FileChanged, MappingError, os_reason
from bridge.rules.reading.secrets import VARIABLE, is_secret
from bridge.rules.reading.strict_yaml import SIZE_MAX, Node, parse, secret_lines
from bridge.settings import hosts
from bridge.store.operator import history
from bridge.workbench import backtest, checking, unseen
from bridge.workbench.explain import Explained
from bridge.workbench.stored import preparer

if TYPE_CHECKING:
    from bridge.model import Event
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store import Store
    from bridge.workbench.checking import FileReport, FolderReport

NO_FILE: Final = ""  # the digest of a file that does not exist yet
EVENTS: Final = 500  # the newest of the source, on which a backtest runs
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}\.ya?ml")
_PLACE: Final = re.compile(r":(\d+):(?:(\d+):)? ")
_BOM: Final = b"\xef\xbb\xbf"
_NOT_IN_FORMS: Final = re.compile("[\x00\udc80-\udcff]")  # characters that no form field can carry
_SECRET: Final = re.compile(r"\b(?:whsec|pdl_ntfset|sk_live|rk_live|sk_test|rk_test|polar_whs|df|dft)_[\w+/=-]{16,}")
_LINES_COMPARED: Final = 25_000_000  # product of both numbers of lines; above it, a patch replaces every line
_AROUND: Final = 3  # lines of context around each change in a patch


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A mapping file on the disk. text: with LF line ends. digest: of its bytes; NO_FILE if there is no file yet."""

    name: str
    text: str = ""
    digest: str = NO_FILE
    ends: str = "\n"
    mark: bytes = b""

    def encoded(self, text: str) -> bytes:
        """The file's bytes if it had this text."""
        return self.mark + with_lf(text).replace("\n", self.ends).encode("utf-8", "surrogateescape")


def with_lf(text: str) -> str:
    """The text with LF line ends: a form sends CR LF, whatever it was given."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def file_names(folder: Path) -> list[str]:
    """The sorted names of the folder's mapping files; none if it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_file())
    except OSError:
        return []


def read(folder: Path, name: str, known: Sequence[str] = ()) -> StoredFile:
    """The file of this name, or an empty one to be created. Raises EditRefused if it cannot be shown.

    known: secrets in use, which no page shows.
    """
    path = _path(folder, name)
    if not path.exists():
        return StoredFile(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise EditRefused(
            f"{name} is a symbolic link that leads out of the folder {folder.name}: edit the file that it leads to."
        )
    try:
        rules.read_file(path)  # refuses anything that is not a regular file, or is too large
        data = path.read_bytes()
    except MappingError as error:
        raise EditRefused(error.problems[0]) from None
    except OSError as error:
        raise EditRefused(f"{name} cannot be read ({os_reason(error)}).") from None
    mark = _BOM if data.startswith(_BOM) else b""
    text = data[len(mark) :].decode("utf-8", "surrogateescape")
    if match := _NOT_IN_FORMS.search(text):
        line = text[: match.start()].count("\n") + 1
        raise EditRefused(
            f"{name} is not UTF-8 text (line {line}), and a page would change its bytes: correct it with an editor."
        )
    require_no_secret(name, text, known)
    ends = "\r\n" if "\n" in text and text.count("\n") == text.count("\r\n") else "\n"
    return StoredFile(name, with_lf(text), _digest(data), ends, mark)


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise EditRefused("A mapping file is named after its source, plus .yaml: at most 60 letters, digits, - and _.")
    return folder / name


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -------------------------------------------------------------------------------------------------------- secrets


def require_acceptable(name: str, text: str, known: Sequence[str] = ()) -> None:
    """Raise EditRefused if the content is too large for a mapping file or contains a secret."""
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > SIZE_MAX:
        raise EditRefused(f"The text has {size:,} bytes, at most {SIZE_MAX:,} are allowed in a mapping file.")
    require_no_secret(name, text, known)


def require_no_secret(name: str, text: str, known: Sequence[str] = ()) -> None:
    """Raise EditRefused if a secret is written in the text itself."""
    line = _secret_line(text, known)
    if line is not None:
        raise EditRefused(
            f"{name} holds a secret itself (line {line}), which the console neither shows nor saves: write ${{NAME}}"
            " there, and set the variable NAME where the bridge runs."
        )


def _secret_line(text: str, known: Sequence[str]) -> int | None:
    for number, line in enumerate(text.splitlines(), 1):
        if _SECRET.search(line) or any(secret in line for secret in known if len(secret) >= 6):
            return number
    return _literal_line(text)


@lru_cache(maxsize=4)
def _literal_line(text: str) -> int | None:
    """The line of the first value in a secret's place that is not a variable. Cached: a file is opened many times."""
    tree, _ = parse(text)
    if tree is None:
        return _suspicious_line(text)
    return next((node.line for node in _places(tree) if _is_literal(node)), None)


def _places(tree: Node) -> Iterator[Node]:
    """The values in which a mapping file may hold a secret. Its tests' events are nobody's."""
    for key, node in tree.entries.items():
        if key in ("secret", "require"):
            yield from _scalars(node)
        elif key != "tests":
            yield from _keys(node)


def _keys(node: Node) -> Iterator[Node]:
    for key, child in node.entries.items():
        yield from _scalars(child) if key == "api_key" else _keys(child)
    for element in node.elements:
        yield from _keys(element)


def _scalars(node: Node) -> Iterator[Node]:
    if node.kind == "scalar":
        yield node
    for child in (*node.entries.values(), *node.elements):
        yield from _scalars(child)


def _is_literal(node: Node) -> bool:
    return isinstance(node.value, str) and is_secret(VARIABLE.sub("", node.value))


def _suspicious_line(text: str) -> int | None:
    """Like `_literal_line`, for content that does not parse: a secret's line with more than a variable in it."""
    hits = secret_lines(text)
    for number, line in enumerate(text.splitlines(), 1):
        written = line.partition(" #")[0]
        value = written.partition(":")[2] if ":" in written else written.lstrip("- ")
        if number in hits and not line.lstrip().startswith("#") and is_secret(VARIABLE.sub("", value).strip("[]\"' ")):
            return number
    return None


# ----------------------------------------------------------------------------------------------------------- trying


@dataclass(frozen=True, slots=True)
class Remark:
    """A message of `check`. line, column: in the file being tried; None if it is about something else."""

    sentence: str
    is_problem: bool
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A checked file. rule_set: of the whole folder; None if it cannot be loaded."""

    name: str
    remarks: tuple[Remark, ...]
    rule_set: RuleSet | None = None
    file: FileReport | None = None

    @property
    def problems(self) -> int:
        return sum(remark.is_problem for remark in self.remarks)

    @property
    def lines(self) -> dict[int, bool]:
        """The lines with a remark, and whether it is a problem."""
        found: dict[int, bool] = {}
        for remark in self.remarks:
            if remark.line is not None:
                found[remark.line] = found.get(remark.line, False) or remark.is_problem
        return found


def check(folder: Path, name: str, text: str, settings: Settings, now_ms: int) -> Trial:
    """Check the folder with this text in place of one file. Never raises."""
    try:
        texts = rules.read_files(folder) if folder.exists() else {}
    except MappingError as error:
        return Trial(name, tuple(Remark(problem, is_problem=True) for problem in error.problems))
    report = checking.check_files({**texts, name: text}, settings.environ, settings, folder.name, now_ms, only=name)
    remarks = _remarks(report, f"{folder.name}/{name}", folder.name)
    return Trial(name, tuple(remarks), report.rule_set, next(iter(report.files), None))


def _remarks(report: FolderReport, file: str, folder: str) -> Iterator[Remark]:
    """The remarks on this file, problems first, each kind in order of lines; then those on anything else."""
    own, others = [], []
    for sentences, is_problem in ((report.problems, True), (report.suspicions, False), (report.warnings, False)):
        for sentence in sentences:
            place = _PLACE.match(sentence, len(file)) if sentence.startswith(file) else None
            if place is not None:
                column = int(place[2]) if place[2] else None
                own.append(Remark(sentence[place.end() :], is_problem, int(place[1]), column))
            elif is_problem or not sentence.startswith(f"{folder}/"):
                others.append(Remark(sentence, is_problem))
    yield from sorted(own, key=lambda remark: (not remark.is_problem, remark.line or 0, remark.column or 0))
    yield from others


def require_sound(trial: Trial) -> None:
    """Raise EditRefused if there is a problem."""
    first = next((remark for remark in trial.remarks if remark.is_problem), None)
    if first is not None:
        more = f" (and {trial.problems - 1} more)" if trial.problems > 1 else ""
        place = f"line {first.line}: " if first.line is not None else ""
        raise EditRefused(f"{trial.name} is not saved, because it has a problem: {place}{first.sentence}{more}")


def explain(store: Store, rule_set: RuleSet, settings: Settings, event: Event) -> Explained | None:
    """What these rules would make of a stored event; None if its source has no file or its body is gone."""
    source = rule_set.sources.get(event.source)
    if source is None or event.body is None:
        return None
    prepared = replace(preparer(store, rule_set, settings), near=True).prepare(event)
    return Explained(source, event, prepared, settings, None)


def compare(store: Store, settings: Settings, source: str, present: RuleSet, other: RuleSet) -> backtest.Backtest:
    """Compare what the file would have made of its source's newest events with the rules in force."""
    with store.read() as conn:
        ids = [event_id for event_id, _, _ in history.newest(conn, [source], 0)[:EVENTS]]
    present_preparer, other_preparer = (preparer(store, rule_set, settings) for rule_set in (present, other))
    return backtest.compare_some(store, present_preparer, other_preparer, ids)


def unseen_paths(store: Store, rule_set: RuleSet, settings: Settings, source: str) -> tuple[unseen.UnseenPath, ...]:
    """The paths in one file that no stored event has."""
    return unseen.unseen(store, replace(rule_set, sources={source: rule_set.sources[source]}), settings)


# --------------------------------------------------------------------------------------------------------- a patch


def patch(folder: Path, stored: StoredFile, text: str) -> str:
    """The patch for `git apply` that turns the file into this text; empty if nothing differs."""
    path = f"{_in_repository(folder)}/{stored.name}"
    old_lines = [] if stored.digest == NO_FILE else _lines(stored.encoded(stored.text))
    new_lines = _lines(stored.encoded(text))
    if old_lines == new_lines:
        return ""
    head = f"diff --git a/{path} b/{path}\n"
    if stored.digest == NO_FILE:
        head += "new file mode 100644\n"
    old = "/dev/null" if stored.digest == NO_FILE else f"a/{path}"
    return head + "".join(_patch_line(line) for line in _hunks(old_lines, new_lines, old, f"b/{path}"))


def _in_repository(folder: Path) -> str:
    """The folder's path in its repository: below the nearest `.git`, else as configured, else its own name."""
    absolute = folder.resolve()
    top = next((parent for parent in absolute.parents if (parent / ".git").exists()), None)
    if top is not None:
        return absolute.relative_to(top).as_posix()
    return absolute.name if folder.is_absolute() or ".." in folder.parts else folder.as_posix()


def _lines(data: bytes) -> list[str]:
    """The lines with their line ends. In a patch, only LF ends a line."""
    pieces = data.decode("utf-8", "surrogateescape").split("\n")
    return [*(f"{piece}\n" for piece in pieces[:-1]), *([pieces[-1]] if pieces[-1] else [])]


def _hunks(before: list[str], after: list[str], old: str, new: str) -> Iterator[str]:
    if len(before) * len(after) <= _LINES_COMPARED:
        yield from difflib.unified_diff(before, after, old, new, n=_AROUND)
        return
    yield f"--- {old}\n+++ {new}\n@@ -1,{len(before)} +1,{len(after)} @@\n"  # fast, whatever the lines are
    yield from (f"-{line}" for line in before)
    yield from (f"+{line}" for line in after)


def _patch_line(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


# ---------------------------------------------------------------------------------------------------------- saving


def unsavable(folder: Path, environ: Mapping[str, str]) -> str | None:
    """Why nothing can be saved here, and what to do instead; None if saving is possible."""
    advice = "download the patch, `git apply` it, and deploy"
    host = hosts.host_of(environ)
    if host is not None and not hosts.lasts(PurePosixPath(folder.resolve()), host, environ):
        return f"On {host.name} a saved file would be gone with the next deploy or restart: {advice}."
    if not folder.is_dir():
        return f"The folder {folder.name} is not there: {advice}."
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"The bridge may not write to the folder {folder.name}: {advice}, or give it the right to write there."
    return None


def require_savable(folder: Path, environ: Mapping[str, str]) -> None:
    """Raise EditRefused if nothing can be saved."""
    if reason := unsavable(folder, environ):
        raise EditRefused(reason)


def save(folder: Path, stored: StoredFile, text: str) -> bool:
    """Write the file atomically and durably if it is unchanged since it was read; return whether anything changed.

    Raises FileChanged if it is not, and EditRefused if it cannot be written; both leave it as it is.
    """
    path = _path(folder, stored.name)
    require_acceptable(stored.name, text)
    data = stored.encoded(text)
    try:
        with _locked(folder):
            if path.is_symlink():
                raise EditRefused(f"{stored.name} is a symbolic link, which saving would replace: edit its target.")
            if (_digest(path.read_bytes()) if path.exists() else NO_FILE) != stored.digest:
                raise FileChanged(
                    f"{stored.name} has changed on disk since you opened it, so nothing was saved: compare both, and"
                    " save again."
                )
            if stored.digest == _digest(data):
                return False
            _replace(path, data)
    except OSError as error:
        raise EditRefused(f"{stored.name} is not saved: {_write_problem(folder, error)}; it is as it was.") from None
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one save at a time through, among all processes on this machine."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
        os.fsync(directory)  # so that the rename, too, survives a power cut
    finally:
        os.close(directory)


def _replace(path: Path, data: bytes) -> None:
    """Write a temporary file next to it, which readers ignore, and rename it over the old one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            if path.exists():
                status = path.stat()
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
                with suppress(PermissionError):  # only root may change a file's owner
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_problem(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"the bridge may not write to the folder {folder.name} ({os_reason(error)})"
    return os_reason(error)
