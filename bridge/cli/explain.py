"""`explain`: what would this event do, and why? It asks the rules as the router does, and changes nothing.

It uses no network and no database: what another event taught about the visitor is not known here, so a goal without a
visitor of its own is shown as waiting for one. `why` is about events that really arrived.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bridge import settings as settings_
from bridge.cli import captured, parameters, redaction, resources, trace
from bridge.cli.catalogue import command
from bridge.cli.formatting import ago, count, listing, when
from bridge.cli.screen import of_context
from bridge.errors import SettingsError, SignatureError
from bridge.masking import url_without_password

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bridge.cli.screen import Screen
    from bridge.model import Event, GoalDraft, Request, Source
    from bridge.prepare import PreparedEvent
    from bridge.rules import RuleSet
    from bridge.settings import Settings


@dataclass(frozen=True)
class Explained:
    """An event as it would be routed, and what it would send."""

    source: Source
    event: Event
    prepared: PreparedEvent
    settings: Settings
    signature: str | None  # what became of the signature; None: a bare body has none

    @property
    def drafts(self) -> list[GoalDraft]:
        return [draft for element in self.prepared.elements for draft in element.drafts]

    @property
    def ids(self) -> set[str]:
        """What it would be found by."""
        found = {self.event.envelope.id, self.event.envelope.account, self.event.envelope.type}
        found |= {key.id for element in self.prepared.elements for key in element.observation.keys}
        found |= {item.visitor for element in self.prepared.elements for item in element.judged}
        return {text for text in found if text}

    @property
    def following(self) -> list[GoalDraft]:
        """What it would send if another goal was made before, which only the database knows."""
        return [draft for element in self.prepared.elements for draft in element.following]


@command(
    examples=[
        ("explain event.json --source stripe", "a body that you copied from the provider's dashboard"),
        ("explain captured.http", "a whole request; its path names the source, and its signature is checked"),
        (
            "events show ev_12 --body | python -m bridge explain - --source stripe",
            "a received event, by today's rules",
        ),
    ]
)
@click.argument("file", metavar="FILE")
@click.option("--source", metavar="NAME", help="The source (the mapping file's name) that would receive it.")
@parameters.MAPPINGS
def explain(file: str, source: str | None, mappings: Path | None) -> int:
    """Show what an event would do, and why: every rule, the visitor, and the goals as they would be sent.

    FILE is a body as the provider sends it, or a captured request (`POST /webhooks/stripe HTTP/1.1`, headers, an empty
    line, the body); `-` reads standard input. Nothing is sent or stored. The exit code is 1 if the event could
    not be read.
    """
    screen = of_context()
    given = resources.environ()
    rule_set = resources.load_rules(given, mappings or resources.mappings_folder(given))
    content = captured.read_file(file)
    name = source or captured.source_in(content) or resources.only_source(rule_set)
    resources.demand_source(rule_set, name)
    explained = look_at(
        rule_set, _settings(screen, given), captured.request(content, name), name, captured.is_request(content)
    )
    redaction.hide_event(screen, explained.event, explained.ids, explained.source)
    if screen.as_json:
        screen.write_json(as_json(explained))
    else:
        print_explanation(screen, explained)
    return 1 if explained.prepared.quarantine else 0


def _settings(screen: Screen, given: Mapping[str, str]) -> Settings:
    """The settings; a wrong one that does not matter here must not keep anybody from an answer."""
    try:
        return settings_.load(given)
    except SettingsError as error:
        for fault in error.faults:
            screen.warn(fault)
        return settings_.load({})


def look_at(rule_set: RuleSet, settings: Settings, request: Request, name: str, signed: bool) -> Explained:
    """Do with a request all that receiving and routing do before anything is written."""
    from bridge import app
    from bridge.prepare import Preparer

    source = rule_set.sources[name]
    preparer = Preparer(rule_set, settings, app.destinations(settings, rule_set), b"explain")
    prepared = preparer.prepare_request(source, request, resources.now_ms())
    return Explained(source, prepared.event, prepared, settings, _signature(source, request) if signed else None)


def _signature(source: Source, request: Request) -> str:
    from bridge import sources

    if not source.secrets:
        return f"cannot be checked: {source.secret_fault or 'its secret is not set'}"
    try:
        sources.verify(source, request, time.time())
    except SignatureError as error:
        return f"would be refused (401): {error.reason}"
    return "is right"


# --------------------------------------------------------------------------------------------------------- answer


def as_json(explained: Explained) -> dict[str, Any]:
    """The trace as it would be stored, and the goals as they would be sent."""
    from bridge import route

    prepared = explained.prepared
    return {
        "source": explained.source.name,
        "type": explained.event.envelope.type,
        "id": explained.event.envelope.id,
        "mode": explained.event.envelope.mode,
        "signature": explained.signature,
        "verdict": "quarantined" if prepared.quarantine else prepared.verdict.value,
        "reason": prepared.quarantine or prepared.reason,
        **route.preview(prepared),
        "goals": [_goal(explained, draft) for draft in (*explained.drafts, *explained.following)],
    }


def _goal(explained: Explained, draft: GoalDraft) -> dict[str, Any]:
    return {
        "rule": draft.planned.rule_id,
        "kind": draft.planned.kind,
        **({"origin": draft.planned.origin} if draft.planned.origin else {}),
        "destination": draft.destination,
        "once_key": draft.planned.once_key,
        "what": _fate(explained, draft),
        "request": {name: value for name, value in _request(explained, draft).items() if value not in ({}, "")},
    }


def _request(explained: Explained, draft: GoalDraft) -> dict[str, Any]:
    """The body that would be sent."""
    from bridge.datafast import payment

    visitor, planned = draft.own[0].visitor if draft.own else None, draft.planned
    if planned.kind != "goal":
        return payment.body(planned.metadata, visitor or "", draft.happened_at_ms)
    return {
        "datafast_visitor_id": visitor,
        "name": planned.name,
        "description": planned.description or f"{explained.source.name} {explained.event.envelope.id or 'ev_…'}",
        "metadata": dict(planned.metadata),
    }


def _fate(explained: Explained, draft: GoalDraft) -> str:
    """What would become of a goal, in a sentence."""
    told = draft.planned.notify and not (draft.test or draft.dry or draft.planned.dry)
    return f"{_way(explained, draft)}; BRIDGE_ALERTS is told when it is delivered" if told else _way(explained, draft)


def _way(explained: Explained, draft: GoalDraft) -> str:
    if draft.planned.follows is not None:
        return f"{_needs(draft)}; if it was: {_lot(explained, draft)}"
    return _lot(explained, draft)


def _lot(explained: Explained, draft: GoalDraft) -> str:
    from bridge import identity

    if draft.dry and draft.planned.kind != "goal":
        return "a test event: its payment would never be sent"
    if draft.dry:
        return "a test event: nothing would be sent (DATAFAST_TEST_API_KEY would send it to a second website)"
    if draft.planned.dry:
        return f"would be kept, not sent: the rule is dry (`goals send --rule {draft.planned.rule_id}` would send it)"
    pairs = [(key.kind, key.id) for key in draft.keys]
    if not draft.own and not pairs and draft.planned.kind != "goal":
        return "would be sent, without a visitor"
    if not draft.own and not pairs:
        return f"would find no visitor: {identity.unattributed(explained.source.provider, pairs, draft.refused)}"
    age_ms = explained.event.received_at_ms - draft.happened_at_ms
    limit_ms = draft.planned.max_age_ms or explained.settings.bridge_max_age
    if age_ms > limit_ms:
        limit = settings_.duration_text(limit_ms)
        return f"would not be sent if it came now: it is older than {limit}, and DataFast would date it now"
    if not draft.own:
        return f"{identity.waiting(pairs, draft.refused)} (or finds one that an earlier event has taught)"
    first = draft.own[0]
    if first.borrowed:
        return f"would be sent if DataFast knows {first.visitor} ({first.path}), which it is asked first"
    return "would be sent"


def print_explanation(screen: Screen, explained: Explained) -> None:
    """The answer first, then the reasons."""
    from bridge import route

    screen.heading(_summary(explained))
    screen.say()
    screen.facts(_facts(explained))
    trace.print_elements(screen, route.preview(explained.prepared)["elements"])
    for draft in (*explained.drafts, *explained.following):
        screen.say()
        _print_goal(screen, explained, draft)


def _summary(explained: Explained) -> str:
    prepared = explained.prepared
    if prepared.quarantine:
        return f"It would be accepted and put into quarantine: {prepared.quarantine}"
    if prepared.ignored:
        return f"It would be ignored: {prepared.ignored}"
    if explained.drafts:
        names = listing([draft.planned.name for draft in explained.drafts])
        made = f"{count(len(explained.drafts), 'goal')}: {names}."
    else:
        made = "No goal for sure." if explained.following else _no_goal(prepared)
    return " ".join([made, *(f"{draft.planned.name} {_needs(draft)}." for draft in explained.following)])


def _no_goal(prepared: PreparedEvent) -> str:
    from bridge import route

    elements = route.preview(prepared)["elements"]
    near = trace.nearest(elements[0]) if len(elements) == 1 and prepared.reason is None else ""
    return f"No goal: {prepared.reason or 'no rule matches'}{f'. The nearest is {near}' if near else ''}."


def _needs(draft: GoalDraft) -> str:
    """What has to be there before a goal that follows another."""
    follows = draft.planned.follows
    return "" if follows is None else f"would need {follows.text}, made before"


def _facts(explained: Explained) -> list[tuple[str, str]]:
    event, envelope = explained.event, explained.event.envelope
    facts = [
        ("Source", f"{explained.source.name} ({explained.source.provider})"),
        ("Event", f"{envelope.type or '(no type)'} {envelope.id or '(no id)'}, {envelope.mode} mode"),
    ]
    if envelope.time_ms is not None:
        facts.append(("Happened", f"{when(envelope.time_ms)}, {ago(envelope.time_ms, event.received_at_ms)}"))
    if envelope.account:
        facts.append(("Account", envelope.account))
    if explained.signature:
        facts.append(("Signature", explained.signature))
    return facts


def _print_goal(screen: Screen, explained: Explained, draft: GoalDraft) -> None:
    goal = _goal(explained, draft)
    is_goal = draft.planned.kind == "goal"
    screen.heading(f"Goal {draft.planned.name}" if is_goal else "Payment")
    request, metadata = goal["request"], draft.planned.metadata
    facts = [
        *([("Rule", f"{goal['rule']} ({goal['origin']})")] if "origin" in goal else []),
        ("What", goal["what"]),
        ("Visitor", request.get("datafast_visitor_id") or "none in this event"),
        *([("Description", str(request.get("description", "")))] if is_goal else []),
        *([("Metadata" if is_goal else "Fields", "")] if metadata else []),
        *((f"  {key}", value) for key, value in metadata.items()),
        ("Destination", goal["destination"]),
        ("Only once per", goal["once_key"]),
    ]
    screen.facts(facts)
    screen.say("As it would be sent:", indent=2)
    place = "goals" if is_goal else "payments"
    screen.line(f"    POST {url_without_password(explained.settings.datafast_api_url)}/{place}")
    screen.line(f"    {_compact({name: value for name, value in request.items() if value is not None})}")


def _compact(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
