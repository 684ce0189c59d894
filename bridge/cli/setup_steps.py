"""How a source's webhook is set up at its provider: which hand-shakes are answered, what they need, what came first.

A first message (Notion's `verification_token`) is a secret that nobody has authenticated. It is shown on a terminal
only, and only while its source has no secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.cli import resources
from bridge.cli.formatting import ago, listing
from bridge.globs import compile_glob
from bridge.model import ReplyKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bridge.cli.screen import Screen
    from bridge.model import Handshake, Source
    from bridge.store.inbox.first_messages import FirstMessage

LOOKING: Final = "`python -m bridge sources {}` on a terminal"


def steps(source: Source) -> Iterator[tuple[str, str]]:
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
    provider, command = source.provider.capitalize(), LOOKING.format(source.name)
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


def get_answers(source: Source) -> str:
    """What somebody hears who asks for the URL without more."""
    greets = any(one.does is ReplyKind.EMPTY and "GET" in one.methods for one in source.handshakes)
    return "200" if greets else "405 and a sentence"


def keeps_first_message(source: Source) -> bool:
    """Whether there may be a first message to show: only as long as it can serve for anything."""
    return not source.secrets and any(one.does is ReplyKind.KEEP for one in source.handshakes)


def print_first_messages(screen: Screen, sources: Iterable[Source]) -> None:
    """On a terminal, from the database; elsewhere nothing, not even how many there are."""
    waiting = [source for source in sources if keeps_first_message(source)]
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
            _print(screen, source, found)


def _print(screen: Screen, source: Source, found: list[FirstMessage]) -> None:
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


# ---------------------------------------------------------------------------------------------------------- Gumroad

GUMROAD_PING: Final = "sale"
_GUMROAD_RESOURCES: Final = (
    "sale", "refund", "dispute", "dispute_won", "cancellation",
    "subscription_updated", "subscription_ended", "subscription_restarted",
)  # fmt: skip
_GUMROAD_CALL: Final = (
    'curl -X PUT https://api.gumroad.com/v2/resource_subscriptions -d "access_token=$GUMROAD_ACCESS_TOKEN"'
    ' -d resource_name={event} --data-urlencode "post_url={url}?token={secret}"'
)


def gumroad_calls(source: Source, url: str, events: Iterable[str]) -> tuple[str, ...]:
    """The API call for each event that the Ping endpoint does not send, for a shell that knows the two secrets.

    Gumroad's settings offer an endpoint for sales only; each other event takes one call with the seller's OAuth token.
    """
    secret = f"${source.secret_names[0]}" if source.secret_names else "YOUR-SECRET"
    globs = [compile_glob(event) for event in events]
    wanted = [name for name in _GUMROAD_RESOURCES if name != GUMROAD_PING and any(glob.matches(name) for glob in globs)]
    return tuple(_GUMROAD_CALL.format(event=name, url=url, secret=secret) for name in wanted)
