"""The mapping files as releases of the bridge shipped them, to compare one's own with.

Those of earlier releases are kept as data (`releases/<version>.json`, name → text), because the package of one release
holds the files of that release alone. They are read by the grammar, the presets and the values of this release: what is
compared is the rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import bridge
from bridge.rules.reading.folder import BELOW, shipped

_RELEASES: Final = Path(__file__).parent / "releases"
_EXTENDS: Final = re.compile(r"^extends: *['\"]?([A-Za-z0-9_-]+)", re.MULTILINE)


def versions() -> list[str]:
    """The releases whose files are known, the oldest first; the last one is this release."""
    kept = (path.stem for path in _RELEASES.glob("*.json"))
    earlier = sorted((name for name in kept if name != bridge.__version__), key=_in_order)
    return [*earlier, bridge.__version__]


def files(version: str) -> dict[str, str]:
    """The mapping files that this release shipped, with its examples; KeyError for a version that is not known."""
    if version == bridge.__version__:
        return {f"{name}.yaml": text for name, text in shipped().items()}
    if version not in versions():
        raise KeyError(version)
    found: dict[str, str] = json.loads((_RELEASES / f"{version}.json").read_text("utf-8"))
    return found


def instead(own: Mapping[str, str], of_release: Mapping[str, str]) -> dict[str, str]:
    """One's own set as it would be on the files of a release.

    A layer stands on the release's file; a file of the same name gives way to it; any other stays as it is.
    """
    found = {}
    for name, text in own.items():
        below = _EXTENDS.search(text)
        found[name] = text if below else of_release.get(name, text)
        if below and (base := of_release.get(f"{below[1]}.yaml")) is not None:
            found[f"{BELOW}{below[1]}.yaml"] = base
    return found


def _in_order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
