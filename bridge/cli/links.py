"""`links`, `relearn` and `forget`: how keys (`cus_…`, `sub_…`) lead to visitors.

The bridge learns links from every event. With these commands, a person shows links, adds or removes one, has them
learned again from the stored events after an upgrade, or removes everything that is stored about a person.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click

from bridge import identity, route
from bridge.cli import parameters, printing, resources
from bridge.cli.catalogue import Section, command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, UsageError
from bridge.model import Key
from bridge.store.operator import changes, forgetting, threads
from bridge.text import count, listing
from bridge.workbench import linking, stored, why
from bridge.workbench.describe import as_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.settings import Settings
    from bridge.store.operator.forgetting import Person
    from bridge.workbench.linking import Forgetting


@click.group(
    cls=Section,
    default=None,
    examples=[
        ("links show cus_9s6XKzkNRiz8i3", "what belongs to it, and which visitor it leads to"),
        (
            "links add stripe customer cus_9s6XKzkNRiz8i3 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
            "bind this customer to that visitor",
        ),
        ("links forget cus_9s6XKzkNRiz8i3", "the customer no longer leads to a visitor"),
    ],
)
def links() -> None:
    """Show, add and forget the links from keys to visitors."""


@links.command(examples=[("links show sub_1Abc", "a subscription, its customer, its visitor")])
@click.argument("key", metavar="KEY")
def show(key: str) -> None:
    """Show what belongs to a key (or a visitor), and which visitor the key leads to.

    `python -m bridge why KEY` also shows its events and goals.
    """
    screen = current_screen()
    with resources.store() as store, store.read() as conn:
        named = threads.named(conn, key)
        thread = threads.linked_to_keys(conn, named) if named else threads.linked_to_visitor(conn, key.lower())
    if not thread.keys:
        raise BridgeError(f"No event has named {key!r} (or it was longer ago than 400 days).")
    screen.write_json(as_json(thread))
    printing.print_thread(screen, thread)


@links.command(
    examples=[
        (
            "links add stripe subscription sub_1Abc 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
            "goals that wait for this subscription's visitor are sent now",
        )
    ]
)
@click.argument("source", metavar="SOURCE")
@click.argument("kind", metavar="KIND")
@click.argument("key", metavar="KEY")
@click.argument("visitor", metavar="VISITOR")
def add(source: str, kind: str, key: str, visitor: str) -> None:
    """Bind KEY of SOURCE to VISITOR, and send the goals that wait for it.

    The answer says which goals are sent now, which are sent later, and which are not sent.

    KIND is customer, subscription, order, session, charge … as `links show` writes it. The link counts for live events
    only.
    """
    settings = resources.settings()
    owner = resources.source(resources.load_rules(), source)
    users = settings.bridge_match_user == "on"
    kind = kind.replace(" ", "_")  # `links show` writes spaces
    try:
        found, known = identity.binding(owner, kind, key, visitor, settings.bridge_visitor_id, users=users)
    except identity.BadBinding as error:
        raise UsageError(f"{error}.") from None

    def bind(conn: Connection) -> linking.Binding:
        binding = linking.bind(conn, found, known, settings, resources.environ())
        changes.record(conn, "bind", found.text, binding.done)
        return binding

    with resources.store() as store:
        binding = store.run(bind)
    states = {detail.goal.label: detail.goal.state for detail in binding.goals}
    current_screen().answer(
        {"ok": True, "key": found.text, "visitor": known, "goals": states}, binding.done, *binding.sentences()
    )


@links.command(
    examples=[("links forget stripe:live:cus_1", "a key by its full name, because several keys have this id")]
)
@click.argument("key", metavar="KEY")
@parameters.YES
def forget(key: str, yes: bool) -> None:
    """Forget a key: it leads to no visitor until an event names it again.

    If the key names a person (a user, an e-mail address), this is final: it never leads to a visitor again, even if an
    event names it. The links of purchases stay. First, the command lists the goals that would wait again, and those
    that were sent and stay as they are, with DataFast's ids. To remove all that is stored about a person, use
    `python -m bridge forget`.
    """
    screen, settings = current_screen(), resources.settings()
    with resources.store() as store:
        with store.read() as conn:
            plan = linking.plan_cut(conn, _key_named(conn, key))
        for heading, lines in plan.sentences():
            screen.say(heading)
            for line in lines:
                screen.say(line, indent=2)
        if plan.again or plan.kept:
            parameters.confirm(f"Forget {plan.key.text}?", yes=yes)

        def forget_key(conn: Connection) -> None:
            linking.cut(conn, plan, settings)
            changes.record(conn, "forget key", plan.key.text, plan.done)

        store.run(forget_key)
    sent = {goal.label: goal.datafast_event_id for goal in plan.kept}
    answer = {"ok": True, "key": plan.key.text, "goals": [goal.label for goal in plan.again], "sent": sent}
    screen.answer(answer, plan.done)


def _key_named(conn: Connection, text: str) -> Key:
    """The key of this name: a person's key first, because it is shared, the live one; UsageError if several remain."""
    named = why.keys_named(conn, text)
    if not named:
        raise BridgeError(f"No event has named {text!r}.")
    keys = [Key(line.key, line.kind, line.ref) for line in named]
    people = [key for key in keys if key.is_person]
    live = [key for key in people if ":test:" not in key.text.removesuffix(key.id)] or people
    keys = live if len(live) == 1 else keys
    if len(keys) > 1:
        raise UsageError(f"{text!r} names {listing([key.text for key in keys])}. Name one of them.")
    return keys[0]


@command(examples=[("relearn", "after an upgrade that finds more links in events; safe at any time")])
def relearn() -> None:
    """Learn links again from the stored events.

    Only events whose bodies are still stored (BRIDGE_RETENTION_DAYS) are read. No goal is made or sent twice. Goals
    whose visitor is found this way are sent.
    """
    screen = current_screen()
    settings: Settings = resources.settings()
    rule_set = resources.load_rules()
    with resources.store() as store:
        router = route.Router(store, settings, new_token=lambda: secrets.token_hex(16))
        total, (read, last) = 0, router.relearn(rule_set)
        with screen.progress("Learning from stored events") as step:
            while read:
                step(total := total + read)
                read, last = router.relearn(rule_set, last)
        sentence = f"Links were learned again from {count(total, 'stored event')}."
        store.run(lambda conn: changes.record(conn, "relearn", "", sentence))
    screen.answer({"ok": True, "events": total}, f"Learned from {count(total, 'stored event')}.")


# --------------------------------------------------------------------------------------------------------- forget


@command(
    "forget",
    examples=[
        ("forget --customer cus_9s6XKzkNRiz8i3", "shows what is stored about this customer, asks, and removes it"),
        ("forget --email ann@example.com --yes", "everything that is linked to this address, without asking"),
    ],
)
@click.option("--visitor", metavar="ID", help="A DataFast visitor id.")
@click.option("--customer", metavar="KEY", help="The provider's customer (cus_1), or any other key of this person.")
@click.option("--user", metavar="ID", help="Your app's own id of a user.")
@click.option("--email", metavar="ADDRESS", help="An e-mail address that stored events contain.")
@parameters.YES
def forget_person(visitor: str | None, customer: str | None, user: str | None, email: str | None, yes: bool) -> None:
    """Remove everything that is stored about a person: bodies, goals' contents, links.

    The command follows the links from what you name to everything that belongs together, shows how much that is, and
    asks. All that remains is that an event of this type arrived and that a goal of this name was sent. Goals that
    have not been sent yet are never sent. Other people's events that only mention the person lose their bodies, but
    keep their goals and links. At the end the command says what is left for you to do at DataFast and at the provider.
    """
    screen = current_screen()
    visitor, customer, user, email = ((given or "").strip() for given in (visitor, customer, user, email))
    typed = [given for given in (visitor, customer, user, email) if given]
    if not typed:
        raise UsageError("Name the person with --visitor, --customer, --user or --email.")
    with resources.store() as store:
        with store.read() as conn:
            keys = linking.keys_of(conn, customer=customer, user=user, email=email)
            holds = linking.mention_matcher(conn, keys, typed)
        preparer = stored.preparer(store, resources.load_rules(), resources.settings_or_defaults())
        with screen.progress("Looking through stored events") as step:
            seeds, _ = forgetting.search(store, holds, step=step)
        wanted = linking.WantedPerson(keys, visitor.lower() or None, typed)
        plan = linking.plan_forgetting(store, preparer, wanted, seeds, None)
        person = plan.person
        if mentioned := linking.about_mentions(person):
            screen.say(mentioned)
        if not (person.keys or person.events or person.goals or person.mentions):
            now = " that could be removed now" if person.unrouted else ""
            raise BridgeError(f"Nothing{now} is stored about {listing(typed)}.")
        parameters.confirm(f"Remove {linking.stored_amounts(person)}?", yes=yes)
        sentence = store.run(lambda conn: _remove(conn, plan))
        scrubbed = forgetting.scrub(store)
    _print_forgotten(screen, person, sentence, scrubbed=scrubbed)


def _remove(conn: Connection, plan: Forgetting) -> str:
    sentence = linking.forget(conn, plan)
    changes.record(conn, "forget", "", sentence)
    return sentence


def _print_forgotten(screen: Screen, person: Person, sentence: str, *, scrubbed: bool) -> None:
    visitors = sorted(person.visitors)
    names = ("events", "goals", "keys", "mentions", "unrouted")
    counts = {name: len(getattr(person, name)) for name in names}
    screen.write_json({"ok": True, **counts, "visitors": visitors, "scrubbed": scrubbed})
    screen.say(sentence)
    if not scrubbed:
        screen.say(forgetting.NOT_SCRUBBED)
    screen.say(linking.left_to_do(person))
    for visitor in visitors:
        screen.line(f"    {visitor}")
