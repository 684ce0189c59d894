"""What tests of identity and routing need: mapping files to a rule set, Stripe-shaped events, a rig that routes.

Events go in as rows of `events`, so these tests stand on the real statements and on nothing of the web.
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from urllib.parse import urlencode

from sqlalchemy import Table, insert, select

from bridge import rules, sources
from bridge.model import Destination
from bridge.route import Router
from bridge.settings import load
from bridge.store import schema

SECRETS = {"STRIPE_WEBHOOK_SECRET": "whsec_0123456789", "LEMONSQUEEZY_WEBHOOK_SECRET": "secret-of-lemons"}
ALICE = "00000000-0000-4000-8000-00000000000a"
BOB = "00000000-0000-4000-8000-00000000000b"
CAROL = "00000000-0000-4000-8000-00000000000c"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

STRIPE = """
provider: stripe
goals:
  - {goal: purchase, event: [checkout.session.completed, checkout.session.async_payment_succeeded],
     once_per: data.object.id}
  - {goal: paid, event: invoice.paid, once_per: data.object.id}
  - {goal: refund, event: charge.refunded, once_per: "{data.object.id}:{data.object.amount_refunded}"}
  - {goal: dispute, event: charge.dispute.created, once_per: data.object.id}
  - {goal: churned, event: customer.subscription.deleted, once_per: data.object.id}
  - {goal: profile, event: customer.updated}
"""


def settings(**more):
    return load({"DATAFAST_API_KEY": "df_key", **SECRETS, **more})


def rule_set(files=None):
    return _rule_set(tuple((files or {"stripe.yaml": STRIPE}).items()))


@cache
def _rule_set(files):
    return rules.load(dict(files), SECRETS, sources.presets())


def stripe_event(event_type, thing, *, at_s=1_789_990_000, number=[0], live=True, account=None, event_id=None):  # noqa: B006
    number[0] += 1
    body = {
        "id": event_id or f"evt_{number[0]}a",
        "object": "event",
        "type": event_type,
        "created": at_s,
        "livemode": live,
        "data": {"object": thing},
    }
    return body | ({"account": account} if account else {})


class Rig:
    """Stores events and routes them, by one database and any number of routers."""

    def __init__(self, store, clock, files=None, *, destinations=("default",), **environ):
        self.store, self.clock = store, clock
        self.settings = settings(**environ)
        self.rules = rule_set(files)
        self.destinations = {name: Destination(name, "df_key") for name in destinations}
        self._tokens = itertools.count()
        self.router = self.new_router()

    def new_router(self):
        return Router(self.store, self.settings, new_token=lambda: f"{id(self)}-{next(self._tokens)}")

    def put(self, body, source="stripe"):
        """Store one event as the inbox would; its id."""
        return self.put_all([body], source)[0]

    def put_all(self, bodies, source="stripe"):
        """Store events in one commit; their ids."""
        return self.put_told((source, body) for body in bodies)

    def put_told(self, told):
        """Store events of several sources in one commit, in this order: (source, body); their ids."""
        rows = [_row(body, self.rules.sources[source], self.clock.now_ms) for source, body in told]
        with self.store.write() as conn:
            return [conn.execute(insert(schema.events).values(**row)).inserted_primary_key[0] for row in rows]

    def route(self, *bodies, source="stripe", at_once=True):
        """Store and route events; with `at_once` in one batch, else one by one."""
        for body in bodies:
            self.put(body, source)
            if not at_once:
                self.route_all()
        return self.route_all()

    def route_all(self, router=None):
        routed = 0
        while count := (router or self.router).route_batch(self.rules, self.destinations):
            routed += count
        return routed

    def later(self, ms):
        self.clock.advance(ms)
        while self.router.sweep():
            pass

    def rows(self, what, *where):
        """Of a table, in the order of its key, or of a column."""
        order = what.primary_key.columns if isinstance(what, Table) else ()
        with self.store.read() as conn:
            return conn.execute(select(what).where(*where).order_by(*order)).all()

    def goals(self):
        return self.rows(schema.goals)

    def sent(self):
        """(destination, goal, once key, visitor) of every goal: what law 4 speaks of."""
        return {(goal.destination, goal.name, goal.once_key, goal.visitor) for goal in self.goals()}

    def visitors(self):
        """Goal name → visitor, where there is one goal of each name."""
        return {goal.name: goal.visitor for goal in self.goals()}

    def trace(self, event_id):
        (event,) = self.rows(schema.events, schema.events.c.id == event_id)
        return json.loads(event.trace)

    def event(self, event_id):
        return self.rows(schema.events, schema.events.c.id == event_id)[0]


def _row(body, source, now_ms):
    from bridge.model import Document
    from bridge.sources.envelope import read_envelope

    envelope = read_envelope(source.envelope, Document(body))
    return {
        "source": source.name,
        "provider": source.provider,
        "type": envelope.type,
        "provider_event_id": envelope.id,
        "account": envelope.account,
        "test": envelope.test,
        "stated_at_ms": envelope.time_ms,
        "order_at_ms": envelope.order_ms,
        "received_at_ms": now_ms,
        "dedupe_key": f"{next(_COUNT)}",
        "headers": "{}",
        "query": "{}",
        "body": body if isinstance(body, bytes) else _written(body, source),
        "state": "received",
    }


def _written(body, source):
    from bridge.model import BodyForm

    if source.body is BodyForm.FORM:
        return urlencode(list(_fields(body))).encode()
    if source.body is BodyForm.JSON_FIELD:
        return urlencode({source.body_field: json.dumps(body)}).encode()
    return json.dumps(body).encode()


def _fields(body, above=""):
    for key, value in body.items():
        name = f"{above}[{key}]" if above else key
        yield from _fields(value, name) if isinstance(value, dict) else [(name, value)]


_COUNT = itertools.count()
