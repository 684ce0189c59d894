"""How to set up a provider: the URL, the secret, the event types, where to click, and its first message.

`sources` prints this and the console shows it. The event types are exactly those that the rules name, plus those that
only tell which visitor a later event belongs to. Nothing here contains a secret, only whether it is set.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from bridge import identity
from bridge.globs import compile_glob
from bridge.model import Handshake, ReplyKind, Source
from bridge.presets import event_names, stated
from bridge.rules.reading.secrets import OLD
from bridge.text import count, listing

if TYPE_CHECKING:
    from bridge.rules import RuleSet

PLACEHOLDER: Final = "https://YOUR-HOST"
VISITOR_EVENTS: Final = "Events that help to find the visitor of later events"
_RECIPES: Final = files("bridge").joinpath("cli/starter/recipes")  # in a clone: a link to docs/recipes
_HAND_OVER: Final = re.compile(r"^## Hand over the visitor\n(.*?)(?=^## )", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Setup:
    """What one source needs at its provider.

    goal_events: the types that enabled rules match. link_events: those that only tell to whom later events belong.
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


def host_address(given: Mapping[str, str]) -> str | None:
    """The app's own address, if Heroku's dyno metadata give it; otherwise None."""
    domain = given.get("HEROKU_APP_DEFAULT_DOMAIN_NAME")
    return f"https://{domain}" if domain else None


def setup(rule_set: RuleSet, name: str, base: str) -> Setup:
    """What one source needs, according to its compiled mapping file."""
    source = rule_set.sources[name]
    url = f"{base}/webhooks/{name}"
    for_goals = _in_order(event for rule in rule_set.rules[name] if rule.enabled for event in rule.events)
    for_links = tuple(event for event in _link_events(source) if event not in for_goals)
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
        subscribe=_subscribe_calls(source, url, for_goals),
        cannot_be_set_up=stated(source.provider, "cannot_be_set_up"),
        set_up=tuple(_steps(source)),
        get_answers=_get_answers(source),
        command=_commands(source, url, (*for_goals, *for_links)),
    )


@dataclass(frozen=True)
class SecretVariable:
    """One variable for a source's secret. place: first, second, … or old. state: set, no secret, missing or not set.

    name None: the secret is written in the mapping file itself.
    """

    place: str
    name: str | None
    state: str


def secret_variables(source: Source, environ: Mapping[str, str]) -> tuple[SecretVariable, ...]:
    """The variables for a source's secrets, each followed by the one for its previous secret; never a value."""
    known = source.secret_names
    names = [name for name in known if not (name.endswith(OLD) and name.removesuffix(OLD) in known)]
    if not names:
        return (SecretVariable("first", None, "set" if source.secrets else "missing"),)
    return tuple(
        variable
        for place, name in zip(_PLACES, names, strict=False)
        for variable in (
            SecretVariable(place, name, _state(source, environ, name, "missing")),
            SecretVariable("old", name + OLD, _state(source, environ, name + OLD, "not set")),
        )
    )


_PLACES: Final = ("first", "second", "third", "fourth", "fifth")


def _state(source: Source, environ: Mapping[str, str], name: str, unset: str) -> str:
    if not environ.get(name, "").strip():
        return unset
    judged = [word for problem in source.secret_problems for word in problem.split()]
    return "set" if source.secrets and name not in judged else "no secret"


# ------------------------------------------------------------------------------------------------------------ recipes


def recipe(source: Source) -> str | None:
    """The name of this sender's recipe, a page of docs/recipes; None if there is none."""
    return next((name for name in (source.name, source.provider) if recipe_text(f"{name}.md")), None)


def hand_over_section(name: str) -> str | None:
    """The section of a recipe about handing over the visitor, in Markdown."""
    match = _HAND_OVER.search(recipe_text(f"{name}.md"))
    return None if match is None else match[1]


def recipe_text(name: str) -> str:
    """The text of a recipe file; empty if there is none by this name."""
    path = _RECIPES.joinpath(name)
    return path.read_text("utf-8") if path.is_file() else ""


# ------------------------------------------------------------------------------------------------- events and commands


def _link_events(source: Source) -> tuple[str, ...]:
    """Event types needed only for their links. A link that any event may carry needs no type of its own."""
    return identity.linking_types(source, event_names(source.provider)) or _in_order(
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
    return source.secret_error or f"missing: set {listing(list(source.secret_names))}"


def _commands(source: Source, url: str, events: tuple[str, ...]) -> tuple[str, ...]:
    """The preset's commands that set up the webhook; without any, one that checks whether the URL answers."""
    spec = stated(source.provider, "commands")
    if spec is None:
        return (f"curl -i {shlex.quote(url)}",)
    exact = [event for event in events if "*" not in event] or ["*"]
    arguments = " ".join(shlex.join(spec["argument"].format(event=event).split()) for event in exact)
    values = {"url": shlex.quote(url), "source": source.name, "events": ",".join(exact), "arguments": arguments}
    return tuple(line.format(**values) for line in spec["lines"])


def _subscribe_calls(source: Source, url: str, events: Iterable[str]) -> tuple[str, ...]:
    """The call for each event that cannot be chosen on the provider's page, for a shell that has its secrets set."""
    api = stated(source.provider, "subscribe")
    if api is None:
        return ()
    secret = f"${source.secret_names[0]}" if source.secret_names else "YOUR-SECRET"
    globs = [compile_glob(event) for event in events]
    chosen = [name for name in api["events"] if any(glob.matches(name) for glob in globs)]
    return tuple(api["call"].format(event=name, url=url, secret=secret) for name in chosen)


def goal_lists(needs: Setup) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Labelled lists of the events of its rules, first those that its endpoint receives by itself."""
    if not needs.subscribe:
        yield "Events for goals", needs.goal_events
        return
    api = stated(needs.provider, "subscribe")
    yield f"Events for goals that {api['endpoint']} receives", (api["receives"],)
    others = tuple(event for event in needs.goal_events if event != api["receives"])
    yield "Events for goals that it does not receive", others


def shown_event(event: str) -> str:
    """An event as a person selects it."""
    return "* (all)" if event == "*" else event


# ------------------------------------------------------------------------------------- the set-up, and what came first

_SHOW_COMMAND: Final = "`python -m bridge sources {}` on a terminal"


def _steps(source: Source) -> Iterator[tuple[str, str]]:
    """What to know and do besides the URL and the secret, as pairs of a label and a sentence."""
    for handshake in source.handshakes:
        if handshake.does is ReplyKind.KEEP:
            yield "Secret from", _first_message(source)
        elif handshake.variable is not None:
            yield "Verify token", _verify_token(handshake)
    checks = [handshake for handshake in source.handshakes if handshake.does is not ReplyKind.KEEP]
    if checks:
        needs_secret = any(check.signed or check.does is ReplyKind.HMAC for check in checks)
        yield "Set-up", _CHECK_ANSWERED + (_ONCE_SET if needs_secret and not source.secrets else "")


_CHECK_ANSWERED: Final = "the bridge answers the request with which the provider checks the URL"
_ONCE_SET: Final = ", once the secret is set"


def _first_message(source: Source) -> str:
    provider, command = source.provider.capitalize(), _SHOW_COMMAND.format(source.name)
    if not source.secrets:
        return f"{provider}'s first message: have {provider} send it to the URL, then run {command} within the hour"
    variables = listing(list(source.secret_names), "the secret in the file")
    return (
        f"{provider}'s first message, which is refused while a secret is set. To read it, unset {variables}, restart"
        f" the bridge, have {provider} send it again, and run {command} within the hour"
    )


def _verify_token(handshake: Handshake) -> str:
    if handshake.expected is not None:
        return f"set ({handshake.variable}); enter the same string at the provider"
    return f"missing: set {handshake.variable} to a string of your own, and enter the same at the provider"


def _get_answers(source: Source) -> str:
    """The answer to a plain GET of the URL."""
    greets = any(handshake.does is ReplyKind.EMPTY and "GET" in handshake.methods for handshake in source.handshakes)
    return "200" if greets else "405 and a sentence"


def keeps_first_message(source: Source) -> bool:
    """Whether there may be a first message to show: only while it is of use."""
    return not source.secrets and any(handshake.does is ReplyKind.KEEP for handshake in source.handshakes)
