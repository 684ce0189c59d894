"""`sources`: what to enter at each provider: the URL, the secret, the event types, and where to click.

The event types are exactly those that the rules name, and those that only tell which visitor a later event belongs
to. A secret is never shown, only whether it is set. The command uses no network, and the database only for a first
message (Notion's `verification_token`): nobody has authenticated this secret, so it is shown only on a terminal, and
only while its source has no secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bridge.cli import parameters, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.presets import stated
from bridge.store.inbox import first_messages
from bridge.text import ago
from bridge.workbench import setting_up

if TYPE_CHECKING:
    from bridge.model import Source
    from bridge.store.inbox.first_messages import FirstMessage


@command(
    examples=[
        ("sources --base-url https://hooks.example.com", "every URL, ready to paste"),
        ("sources stripe", "one source only"),
    ]
)
@click.argument("source", required=False)
@parameters.BASE_URL
def sources(source: str | None, base_url: str | None) -> None:
    """Show the URL of each source, whether its secret is set, and the event types to choose.

    The event types are those that the rules of the mapping file name, and those that tie together the ids in later
    events (a charge, its payment, its customer), so that their visitor is found. Select exactly these at the provider:
    any other event only costs requests, and without one of these a refund or a dispute may not find its visitor.
    """
    screen = current_screen()
    rule_set = resources.load_rules()
    if source is not None:
        resources.source(rule_set, source)
    base = (base_url or setting_up.host_address(resources.environ()) or setting_up.PLACEHOLDER).rstrip("/")
    names = [source] if source else sorted(rule_set.sources)
    setups = [setting_up.setup(rule_set, name, base) for name in names]
    screen.write_json([asdict(setup) for setup in setups])
    for setup in setups:
        _print(screen, setup)
    _print_first_messages(screen, (rule_set.sources[name] for name in names))
    if base == setting_up.PLACEHOLDER:
        screen.say("Add --base-url https://… to see the URLs ready to paste.")


def _print(screen: Screen, setup: setting_up.Setup) -> None:
    screen.heading(f"{setup.source} ({setup.provider})")
    facts = [("URL", setup.url), ("Secret", setup.secret)]
    if setup.secret_hint and not setup.secret_is_set:
        facts.append(("", f"it is {setup.secret_hint}"))
    if setup.where:
        facts.append(("Where", setup.where))
    if setup.cannot_be_set_up:
        facts.append(("Warning", f"it cannot be set up: {setup.cannot_be_set_up}"))
    screen.facts([*facts, *setup.set_up])
    _print_goal_events(screen, setup)
    _print_events(screen, setting_up.VISITOR_EVENTS, setup.link_events)
    by_command = stated(setup.provider, "commands") is not None
    screen.say("Or by command:" if by_command else f"Is it there? (answers {setup.get_answers})", indent=2)
    for line in setup.command:
        screen.line(f"    {line}")
    screen.say()


def _print_goal_events(screen: Screen, setup: setting_up.Setup) -> None:
    for label, events in setting_up.goal_lists(setup):
        _print_events(screen, label, events)
    if setup.subscribe:
        api = stated(setup.provider, "subscribe")
        screen.say(f"One command for each of those; {api['needs']}:", indent=2)
        for line in setup.subscribe:
            screen.line(f"    {line}")


def _print_events(screen: Screen, label: str, events: tuple[str, ...]) -> None:
    if events:
        screen.say(f"{label}:", indent=2)
        for event in events:
            screen.line(f"    {setting_up.shown_event(event)}")


def _print_first_messages(screen: Screen, sources: Iterable[Source]) -> None:
    """Print them on a terminal, from the database; elsewhere nothing, not even how many there are."""
    waiting = [source for source in sources if setting_up.keeps_first_message(source)]
    if not waiting or not screen.terminal:
        return
    with resources.maybe_store() as (store, error):
        if store is None:
            screen.say(f"First messages cannot be shown: {error}")
            return
        for source in waiting:
            with store.read() as conn:
                found = first_messages.messages_of(conn, source.name)
            _print_messages(screen, source, found)


def _print_messages(screen: Screen, source: Source, found: list[FirstMessage]) -> None:
    provider = source.provider.capitalize()
    screen.heading(f"First messages to {source.name}")
    if not found:
        screen.say(f"None within the last hour. Have {provider} send it, then run this again.", indent=2)
    for message in found:
        screen.line(f"    {message.token}")
        screen.say(
            f"came {ago(message.at_ms, resources.now_ms())} from {message.sender or 'an unknown address'}", indent=6
        )
    if found:
        screen.line(f"  Anybody can send one: compare it with {provider}'s page before you set it as the secret.")
    screen.say()
