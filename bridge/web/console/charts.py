"""Bars of a chart as numbers: where each begins and how high it is. The templates draw them.

Nothing is scaled by a script: a chart is as wide as its place (`viewBox`), and has its numbers in a table beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 480
_GAP: Final = 0.28  # of a bar's place
_LEAST: Final = 2.0  # so that one event beside a thousand is seen


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a bar. kind: a class of the stylesheet."""

    y: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One place of a chart: its bar, from below, and what it says on hover."""

    x: float
    parts: tuple[Rectangle, ...]
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """width: of a bar. ground: the outline of all places, full or empty. peak: the largest sum, which fills one."""

    bars: tuple[Bar, ...]
    height: int
    width: float
    ground: str
    peak: int


def chart(values: Sequence[Sequence[tuple[str, int]]], titles: Sequence[str], height: int) -> Chart:
    """A bar for each of `values`: (kind, number) of its parts, from below."""
    step = WIDTH / max(len(values), 1)
    width = round(step * (1 - _GAP), 2)
    peak = max((sum(number for _, number in parts) for parts in values), default=0)
    bars = tuple(
        Bar(round(place * step + step * _GAP / 2, 2), _stacked(parts, peak, height), title)
        for place, (parts, title) in enumerate(zip(values, titles, strict=True))
    )
    ground = "".join(f"M{bar.x} 0h{width}v{height}h-{width}z" for bar in bars)
    return Chart(bars, height, width, ground, peak)


def _stacked(parts: Sequence[tuple[str, int]], peak: int, height: int) -> tuple[Rectangle, ...]:
    found, top = [], float(height)
    for kind, number in parts:
        if number:
            size = max(number / peak * (height - _LEAST * len(parts)), _LEAST)
            top -= size
            found.append(Rectangle(round(top, 2), round(size, 2), kind))
    return tuple(found)
