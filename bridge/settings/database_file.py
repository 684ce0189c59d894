"""The file of a SQLite database, as the operating system sees it: private from its first moment, and still there.

An open file outlives its name: unlinked, moved away or replaced, it goes on taking commits that nobody will find again.
`Watch` compares what the path leads to with what was opened (device and inode, also of the log next to it). Once they
differ, it says so until a restart, because nobody can know who else has written there meanwhile, and to what.

Only `unusable` opens the file, before SQLite does: closing a file that SQLite has open would drop SQLite's locks.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from errno import ELOOP, ENOENT, ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge.errors import StoreGone, StoreUnavailable, os_reason
from bridge.settings import database_url

if TYPE_CHECKING:
    Identity = tuple[int, int]  # device and inode

OWNER_ONLY: Final = 0o600
_LOG_SUFFIXES: Final = ("-wal", "-shm")
_IN_MEMORY: Final = "a database in memory is lost when its process ends: name a file, such as sqlite:///bridge.db"
_MAGIC: Final = b"SQLite format 3\0"
_HEAD: Final = 100  # bytes of SQLite's header
_LEADS_NOWHERE: Final = (ENOENT, ENOTDIR, ELOOP)
_held: dict[Path, int] = {}  # a descriptor that is never closed, so that no other file gets the same inode


def unusable(url: str) -> str | None:
    """Why the file of a SQLite URL cannot be the bridge's database, and what to do.

    Never call it while the database is open: it looks into the file, and closing that drops SQLite's locks.
    """
    file = database_url.sqlite_file(url)
    if file is None:
        return _IN_MEMORY if url.startswith("sqlite") else None
    try:
        return _unusable(file)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "it is not a path").lower()
        return f"its path cannot be used ({reason}): name another file, such as sqlite:///bridge.db"


def _unusable(file: Path) -> str | None:
    file.absolute()  # raises if the folder that a relative path starts from is gone
    folder = file.parent
    if not folder.exists():
        return f"the folder {folder} does not exist: create it, or name a file elsewhere"
    if not folder.is_dir():
        return f"{folder} is not a folder, so no file can be in it: name a file elsewhere"
    if file.is_dir():
        return f"{file} is a folder: name a file in it, such as {file / 'bridge.db'}"
    if file.exists() and not stat.S_ISREG(file.stat().st_mode):
        return f"{file} is not an ordinary file: name another one"
    if not _is_allowed(folder, os.W_OK | os.X_OK) or (file.exists() and not _is_allowed(file, os.R_OK | os.W_OK)):
        return f"{file} and its folder must be readable and writable for the user who starts the bridge"
    return _content(file) if file.exists() else None


def _content(file: Path) -> str | None:
    """What is wrong with the beginning of a file that may be a database. An empty file will become one."""
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    if not head or (head.startswith(_MAGIC) and len(head) == _HEAD):
        return None
    what = "is cut off in its first bytes" if head.startswith(_MAGIC) else "is not a SQLite database"
    return f"{file} {what}: name another file, or put a backup there"


def _is_allowed(path: Path, how: int) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def make_private(path: Path) -> None:
    """Create the file for its owner alone, or take away what others may do with it; SQLite's log follows it.

    A file of another user stays as it is. What cannot be done here, SQLite will meet and report.
    """
    real = _real_path(path)
    with suppress(OSError):
        new = os.open(real, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)  # a new file has no locks
        os.fchmod(new, OWNER_ONLY)  # whatever the umask took away
        os.close(new)
    for file in (real, *_log_files(real)):
        with suppress(OSError):
            mode = file.stat().st_mode & 0o777
            if mode & ~OWNER_ONLY:
                file.chmod(mode & OWNER_ONLY)


def hold(url: str) -> None:
    """Remember the file of a SQLite URL for the processes that are forked from this one.

    Replacing a worker is not a restart: the new one must not begin anew with whatever is at the path by then.
    """
    file = database_url.sqlite_file(url)
    if file is None:
        return
    make_private(file)
    with suppress(OSError):
        _held[file.absolute()] = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


class Watch:
    """Whether a path still leads to the file that was opened by it: call `before`, then `begin`, then `require`."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._target: Path | None = None  # what the path leads to, if it is a link
        self._open: tuple[tuple[Path, Identity], ...] = ()  # the file, and its log
        self._problem: str | None = None

    def before(self) -> Identity | None:
        """Which file is at the path before it is first opened; StoreGone if it is not the one this server holds."""
        found = _found(_real_path(self._path))
        if self._path in _held and found != _identity(os.fstat(_held[self._path])):
            raise self._gone(self._path, found)
        return found

    def begin(self, before: Identity | None) -> None:
        """Note that the file is open, and so is its log. StoreGone if it was replaced meanwhile."""
        self._target = _real_path(self._path) if self._path.is_symlink() else None
        file = self._target or self._path
        if before is None or _found(file) != before:
            raise self._gone(file, _found(file))
        logs = [(name, identity) for name in _log_files(file) if (identity := _found(name)) is not None]
        self._open = ((file, before), *logs)

    def end(self) -> None:
        """Note that nothing is open any more."""
        self._open, self._problem = (), None

    def require_not_gone(self) -> None:
        """StoreGone if `require` has raised it before. This costs nothing."""
        if self._problem is not None:
            raise StoreGone(self._problem)

    def require(self) -> None:
        """StoreGone, from now on, unless the path leads to the open file; StoreUnavailable if nobody can tell.

        Called after a commit, it shows that what was committed is where the path leads.
        """
        self.require_not_gone()
        if self._target is not None and (target := _real_path(self._path)) != self._target:
            raise self._gone(self._path, _found(target))
        for index, (file, identity) in enumerate(self._open):
            found = _found(file, emptied=index > 0)
            if found != identity:
                raise self._gone(file, found)

    def _gone(self, file: Path, found: Identity | None) -> StoreGone:
        what = "is gone or empty" if found is None else "is another one"
        self._problem = (
            f"the database file was moved, removed or replaced while it was open ({file} {what}): nothing is received"
            " or sent until the right file is there and the bridge is restarted; docs/operations.md says what can be"
            " saved before"
        )
        return StoreGone(self._problem)


def _real_path(path: Path) -> Path:
    """Where links lead. `Path.resolve` would raise RuntimeError for one that leads to itself."""
    return Path(os.path.realpath(path))


def _log_files(file: Path) -> list[Path]:
    return [file.with_name(file.name + end) for end in _LOG_SUFFIXES]


def _found(file: Path, *, emptied: bool = True) -> Identity | None:
    """Which file is there; None: there is none, or it is empty and must not be. A link counts as another file."""
    try:
        found = file.lstat()
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return None
        raise StoreUnavailable(f"the database file {file} cannot be looked at: {os_reason(error)}") from None
    return _identity(found) if found.st_size or emptied else None


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino
