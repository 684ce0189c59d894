"""What networks and providers do to a sequence of webhooks: repeat and reorder it. Also `--set`.

Every function takes steps and returns steps; chance is seeded, so that a failure can be repeated.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import re
from typing import TYPE_CHECKING, Any, Final

from bridge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bridge.sandbox.scenarios import Step

_PIECE: Final = re.compile(r"[^.\[\]]+|\[-?\d+\]")


def _dice(seed: int, what: str) -> random.Random:
    return random.Random(f"{what}:{seed}")  # noqa: S311 - a play, not a secret


def duplicated(steps: Sequence[Step], *, seed: int, most: int = 5) -> tuple[Step, ...]:
    """Each step one to `most` times; the copies come at any later time."""
    dice, result = _dice(seed, "duplicated"), list(steps)
    for step in steps:
        for _ in range(dice.randint(0, most - 1)):
            result.insert(dice.randint(result.index(step) + 1, len(result)), step)
    return tuple(result)


def reordered(steps: Sequence[Step], *, seed: int) -> tuple[Step, ...]:
    """The steps in any order at all."""
    result = list(steps)
    _dice(seed, "reordered").shuffle(result)
    return tuple(result)


# ------------------------------------------------------------------------------------------------------- --set


def parse_set(text: str) -> tuple[str, Any]:
    """Parse `data.object.amount_total=999` into path and value (JSON, or else text); UsageError if it is malformed."""
    path, equals, value = text.partition("=")
    if not equals or "".join(_PIECE.findall(path)) != path.replace(".", "") or not path:
        raise UsageError(f"--set is {text!r}, but must be path=value, such as data.object.amount_total=999")
    try:
        return path, json.loads(value)
    except ValueError:
        return path, value


def changed(steps: Iterable[Step], sets: Sequence[tuple[str, Any]]) -> tuple[Step, ...]:
    """Set values in every body that has a place for them; UsageError names a path that fits none.

    What a changed step should produce is no longer known, so its expected goals are dropped.
    """
    result = tuple(steps)
    for path, value in sets:
        pieces = [int(piece[1:-1]) if piece.startswith("[") else piece for piece in _PIECE.findall(path)]
        replaced = tuple(_with(step, pieces, value) for step in result)
        if all(new is old for new, old in zip(replaced, result, strict=True)):
            raise UsageError(f"--set {path}: no event of this scenario has a place for it")
        result = replaced
    return result


def _with(step: Step, pieces: Sequence[str | int], value: Any) -> Step:
    body = copy.deepcopy(step.body)
    holder: Any = body
    for piece in pieces[:-1]:
        try:
            holder = holder[piece]
        except (KeyError, IndexError, TypeError):
            return step
    if not _settable(holder, pieces[-1]):
        return step
    holder[pieces[-1]] = value
    return dataclasses.replace(step, body=body, goals=())


def _settable(holder: Any, last: str | int) -> bool:
    """Whether the value can be set: a list's element must exist; a key may be new."""
    if isinstance(holder, dict):
        return isinstance(last, str)
    return isinstance(holder, list) and isinstance(last, int) and -len(holder) <= last < len(holder)
