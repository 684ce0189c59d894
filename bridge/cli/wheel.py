"""A wheel of the bridge that is running, for a folder that installs it: no package index has one.

It holds the package's own files and asks for exactly the versions that this release pins. The same files make the same
bytes. It needs no build tool, so that it can also be made from an installed wheel.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bridge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PACKAGE: Final = Path(bridge.__file__).parent
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+(?:\[[a-z,]+\])?==[^\s\\]+)", re.MULTILINE)
_TAGS: Final = "py3-none-any"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file knows
_METADATA: Final = """\
Metadata-Version: 2.1
Name: datafast-bridge
Version: {version}
Summary: The webhook URL that turns the world's sales, refunds and cancellations into DataFast goals.
License: MIT
Requires-Python: >=3.11
{requires}"""
_WHEEL: Final = f"Wheel-Version: 1.0\nGenerator: datafast-bridge\nRoot-Is-Purelib: true\nTag: {_TAGS}\n"
_COMMAND: Final = "[console_scripts]\ndatafast-bridge = bridge.cli:main\n"


def name() -> str:
    """The file's name, which says the version."""
    return f"datafast_bridge-{bridge.__version__}-{_TAGS}.whl"


def build(requirements: str) -> bytes:
    """The wheel. requirements: the pinned packages that it asks for, as pip writes them."""
    about = f"datafast_bridge-{bridge.__version__}.dist-info"
    requires = "".join(f"Requires-Dist: {pinned}\n" for pinned in _PINNED.findall(requirements))
    contents = dict(_files()) | {
        f"{about}/METADATA": _METADATA.format(version=bridge.__version__, requires=requires).encode(),
        f"{about}/WHEEL": _WHEEL.encode(),
        f"{about}/entry_points.txt": _COMMAND.encode(),
    }
    contents[f"{about}/RECORD"] = _record(contents, f"{about}/RECORD").encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            entry = zipfile.ZipInfo(path, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def _files() -> Iterator[tuple[str, bytes]]:
    """The files of the package, in one order; in a clone, some of its folders are links."""
    for folder, folders, names in os.walk(_PACKAGE, followlinks=True):
        folders[:] = sorted(each for each in folders if each != "__pycache__" and not each.startswith("."))
        for each in sorted(names):
            path = Path(folder, each)
            if path.suffix != ".pyc" and not each.startswith("."):
                yield path.relative_to(_PACKAGE.parent).as_posix(), path.read_bytes()


def _record(contents: Mapping[str, bytes], own: str) -> str:
    """The list of files that pip compares with what it unpacks."""
    lines = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in contents.items()]
    return "\n".join([*lines, f"{own},,", ""])


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
