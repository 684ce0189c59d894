"""`sources`: what to enter at each provider: the URL, the secret, the event types, and where to click.

The event types are exactly those that the rules name, and those that only teach which visitor a later event belongs
to. A secret is never shown, only whether it is set. The command uses no network, and the database only for first
messages (`bridge.cli.setup_steps`).
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import click

from bridge.cli import resources, setup_steps
from bridge.cli.catalogue import command
from bridge.cli.formatting import count, listing
from bridge.cli.screen import of_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.cli.screen import Screen
    from bridge.model import Source
    from bridge.rules import RuleSet

PLACEHOLDER: Final = "https://YOUR-HOST"


@dataclass(frozen=True)
class Setup:
    """What one source needs at its provider.

    goal_events: those that enabled rules match. link_events: those that only tell whose a later event is.
    """

    source: str
    provider: str
    url: str
    secret: str
    secret_is_set: bool
    secrets: int
    secret_names: tuple[str, ...]
    goal_events: tuple[str, ...]
    link_events: tuple[str, ...]
    secret_hint: str | None
    where: str | None
    subscribe: tuple[str, ...]
    cannot_be_set_up: str | None
    set_up: tuple[tuple[str, str], ...]
    get_answers: str
    command: tuple[str, ...]


@command(
    examples=[
        ("sources --base-url https://hooks.example.com", "every URL, ready to paste"),
        ("sources stripe", "one source only"),
    ]
)
@click.argument("source", required=False)
@click.option("--base-url", metavar="URL", help="The bridge's public address: https://…")
def sources(source: str | None, base_url: str | None) -> None:
    """Show per source its URL, whether its secret is set, and the event types to choose.

    The event types are those that the rules of the mapping file name, and those that tie together the ids in later
    events (a charge, its payment, its customer), so that their visitor is found. Select all of these at the provider,
    and no others: others only cost you requests, and without one of these a refund or a dispute may find no visitor.
    """
    screen = of_context()
    given = resources.environ()
    rule_set = resources.load_rules(given, resources.mappings_folder(given))
    if source is not None:
        resources.demand_source(rule_set, source)
    base = (base_url or _heroku(given) or PLACEHOLDER).rstrip("/")
    names = [source] if source else sorted(rule_set.sources)
    setups = [setup(rule_set, name, base) for name in names]
    if screen.as_json:
        screen.write_json([asdict(one) for one in setups])
        return
    for one in setups:
        _print(screen, one)
    setup_steps.print_first_messages(screen, (rule_set.sources[name] for name in names))
    if base == PLACEHOLDER:
        screen.say("Add --base-url https://… to see the URLs ready to paste.")


def _heroku(given: Mapping[str, str]) -> str | None:
    """The app's own address, where Heroku's dyno metadata tell it."""
    domain = given.get("HEROKU_APP_DEFAULT_DOMAIN_NAME")
    return f"https://{domain}" if domain else None


def setup(rule_set: RuleSet, name: str, base: str) -> Setup:
    """What one source needs, from its compiled mapping file."""
    source = rule_set.sources[name]
    url = f"{base}/webhooks/{name}"
    for_goals = _in_order(event for rule in rule_set.rules[name] if rule.enabled for event in rule.events)
    for_links = tuple(event for event in _links(source) if event not in for_goals)
    return Setup(
        source=name,
        provider=source.provider,
        url=url,
        secret=_secret(source),
        secret_is_set=bool(source.secrets),
        secrets=len(source.secrets),
        secret_names=source.secret_names,
        goal_events=for_goals,
        link_events=for_links,
        secret_hint=_said(source.provider, "secret_hint"),
        where=_said(source.provider, "where"),
        subscribe=setup_steps.gumroad_calls(source, url, for_goals) if source.provider == "gumroad" else (),
        cannot_be_set_up=_said(source.provider, "cannot_be_set_up"),
        set_up=tuple(setup_steps.steps(source)),
        get_answers=setup_steps.get_answers(source),
        command=_commands(source, url, (*for_goals, *for_links)),
    )


def _links(source: Source) -> tuple[str, ...]:
    """Event types worth having for their links alone; a link that any event may carry needs none of its own."""
    from bridge import identity
    from bridge.sources import event_names

    known = event_names(source.provider)
    if known:
        return identity.tying(source, known)
    return _in_order(event for link in source.links for event in link.events if event != "*")


def _in_order(events: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(events))


def _secret(source: Source) -> str:
    if source.secrets:
        told = f"set ({listing(list(source.secret_names), 'in the file')}): {count(len(source.secrets), 'secret')} read"
        return "; ".join([told, *source.secret_problems])
    return source.secret_fault or f"missing: set {listing(list(source.secret_names))}"


def _said(provider: str, what: str) -> str | None:
    """What the preset says for people: `where` to click, `secret_hint` what the secret looks like."""
    from bridge import sources as sources_

    said = sources_.presets().get(provider, {}).get(what)
    return said if isinstance(said, str) else None


def _commands(source: Source, url: str, events: tuple[str, ...]) -> tuple[str, ...]:
    if source.provider == "stripe":
        exact = [event for event in events if "*" not in event] or ["*"]
        chosen = " ".join(f"-d {shlex.quote(f'enabled_events[]={event}')}" for event in exact)
        local = f"localhost:8000/webhooks/{source.name}"
        return (
            f"stripe webhook_endpoints create --url {shlex.quote(url)} {chosen}",
            f"stripe listen --events {','.join(exact)} --forward-to {local}",
        )
    return (f"curl -i {shlex.quote(url)}",)


def _print(screen: Screen, one: Setup) -> None:
    screen.heading(f"{one.source} ({one.provider})")
    facts = [("URL", one.url), ("Secret", one.secret)]
    if one.secret_hint and not one.secret_is_set:
        facts.append(("", f"it is {one.secret_hint}"))
    if one.where:
        facts.append(("Where", one.where))
    if one.cannot_be_set_up:
        facts.append(("Warning", f"it cannot be set up: {one.cannot_be_set_up}"))
    screen.facts([*facts, *one.set_up])
    _print_goal_events(screen, one)
    _print_events(screen, "Events for finding the visitor of later ones", one.link_events)
    screen.say("Or by command:" if one.provider == "stripe" else f"Is it there? (answers {one.get_answers})", indent=2)
    for line in one.command:
        screen.line(f"    {line}")
    screen.say()


def _print_goal_events(screen: Screen, one: Setup) -> None:
    if not one.subscribe:
        _print_events(screen, "Events for goals", one.goal_events)
        return
    others = tuple(event for event in one.goal_events if event != setup_steps.GUMROAD_PING)
    _print_events(screen, "Events for goals that the Ping endpoint receives", (setup_steps.GUMROAD_PING,))
    _print_events(screen, "Events for goals that it does not receive", others)
    screen.say("One command for each of those; the OAuth token needs the scope view_sales:", indent=2)
    for line in one.subscribe:
        screen.line(f"    {line}")


def _print_events(screen: Screen, label: str, events: tuple[str, ...]) -> None:
    if events:
        screen.say(f"{label}:", indent=2)
        for event in events:
            screen.line(f"    {event if event != '*' else '* (all)'}")
