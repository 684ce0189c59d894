"""Sixty checkouts with the habits by which sites hand over their users' ids, and twenty traps: who finds whom?

`python tests/pipeline/people_corpus.py` writes `tests/fixtures/people_table.txt` anew. The habits and their shares were
counted in public code (Stripe's metadata, `client_reference_id`, Lemon Squeezy's and Paddle's custom data, …). Each
checkout names no visitor; its user signed up elsewhere with one. A trap's purchase must find nobody. No mapping file
has a line on links.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from identity_kit import MINUTE, Rig  # noqa: E402

from bridge import store as bridge_store  # noqa: E402

TABLE = ROOT / "tests" / "fixtures" / "people_table.txt"
RULES = {
    "stripe": "checkout.session.completed",
    "lemonsqueezy": "order_created",
    "paddle": "transaction.completed",
    "polar": "order.paid",
    "creem": "checkout.completed",
    "dodo": "payment.succeeded",
    "revenuecat": "INITIAL_PURCHASE",
    "clerk": "user.created",
    "supabase-auth": "*",
    "supabase-db": "INSERT",
    "auth0-events": "user.created",
    "workos": "user.created",
    "loops": "*",
    "kit": "*",
    "gumroad": "sale",
    "tally": "FORM_RESPONSE",
}
FILES = {
    f"{name}.yaml": f'provider: {name}\ngoals:\n  - {{goal: made, event: "{event}", once_per: body.once}}\n'
    for name, event in RULES.items()
}
FILES["other.yaml"] = (
    "provider: stripe\nsecret: whsec_other\ndatafast: {name: other, api_key: df_other}\n"
    "goals:\n  - {goal: made, event: checkout.session.completed, once_per: body.once}\n"
)

SESSION, SUBSCRIPTION, CUSTOMER, INTENT = "session", "subscription", "customer", "payment_intent"


@dataclass
class Case:
    """Events of one person or trap, in the order of time: (source, body). asked: the `once` of those that count."""

    name: str
    events: list[tuple[str, dict]] = field(default_factory=list)
    visitor: str | None = None
    asked: list[str] = field(default_factory=list)


class Writer:
    """Makes events with ids of their own."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)

    def visitor(self) -> str:
        return f"00000000-0000-4000-8000-{next(self.numbers):012}"

    def once(self) -> str:
        return f"once-{next(self.numbers)}"

    # ------------------------------------------------------------------------------------------------- sign-ups

    def signs_up(self, tool: str, user: str, visitor: str | None, mail: str) -> tuple[str, dict]:
        given = {"datafast_visitor_id": visitor} if visitor else {}
        body = {
            "clerk": {
                "type": "user.created",
                "data": {"id": user, "unsafe_metadata": given, "email_addresses": [{"email_address": mail}]},
            },
            "supabase-auth": {"metadata": {"name": "x"}, "user": {"id": user, "email": mail, "user_metadata": given}},
            "supabase-db": {
                "type": "INSERT",
                "schema": "public",
                "table": "profiles",
                "record": {"id": user, "email": mail, **given},
            },
            "auth0-events": {
                "type": "user.created",
                "id": self.once(),
                "data": {"object": {"user_id": user, "email": mail, "user_metadata": given}},
            },
            "workos": {
                "event": "user.created",
                "id": self.once(),
                "data": {"id": user, "email": mail, "metadata": given},
            },
        }[tool]
        return tool, body | {"once": self.once()}

    def fills_in(self, visitor: str | None, mail: str, **fields: object) -> tuple[str, dict]:
        listed = [{"label": name, "value": value} for name, value in fields.items()]
        listed += [{"label": "Mail", "type": "INPUT_EMAIL", "value": mail}]
        listed += [{"label": "datafast_visitor_id", "value": visitor}] if visitor else []
        body = {"eventType": "FORM_RESPONSE", "eventId": self.once(), "data": {"fields": listed}}
        return "tally", body | {"once": self.once()}

    # ------------------------------------------------------------------------------------------------ purchases

    def stripe(
        self,
        *places: str,
        mail: str,
        reference: str | None = None,
        customer: str | None = None,
        live: bool = True,
        source: str = "stripe",
        **metadata: object,
    ) -> list[tuple[str, dict]]:
        """A checkout, whose metadata is on some of the objects."""
        number = next(self.numbers)
        customer = customer or f"cus_{number}"
        session = {
            "object": "checkout.session",
            "id": f"cs_{number}",
            "customer": customer,
            "customer_details": {"email": mail},
            "client_reference_id": reference,
            "metadata": metadata if SESSION in places else {},
            "subscription": f"sub_{number}" if SUBSCRIPTION in places else None,
            "payment_intent": f"pi_{number}" if INTENT in places else None,
        }
        things = [("checkout.session.completed", session)]
        if SUBSCRIPTION in places:
            thing = {"object": "subscription", "id": f"sub_{number}", "customer": customer, "metadata": metadata}
            things.append(("customer.subscription.created", thing))
        if INTENT in places:
            thing = {"object": "payment_intent", "id": f"pi_{number}", "customer": customer, "metadata": metadata}
            things.append(("payment_intent.succeeded", thing))
        if CUSTOMER in places:
            thing = {"object": "customer", "id": customer, "email": mail, "metadata": metadata}
            things.append(("customer.created", thing))
        return [(source, self._stripe(kind, thing, live=live)) for kind, thing in things]

    def _stripe(self, kind: str, thing: dict, *, live: bool) -> dict:
        event = {"id": f"evt_{next(self.numbers)}", "object": "event", "type": kind, "created": 1_789_990_000}
        return event | {"livemode": live, "data": {"object": thing}, "once": self.once()}

    def buys(self, tool: str, *, mail: str, **given: object) -> list[tuple[str, dict]]:
        """A purchase at another provider. given: what the site's own fields hold there."""
        number = next(self.numbers)
        customer = f"ctm_{number}"
        body = {
            "lemonsqueezy": {
                "meta": {"event_name": "order_created", "custom_data": given},
                "data": {"id": str(number), "attributes": {"customer_id": number, "user_email": mail}},
            },
            "paddle": {
                "event_type": "transaction.completed",
                "event_id": self.once(),
                "data": {"id": f"txn_{number}", "customer_id": customer, "custom_data": given},
            },
            "polar": {
                "type": "order.paid",
                "data": {
                    "id": f"ord-{number}",
                    "customer_id": customer,
                    "customer": {"email": mail, "external_id": given.pop("external_id", None)},
                    "metadata": given,
                },
            },
            "creem": {
                "eventType": "checkout.completed",
                "id": self.once(),
                "object": {"id": f"ch_{number}", "customer": {"id": customer, "email": mail}, "metadata": given},
            },
            "dodo": {
                "type": "payment.succeeded",
                "data": {
                    "payment_id": f"pay_{number}",
                    "customer": {"customer_id": customer, "email": mail},
                    "metadata": given,
                },
            },
            "revenuecat": {
                "event": {
                    "type": "INITIAL_PURCHASE",
                    "id": self.once(),
                    "environment": "PRODUCTION",
                    "app_user_id": given.get("user"),
                    "original_app_user_id": f"$RCAnonymousID:{number}",
                    "transaction_id": f"t{number}",
                }
            },
        }[tool]
        events = [(tool, body | {"once": self.once()})]
        if tool == "paddle":  # the address is in customer.* only
            event = {"event_type": "customer.created", "event_id": self.once(), "once": self.once()}
            events.append((tool, event | {"data": {"id": customer, "email": mail}}))
        return events


# ------------------------------------------------------------------------------------------------------ checkouts

_STRIPE = (
    # how often, the key in the metadata, the objects that carry it
    *[("userId", places) for places in ([SESSION], [SESSION, SUBSCRIPTION], [SUBSCRIPTION], [SESSION, INTENT])] * 4,
    *[("user_id", places) for places in ([SESSION], [SUBSCRIPTION], [SESSION, SUBSCRIPTION], [INTENT])],
    ("user_id", [SESSION]),
    ("clerkUserId", [SESSION]),
    ("clerkId", [SUBSCRIPTION]),
    ("supabase_user_id", [CUSTOMER]),
    ("supabaseUUID", [CUSTOMER]),
    ("firebaseUID", [CUSTOMER, SUBSCRIPTION]),
    ("memberId", [SESSION]),
    ("buyer_id", [SESSION]),
)
_AT = ("clerk", "supabase-auth", "auth0-events", "workos", "supabase-db")


def _user(at: str, number: int) -> str:
    if at.startswith("supabase"):
        return f"3c5c7b33-2f8c-4e85-8b9a-{number:012x}"
    return {"auth0-events": f"auth0|65a{number:021x}"}.get(at, f"user_2a{number:024x}")


def checkouts(writer: Writer) -> list[Case]:
    """Sixty of them."""
    cases: list[Case] = []

    def case(name: str, at: str, purchases, *, mails=None, user=None) -> None:
        number = len(cases) + 1
        visitor, mail = writer.visitor(), f"buyer{number}@mail{number}.example"
        user = user or _user(at, number)
        bought = purchases(user, mails or mail)
        cases.append(Case(name, [writer.signs_up(at, user, visitor, mail), *bought], visitor, [bought[0][1]["once"]]))

    for number, (key, places) in enumerate(_STRIPE):
        where = f"stripe {'+'.join(places)} metadata.{key}"
        case(where, _AT[number % 5], lambda user, mail, k=key, p=places: writer.stripe(*p, mail=mail, **{k: user}))
    for number in range(10):  # a Payment Link, or the boilerplate that hands over nothing else
        at = ("clerk", "supabase-auth", "workos")[number % 3]
        case("stripe client_reference_id", at, lambda user, mail: writer.stripe(mail=mail, reference=user))
    for number in range(7):
        case(
            "lemonsqueezy custom_data.user_id",
            _AT[number % 5],
            lambda user, mail: writer.buys("lemonsqueezy", mail=mail, user_id=user),
        )
    case("paddle custom_data.user_id", "clerk", lambda user, mail: writer.buys("paddle", mail=mail, user_id=user))
    case("paddle custom_data.uid", "supabase-db", lambda user, mail: writer.buys("paddle", mail=mail, uid=user))
    case("polar customer.external_id", "clerk", lambda user, mail: writer.buys("polar", mail=mail, external_id=user))
    case("creem metadata.referenceId", "workos", lambda user, mail: writer.buys("creem", mail=mail, referenceId=user))
    case("dodo metadata.userId", "clerk", lambda user, mail: writer.buys("dodo", mail=mail, userId=user))
    case("revenuecat app_user_id", "supabase-auth", lambda user, mail: writer.buys("revenuecat", mail=mail, user=user))
    # without a word in a mapping file these find nobody but by the e-mail address
    for key in ("driver_id", "discord_user_id"):
        case(
            f"stripe session metadata.{key}",
            "clerk",
            lambda user, mail, k=key: writer.stripe(SESSION, mail=mail, **{k: user}),
        )
    for number in (3_217, 90_412):
        case(
            "stripe session metadata.user_id, a number",
            "workos",
            lambda _user, mail, n=number: writer.stripe(SESSION, mail=mail, user_id=str(n)),
        )
    case(
        "stripe session metadata.email",
        "clerk",
        lambda _user, mail: writer.stripe(SESSION, mail="x@pay.example", email=mail),
    )
    case(
        "stripe client_reference_id, an address", "clerk", lambda _user, mail: writer.stripe(mail=mail, reference=mail)
    )
    case("paddle, nothing but the address", "clerk", lambda _user, mail: writer.buys("paddle", mail=mail))
    case("stripe, nothing but the address", "clerk", lambda _user, mail: writer.stripe(mail=f" {mail.upper()} "))
    case("stripe, nothing and another address", "clerk", lambda _user, mail: writer.stripe(mail="private@home.example"))
    return cases


# ---------------------------------------------------------------------------------------------------------- traps


def traps(writer: Writer) -> list[Case]:
    """Twenty: somebody is known by an id that a stranger's purchase has, too."""
    cases: list[Case] = []

    def mail() -> str:
        return f"trap{next(writer.numbers)}@trap.example"

    def trap(name: str, known: list[tuple[str, dict]], *bought: list[tuple[str, dict]]) -> None:
        cases.append(Case(name, [*known, *itertools.chain(*bought)], None, [one[0][1]["once"] for one in bought]))

    def seen(**given: object) -> dict[str, object]:
        return {"datafast_visitor_id": writer.visitor(), **given}

    for key, value in (
        ("orderId", "order_77x"),
        ("order_id", "ord-9f"),
        ("booking", "b-17a"),
        ("organizationId", "org_2abc"),
        ("workspace_id", "ws-blue"),
        ("team_name", "blue"),
        ("product_id", "prod_Abc"),
    ):
        first = writer.stripe(SESSION, mail=mail(), **seen(**{key: value}))
        trap(f"metadata.{key} of two buyers", first, writer.stripe(SESSION, mail=mail(), **{key: value}))
    for what, value in (("an organisation", "org_9zz"), ("a product", "prod_9zz"), ("an order", "A-1001")):
        first = writer.stripe(SESSION, mail=mail(), reference=value, **seen())
        trap(f"client_reference_id is {what}", first, writer.stripe(mail=mail(), reference=value))
    first = writer.buys("polar", mail=mail(), **seen(referenceId="org_polar"))
    trap(
        "polar metadata.referenceId is an organisation",
        first,
        writer.buys("polar", mail=mail(), referenceId="org_polar"),
    )
    first = writer.stripe(SESSION, mail=mail(), **seen(user_id="42"))
    trap("42 at Stripe is not 42 at Lemon Squeezy", first, writer.buys("lemonsqueezy", mail=mail(), user_id="42"))
    trap(
        "an order's number is a user's",
        writer.stripe(SESSION, mail=mail(), **seen(userId=1007)),
        writer.stripe(mail=mail(), reference="1007"),
    )
    trap(
        "a numeric field of a form",
        [writer.fills_in(writer.visitor(), mail(), user_id="58")],
        writer.stripe(SESSION, mail=mail(), user_id="58"),
    )
    team = [writer.stripe(SESSION, mail=mail(), userId="acme-shared") for _ in range(5)]
    trap("an account that a team shares", [writer.signs_up("clerk", "acme-shared", writer.visitor(), mail())], *team)
    for nobody in ("guest", "undefined"):
        first = writer.stripe(SESSION, mail=mail(), **seen(userId=nobody))
        trap(f"the user's id is {nobody}", first, writer.stripe(SESSION, mail=mail(), userId=nobody))
    known = [writer.signs_up("clerk", "user_seller1", writer.visitor(), mail())]
    trap("the seller's id", known, writer.stripe(SESSION, mail=mail(), therapist_id="user_seller1"))
    first = writer.stripe(SESSION, mail="info@shop.example", **seen())
    trap("info@ is nobody's address", first, writer.stripe(mail="INFO@shop.example"))
    first = writer.stripe(SESSION, mail=mail(), live=False, **seen(userId="user_tested"))
    trap("a test purchase teaches no live one", first, writer.stripe(SESSION, mail=mail(), userId="user_tested"))
    return cases


# ------------------------------------------------------------------------------------------------------------ play


def play(store, clock, seed: int, *, by_email: bool) -> list[tuple[Case, list[str | None]]]:
    """Send all events in one random order; the visitors that each case's goals found."""
    writer = Writer()
    cases = checkouts(writer) + traps(writer)
    rig = Rig(store, clock, FILES, destinations=("default", "other"), BRIDGE_MATCH_EMAIL="on" if by_email else "off")
    events = [event for case in cases for event in case.events]
    random.Random(seed).shuffle(events)
    rig.put_told(events)
    rig.route_all()
    rig.later(3 * MINUTE)
    found = {goal.once_key.rpartition(":")[2]: goal.visitor for goal in rig.goals()}
    return [(case, [found[once] for once in case.asked]) for case in cases]


def table(off: list[tuple[Case, list[str | None]]], on: list[tuple[Case, list[str | None]]]) -> str:
    lines = [f"{'':58}  e-mail off  e-mail on"]
    for (case, without), (_, found) in zip(off, on, strict=True):
        lines.append(f"{case.name:58}  {_said(case, without):10}  {_said(case, found)}")
    for what, is_trap in (("checkouts right", False), ("traps nobody fell into", True)):
        chosen = [[one for one in run if (one[0].visitor is None) is is_trap] for run in (off, on)]
        shares = [f"{sum(right(*one) for one in run)} of {len(run)}" for run in chosen]
        lines.append(f"{what:58}  {shares[0]:10}  {shares[1]}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def right(case: Case, found: list[str | None]) -> bool:
    return set(found) == {case.visitor}


def wrong(case: Case, found: list[str | None]) -> bool:
    """Whether a goal was given to somebody else."""
    return bool(set(found) - {case.visitor, None})


def _said(case: Case, found: list[str | None]) -> str:
    return "WRONG" if wrong(case, found) else "right" if right(case, found) else "-"


class _Past:
    """Events came ten minutes ago, so that the grace of their goals is over."""

    now_ms = time.time_ns() // 1_000_000 - 10 * MINUTE

    def advance(self, ms: int) -> None:
        """The database's clock is the machine's: what was looked at before all was routed is looked at again."""
        time.sleep(1.2)


if __name__ == "__main__":
    runs = []
    for by_email in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/bridge.db"
            bridge_store.migrate(url)
            opened = bridge_store.open(url)
            runs.append(play(opened, _Past(), 1, by_email=by_email))
            opened.close()
    TABLE.write_text(table(*runs), "utf-8")
    print(TABLE.read_text("utf-8"), end="")
