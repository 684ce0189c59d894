"""`/console/sources`: what to enter at each provider, and what each has sent."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from bridge import alarms, snippet
from bridge.identity.sentences import advice
from bridge.settings import MS
from bridge.text import span
from bridge.web import auth, health
from bridge.web.cached import Cached
from bridge.web.console.rendering import page
from bridge.workbench import setting_up

if TYPE_CHECKING:
    from bridge.alarms import Alarm
    from bridge.app import Bridge
    from bridge.model import Source
    from bridge.store.operator.status import Snapshot, SourceState

_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True)
class SourceRow:
    """A source as the list shows it. state: of its counters, None before its first request. standing: words, kind."""

    source: Source
    state: SourceState | None
    standing: tuple[str, str]
    usual_gap: str | None
    silent: str | None
    findings: tuple[Alarm, ...]


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The list, and a page for each source."""
    recent = Cached(lambda: health.snapshot(bridge, durable=False))

    @routes.get("/sources")
    def sources() -> Response:
        found = rows(bridge, recent.get())
        return page("sources.html", title="Sources", here="sources", rows=found)

    @routes.get("/sources/<name>")
    def source(name: str) -> Response:
        found = bridge.rules.sources.get(name)
        if found is None:
            raise NotFound
        view = _view(bridge, found, recent.get())
        return page("source.html", title=name, here="sources", view=view)


def rows(bridge: Bridge, seen: Snapshot) -> list[SourceRow]:
    """Every source, by name."""
    found = tuple(itertools.chain(*health.assess(bridge, seen)))
    return [_row(source, seen, found) for _, source in sorted(bridge.rules.sources.items())]


def _row(source: Source, seen: Snapshot, findings: Iterable[Alarm]) -> SourceRow:
    state = next((counters for counters in seen.sources if counters.source == source.name), None)
    own_findings = alarms.about_source(findings, source.name)
    silent = None if state is None else alarms.silence(state, seen.now_ms)
    gap_ms = None if state is None else state.longest_gap_ms
    usual_gap = None if gap_ms is None else f"up to {span(max(gap_ms, MS['min']))}"
    return SourceRow(source, state, _standing(source, state, silent, own_findings), usual_gap, silent, own_findings)


def _standing(
    source: Source, state: SourceState | None, silent: str | None, findings: tuple[Alarm, ...]
) -> tuple[str, str]:
    if not source.secrets:
        return "no secret: it answers 503", "bad"
    if any(alarm.name == "refusals" for alarm in findings):
        return "is refusing requests", "bad"
    if state is None or state.last_accepted_at_ms is None:
        return "no events yet", "mute"
    return ("silent", "wait") if silent else ("receives", "ok")


def _view(bridge: Bridge, source: Source, seen: Snapshot) -> dict[str, Any]:
    """All about one source. url: what to paste; local: it leads to this machine only, where no provider can send."""
    base, local = base_address(bridge)
    setup = setting_up.setup(bridge.rules, source.name, base)
    recipe = setting_up.recipe(source)
    attribution = next((found for found in seen.attribution if found.source == source.name), None)
    lists = (*setting_up.goal_lists(setup), (setting_up.VISITOR_EVENTS, setup.link_events))
    return {
        "row": _row(source, seen, itertools.chain(*health.assess(bridge, seen))),
        "setup": setup,
        "url": source.public_url or setup.url,
        "local": local and source.public_url is None,
        "lists": [(label, [setting_up.shown_event(event) for event in events]) for label, events in lists],
        "secrets": setting_up.secret_variables(source, bridge.settings.environ),
        "attributed": None if attribution is None else alarms.attribution_sentence(attribution),
        "advice": advice(source.provider, ()),
        "recipe": recipe,
        "hand_over": None if recipe is None else setting_up.hand_over_section(recipe),
        "has_snippet": recipe in snippet.TOOLS,
    }


def base_address(bridge: Bridge) -> tuple[str, bool]:
    """The public address: what the host says; else the one of this page, which is https except on this machine."""
    stated = setting_up.host_address(bridge.settings.environ)
    if stated is not None and _HOST.fullmatch(stated.removeprefix("https://")):
        return stated, False
    host = request.environ.get("HTTP_HOST", "")
    if auth.names_this_machine(host):
        return f"http://{host}", True
    return (f"https://{host}" if _HOST.fullmatch(host) else setting_up.PLACEHOLDER), False
