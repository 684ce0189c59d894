"""`explain`: what would this event do, and why? It evaluates the rules like the router, and changes nothing.

It uses no network and no database: links learned from other events are not known here, so a goal without a visitor of
its own is shown as waiting for one. `why` is about events that really arrived.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bridge import loading, mapping_tests, route, sources
from bridge.cli import captured, parameters, printing, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.datafast.actions import action_of
from bridge.masking import url_without_password
from bridge.model import BodyForm
from bridge.prepare import Preparer
from bridge.workbench import trace
from bridge.workbench.explain import Explained, as_json, as_sent, event_read, explain_request, summary

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.model import GoalDraft, Source


@command(
    examples=[
        ("explain event.json --source stripe", "a body that you copied from the provider's dashboard"),
        ("explain captured.http", "a whole request: its path names the source, and its signature is checked"),
        ("events show ev_12 --body | python -m bridge explain - --source stripe", "a received event, by today's rules"),
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
    screen = current_screen()
    rule_set = resources.load_rules(mappings)
    content = captured.read_file(file)
    name = source or captured.source_in(content) or resources.only_source(rule_set)
    receiver = resources.source(rule_set, name)
    settings = resources.settings_or_defaults(screen.warn)
    preparer = Preparer(rule_set, settings, loading.destinations(settings, rule_set), b"explain")
    signed = captured.is_request(content)
    request = captured.request(content if signed else _encoded(receiver, content), name)
    explained = explain_request(preparer, receiver, request, resources.now_ms(), signed=signed)
    screen.hide(sources.unshowable(receiver, explained.event.body, explained.ids))
    screen.write_json(as_json(explained))
    print_explanation(screen, explained)
    return 1 if explained.prepared.quarantine else 0


def _encoded(source: Source, content: bytes) -> bytes:
    """A bare body; for a source that sends forms, JSON becomes the form that its sender makes of it."""
    if source.body is BodyForm.JSON:
        return content
    try:
        event = json.loads(content)
    except (ValueError, RecursionError):
        return content
    return mapping_tests.body_of(source, event) if isinstance(event, dict) else content


def print_explanation(screen: Screen, explained: Explained) -> None:
    """Print the answer first, then the reasons."""
    screen.heading(summary(explained))
    screen.say()
    screen.facts(event_read(explained))
    printing.print_elements(screen, route.preview(explained.prepared)["elements"])
    for draft in (*explained.drafts, *explained.following):
        screen.say()
        _print_goal(screen, explained, draft)


def _print_goal(screen: Screen, explained: Explained, draft: GoalDraft) -> None:
    goal = as_sent(explained, draft)
    kind, is_goal = draft.planned.kind, draft.planned.kind == "goal"
    screen.heading(f"Goal {draft.planned.name}" if is_goal else kind.capitalize())
    request, metadata = goal["request"], draft.planned.metadata
    facts = [
        *([("Rule", trace.called(goal))] if "origin" in goal else []),
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
    body = {name: value for name, value in request.items() if value is not None}
    screen.line(f"    POST {url_without_password(explained.settings.datafast_api_url)}/{action_of(kind).route}")
    screen.line(f"    {json.dumps(body, ensure_ascii=False)}")
