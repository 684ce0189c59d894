"""The folder of mapping files: the only part of the rule language that touches a disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from bridge.errors import MappingError, os_reason
from bridge.rules.reading.strict_yaml import SIZE_MAX

SHIPPED: Final = (Path(__file__).parents[2] / "shipped").resolve()  # in a clone, a link to its `mappings`
EXAMPLES: Final = SHIPPED / "examples"  # files that a layer may extend and that no default folder loads
SHIPPED_PREFIX: Final = (
    "shipped/"  # prefix of the name of a shipped file in a set: it is not a source, but what a layer extends
)
SUFFIXES: Final = (".yaml", ".yml")
FILES_MAX: Final = 500
_PROVIDER: Final = re.compile(r"^provider: (\S+)", re.MULTILINE)


def read_files(folder: Path) -> dict[str, str]:
    """Read the mapping files of a folder (not of its subfolders): name -> text. MappingError if one cannot be read.

    Names that begin with a dot belong to an editor or the system. Pipes, devices and folders are not opened, and a file
    that is too large is not read at all.
    """
    try:
        found = sorted(path for path in folder.iterdir() if _is_mapping_file(path))
    except OSError as error:
        sentence = f"{folder}: the folder of mapping files cannot be read ({_reason(error)})"
        advice = f"; `cp -r {SHIPPED} {folder}` makes one with the files that are shipped, or set BRIDGE_MAPPINGS"
        raise MappingError([sentence + advice if isinstance(error, FileNotFoundError) else sentence]) from None
    if len(found) > FILES_MAX:
        raise MappingError([too_many(folder, len(found))])
    texts: dict[str, str] = {}
    problems: list[str] = []
    for path in found:
        try:
            texts[path.name] = read_file(path)
        except MappingError as error:
            problems += error.problems
    if problems:
        raise MappingError(problems)
    return texts


def read_file(path: Path) -> str:
    """The text of one mapping file; MappingError if it cannot be read.

    Bytes that are not UTF-8 are kept (surrogateescape), so that `load` reports them together with all other errors.
    """
    try:
        return _read(path)
    except OSError as error:
        raise MappingError([f"{path}:1:1: the file cannot be read ({_reason(error)})"]) from None


def _read(path: Path) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:  # a pipe would block
        known = os.fstat(opened.fileno())
        if not stat.S_ISREG(known.st_mode):
            raise MappingError([f"{path}:1:1: this is not an ordinary file"])
        data = opened.read(SIZE_MAX + 1) if known.st_size <= SIZE_MAX else b""
    size = max(known.st_size, len(data))
    if size > SIZE_MAX:
        raise MappingError(
            [f"{path}:1:1: the file has {size:,} bytes, at most {SIZE_MAX:,} are allowed; it was not read"]
        )
    return data.decode("utf-8-sig", "surrogateescape")


@cache
def shipped() -> Mapping[str, str]:
    """The shipped files that a layer can extend, name -> text. Read once, like the code, so both are of one release.

    Only regular files count: no link leads out of the folder.
    """
    found: dict[str, str] = {}
    for folder in (EXAMPLES, SHIPPED):
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        found |= {p.stem: read_file(p) for p in paths if _is_mapping_file(p) and not p.is_symlink()}
    return found


def provider_of(text: str) -> str:
    """The provider of a shipped file, which states it without quotes; empty if there is none."""
    found = _PROVIDER.search(text)
    return found[1] if found else ""


def _is_mapping_file(path: Path) -> bool:
    """Whether this is a mapping file; OSError if that cannot be determined. A broken link is not a file."""
    if path.suffix not in SUFFIXES or path.name.startswith("."):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def too_many(folder: object, count: int) -> str:
    return f"{folder}: there are {count} mapping files, at most {FILES_MAX} are allowed"


def _reason(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        owner = "this process" if error.errno == errno.EMFILE else "this machine"
        return f"{owner} has as many files open as it may: raise the limit (`ulimit -n`)"
    return os_reason(error)


def own(files: Mapping[str, str]) -> dict[str, str]:
    """The files of a set that are in its own folder, without the shipped ones that they extend."""
    return {name: text for name, text in files.items() if not name.startswith(SHIPPED_PREFIX)}


def hash_of(files: Mapping[str, str]) -> str:
    """The identity of a set of files: SHA-256 over their names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        for part in (name, files[name]):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(str(len(data)).encode() + b":" + data)
    return digest.hexdigest()
