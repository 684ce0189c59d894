"""`sources`: what to enter at each provider: the URL, the secret, the event types, and where to click.

The event types are exactly those that the rules name, and those that only teach which visitor a later event belongs
to. A secret is never shown, only whether it is set. The command uses no network, and the database only for a first
message (Notion's `verification_token`): a secret that nobody has authenticated, which is shown on a terminal only, and
only while its source has no secret.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import click

from bridge.cli import resources
from bridge.cli.catalogue import command
from bridge.cli.screen import of_context
from bridge.globs import compile_glob
from bridge.model import ReplyKind
from bridge.presets import event_names, stated
from bridge.text import ago, count, listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bridge.cli.screen import Screen
    from bridge.model import Handshake, Source
    from bridge.rules import RuleSet
    from bridge.store.inbox.first_messages import FirstMessage

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
    """Show the URL of each source, whether its secret is set, and the event types to choose.

    The event types are those that the rules of the mapping file name, and those that tie together the ids in later
    events (a charge, its payment, its customer), so that their visitor is found. Select all of these at the provider,
    and no others: others only cost requests, and without one of these a refund or a dispute may find no visitor.
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
    _print_first_messages(screen, (rule_set.sources[name] for name in names))
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
        secret_hint=stated(source.provider, "secret_hint"),
        where=stated(source.provider, "where"),
        subscribe=_calls(source, url, for_goals),
        cannot_be_set_up=stated(source.provider, "cannot_be_set_up"),
        set_up=tuple(_steps(source)),
        get_answers=_get_answers(source),
        command=_commands(source, url, (*for_goals, *for_links)),
    )


def _links(source: Source) -> tuple[str, ...]:
    """Event types worth having for their links alone; a link that any event may carry needs none of its own."""
    from bridge import identity

    return identity.tying(source, event_names(source.provider)) or _in_order(
        event for link in source.links for event in link.events if event != "*"
    )


def _in_order(events: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(events))


def _secret(source: Source) -> str:
    if source.secrets:
        state = (
            f"set ({listing(list(source.secret_names), 'in the file')}): {count(len(source.secrets), 'secret')} read"
        )
        return "; ".join([state, *source.secret_problems])
    return source.secret_fault or f"missing: set {listing(list(source.secret_names))}"


def _commands(source: Source, url: str, events: tuple[str, ...]) -> tuple[str, ...]:
    """Lines that set the webhook up, as the preset has them; else one that asks whether the URL is there."""
    spec = stated(source.provider, "commands")
    if spec is None:
        return (f"curl -i {shlex.quote(url)}",)
    exact = [event for event in events if "*" not in event] or ["*"]
    arguments = " ".join(shlex.join(spec["argument"].format(event=event).split()) for event in exact)
    values = {"url": shlex.quote(url), "source": source.name, "events": ",".join(exact), "arguments": arguments}
    return tuple(line.format(**values) for line in spec["lines"])


def _calls(source: Source, url: str, events: Iterable[str]) -> tuple[str, ...]:
    """The call for each event that the provider's page cannot choose, for a shell that knows the secrets in it."""
    api = stated(source.provider, "subscribe")
    if api is None:
        return ()
    secret = f"${source.secret_names[0]}" if source.secret_names else "YOUR-SECRET"
    globs = [compile_glob(event) for event in events]
    wanted = [name for name in api["events"] if any(glob.matches(name) for glob in globs)]
    return tuple(api["call"].format(event=name, url=url, secret=secret) for name in wanted)


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
    by_command = stated(one.provider, "commands") is not None
    screen.say("Or by command:" if by_command else f"Is it there? (answers {one.get_answers})", indent=2)
    for line in one.command:
        screen.line(f"    {line}")
    screen.say()


def _print_goal_events(screen: Screen, one: Setup) -> None:
    if not one.subscribe:
        _print_events(screen, "Events for goals", one.goal_events)
        return
    api = stated(one.provider, "subscribe")
    others = tuple(event for event in one.goal_events if event != api["receives"])
    _print_events(screen, f"Events for goals that {api['endpoint']} receives", (api["receives"],))
    _print_events(screen, "Events for goals that it does not receive", others)
    screen.say(f"One command for each of those; {api['needs']}:", indent=2)
    for line in one.subscribe:
        screen.line(f"    {line}")


def _print_events(screen: Screen, label: str, events: tuple[str, ...]) -> None:
    if events:
        screen.say(f"{label}:", indent=2)
        for event in events:
            screen.line(f"    {event if event != '*' else '* (all)'}")


# ------------------------------------------------------------------------------------- the set-up, and what came first

_LOOKING: Final = "`python -m bridge sources {}` on a terminal"


def _steps(source: Source) -> Iterator[tuple[str, str]]:
    """What to know and to do beside the URL and the secret: pairs of a label and a sentence."""
    for one in source.handshakes:
        if one.does is ReplyKind.KEEP:
            yield "Secret from", _first_message(source)
        elif one.variable is not None:
            yield "Verify token", _verify_token(one)
    answered = [one for one in source.handshakes if one.does is not ReplyKind.KEEP]
    if answered:
        needs = any(one.signed or one.does is ReplyKind.HMAC for one in answered) and not source.secrets
        yield "Set-up", _ANSWERED + (_LATER if needs else "")


_ANSWERED: Final = "the bridge answers the request with which the provider checks the URL"
_LATER: Final = ", once the secret is set"


def _first_message(source: Source) -> str:
    provider, command = source.provider.capitalize(), _LOOKING.format(source.name)
    if not source.secrets:
        return f"{provider}'s first message: have {provider} send it to the URL, then run {command} within the hour"
    variables = listing(list(source.secret_names), "the secret in the file")
    return (
        f"{provider}'s first message, which is refused while a secret is set. To read it, unset {variables}, restart"
        f" the bridge, have {provider} send it again, and run {command} within the hour"
    )


def _verify_token(one: Handshake) -> str:
    if one.expected is not None:
        return f"set ({one.variable}); enter the same string at the provider"
    return f"missing: set {one.variable} to a string of your own, and enter the same at the provider"


def _get_answers(source: Source) -> str:
    """The answer to a plain GET of the URL."""
    greets = any(one.does is ReplyKind.EMPTY and "GET" in one.methods for one in source.handshakes)
    return "200" if greets else "405 and a sentence"


def _keeps_first_message(source: Source) -> bool:
    """Whether there may be a first message to show: only as long as it can serve for anything."""
    return not source.secrets and any(one.does is ReplyKind.KEEP for one in source.handshakes)


def _print_first_messages(screen: Screen, sources: Iterable[Source]) -> None:
    """On a terminal, from the database; elsewhere nothing, not even how many there are."""
    waiting = [source for source in sources if _keeps_first_message(source)]
    if not waiting or not screen.terminal:
        return
    with resources.maybe_store() as (store, error):
        if store is None:
            screen.say(f"First messages cannot be shown: {error}")
            return
        for source in waiting:
            with store.read() as conn:
                from bridge.store.inbox import first_messages

                found = first_messages.of_source(conn, source.name)
            _print_messages(screen, source, found)


def _print_messages(screen: Screen, source: Source, found: list[FirstMessage]) -> None:
    provider = source.provider.capitalize()
    screen.heading(f"First messages to {source.name}")
    if not found:
        screen.say(f"None within the last hour. Have {provider} send it, then run this again.", indent=2)
    for one in found:
        screen.line(f"    {one.token}")
        screen.say(f"came {ago(one.at_ms, resources.now_ms())} from {one.sender or 'an unknown address'}", indent=6)
    if found:
        screen.line(f"  Anybody can send one: compare it with {provider}'s page before you set it as the secret.")
    screen.say()
