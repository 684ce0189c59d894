"""What an answer about events must not show: the tokens in their bodies, the secrets of their sources.

A source's mapping file says where its sender writes its token; where the file is missing or wrong, the provider's
preset says so, so that events can still be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bridge import loading, sources
from bridge.cli import resources
from bridge.errors import FaultsError
from bridge.store.operator import queries
from bridge.workbench.describe import known_by

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.cli.screen import Screen
    from bridge.model import Event, Source
    from bridge.store.operator.queries import EventDetail, GoalLine
    from bridge.workbench.backtest import Example


def hide_of(screen: Screen, details: Iterable[EventDetail], known: Mapping[str, Source] | None = None) -> None:
    """Hide what is secret in these events, whatever part of them is shown. known: sources that were read already."""
    for detail in details:
        hide_event(screen, detail.event, known_by(detail), (known or {}).get(detail.event.source))


def hide_event(screen: Screen, event: Event, ids: Iterable[str], source: Source | None = None) -> None:
    """The same for one event. ids: by which it is found; they are not secret, whatever their fields are called."""
    screen.hide(sources.unshowable(source or source_of(event.source, event.provider), event.body, ids))


def hide_goals(
    screen: Screen, conn: Connection, goals: Iterable[GoalLine | Example], known: Mapping[str, Source] | None = None
) -> None:
    """Hide what is secret in the events that made these goals, or would have. known: as for `hide_of`."""
    shown = (queries.show_event(conn, event_id) for event_id in sorted({goal.event_id for goal in goals}))
    hide_of(screen, (detail for detail in shown if detail is not None), known)


def hide_sources(screen: Screen, pairs: Iterable[tuple[str, str]]) -> None:
    """Hide the secrets of these sources: (name, provider)."""
    for name, provider in sorted(set(pairs)):
        hide_source(screen, source_of(name, provider))


def hide_source(screen: Screen, source: Source | None) -> None:
    """The same of one source, if it is known."""
    screen.hide(sources.unshowable(source))


def masked_body(event: Event) -> bytes:
    """The body as it came, but for the token of its sender: nothing is signed where there is one."""
    source, body = source_of(event.source, event.provider), event.body or b""
    return body if source is None else sources.without(body, sources.sender_tokens(source, body))


@lru_cache(maxsize=64)
def source_of(name: str, provider: str) -> Source | None:
    """The source as its file has it now, else as its provider's preset has it; None if neither can be read."""
    given = resources.environ()
    folder = resources.mappings_folder()
    presets = sources.presets()
    texts = [text for file in (f"{name}.yaml", f"{name}.yml") if (text := _read(folder / file)) is not None]
    for text in texts:
        try:
            return loading.load({f"{name}.yaml": text}, given, presets).sources[name]
        except FaultsError:
            continue
    return loading.from_preset(name, provider, given)


def _read(file: Any) -> str | None:
    try:
        text: str = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError:
        return None
    return text
