"""All real payloads through the real receive and the real route, and the table of what the shipped rules make of them.

`python tests/pipeline/corpus.py` writes `tests/fixtures/corpus_table.txt` anew; look at the difference before you
commit it. Nearly all payloads are test mode and many share the id `evt_00000000000000`, so each is made live and gets
ids of its own; otherwise this would prove nothing. `INJECTED` plays them with a visitor at the documented place.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from sources_kit import secret_for, signed_request  # noqa: E402
from sources_kit import source as preset  # noqa: E402
from sqlalchemy import select  # noqa: E402

from bridge import app, store, web  # noqa: E402
from bridge.route import Router  # noqa: E402
from bridge.sandbox import encode  # noqa: E402
from bridge.settings import load  # noqa: E402
from bridge.store import schema  # noqa: E402

PAYLOADS = ROOT / "tests" / "fixtures" / "payloads"
TABLE = ROOT / "tests" / "fixtures" / "corpus_table.txt"
NOT_EVENTS = {"INDEX.json", "signature_vectors.json"}
GIVEN = "00000000-0000-4000-8000-000000000001"  # in those payloads that carry a visitor
KOFI_TOKEN = "test-token"  # stands in the body

# What a user of these providers would write; `goal` is the smallest rule there is.
GENERIC = {
    "clerk": 'provider: clerk\ngoals:\n  - {goal: signed_up, event: "user.created"}\n',
    "coinbase": "provider: coinbase-commerce\n"
    'goals:\n  - {goal: charge, event: "charge:created", once_per: event.id}\n',
    "dodo": "provider: dodo\ngoals:\n  - goal: purchase\n    event: payment.succeeded\n    once_per: data.payment_id\n"
    '    metadata: {amount: "{data.total_amount|money:data.currency}", currency: "{data.currency}"}\n',
    "github": "provider: github\ngoals:\n  - goal: sponsored\n    event: sponsorship\n    when: {action: created}\n"
    "  - goal: bought\n    event: marketplace_purchase\n    when: {action: purchased}\n",
    "gitlab": "provider: gitlab-token\ngoals:\n  - {goal: pushed, event: push, when: {ref: {suffix: /main}}}\n",
    "gumroad": "provider: gumroad\nrequire: {seller_id: abc==}\ngoals:\n  - goal: purchase\n    event: sale\n"
    '    when: {refunded: {not: true}}\n    once_per: sale_id\n    metadata: {amount: "{price|money:USD}"}\n',
    "kofi": "provider: kofi\ngoals:\n  - goal: tip\n    event: [Donation, Subscription]\n    once_per: message_id\n"
    '    metadata: {amount: "{amount}", currency: "{currency}"}\n',
    "linear": "provider: linear\ngoals:\n  - {goal: commented, event: Comment, when: {action: create}}\n",
    "paddle": "provider: paddle\ngoals:\n  - goal: purchase\n    event: transaction.completed\n    once_per: data.id\n"
    '    metadata: {amount: "{data.details.totals.total|money:data.currency_code}"}\n'
    "  - goal: subscribed_new\n    event: subscription.activated\n    when: {data.status: active}\n"
    "  - goal: refund\n    event: adjustment.created\n    when: {data.action: refund, data.status: approved}\n",
    "paddle-classic": "provider: query-token\nbody: form\nenvelope: {type: alert_name, id: alert_id}\n"
    "links: {subscription: subscription_id}\nvisitor: passthrough.datafast_visitor_id\n"
    "goals:\n  - {goal: subscribed_classic, event: subscription_created}\n",
    "polar": None,  # mappings/examples/polar.yaml
    "resend": "provider: resend\ngoals:\n  - {goal: mailed, event: email.received}\n",
    "sendgrid": "provider: sendgrid\n"
    "goals:\n  - {goal: bounced, event: dropped, when: {reason: {contains: Bounced}}}\n",
    "shopify": "provider: shopify\ngoals:\n  - goal: purchase\n    event: orders/paid\n    once_per: id\n"
    '    metadata: {amount: "{total_price}", currency: "{currency}"}\n',
    "slack": "provider: slack\nbody: form\nenvelope: {type: command}\ngoals:\n  - {goal: asked, event: /webhook-*}\n",
    "square": "provider: square\npublic_url: https://bridge.example.com/webhooks/square\n"
    "goals:\n  - {goal: tested, event: webhooks.test_notification}\n",
    "tally": "provider: tally\ngoals:\n  - {goal: filled_in, event: FORM_RESPONSE, once_per: data.responseId}\n",
    "typeform": "provider: typeform\ngoals:\n  - goal: promoter\n    event: form_response\n"
    "    when: {form_response.calculated.score: {gte: 9}}\n",
}
SHIPPED = ("stripe", "lemonsqueezy")


@dataclass(frozen=True)
class Payload:
    """One file, under the name that the table gives it."""

    file: Path
    number: int

    @property
    def name(self) -> str:
        return self.file.relative_to(PAYLOADS).as_posix()

    @property
    def source(self) -> str:
        folder = self.name.split("/")[0]
        return folder if folder in SHIPPED else self.file.name.split(".")[0]

    @property
    def visitor(self) -> str:
        """This payload's own visitor, and nobody else's."""
        return f"00000000-0000-4000-8000-{self.number:012}"


def payloads() -> list[Payload]:
    found = [file for file in sorted(PAYLOADS.rglob("*")) if file.suffix in (".json", ".txt")]
    return [Payload(file, 100 + n) for n, file in enumerate(found) if file.name not in NOT_EVENTS]


# ------------------------------------------------------------------------------------------ live, and each its own


def body_of(payload: Payload, *, injected: bool) -> bytes:
    """The payload's bytes as its provider would send them live, with ids of their own."""
    raw = payload.file.read_bytes().strip()
    if payload.file.suffix == ".txt":
        return raw.replace(GIVEN.encode(), payload.visitor.encode())
    document = json.loads(raw)
    if payload.source == "stripe":
        return encode.stripe(_stripe(payload, raw, injected=injected))
    if payload.source == "lemonsqueezy":
        return encode.lemonsqueezy(_lemonsqueezy(payload, document, injected=injected))
    return json.dumps(_generic(payload, document, injected=injected), ensure_ascii=False).encode()


def _stripe(payload: Payload, raw: bytes, *, injected: bool) -> dict[str, Any]:
    document = json.loads(re.sub(rb"(_0{10,})0{4}\b", rb"\g<1>%04d" % payload.number, raw))
    document["id"] = f"evt_{payload.number}corpus"
    document["livemode"] = True
    thing = document.get("data", {}).get("object")
    if injected and isinstance(thing, dict):
        _place(thing)["datafast_visitor_id"] = payload.visitor
    return document


def _place(thing: dict[str, Any]) -> dict[str, Any]:
    """The metadata in which the visitor travels: on invoices the subscription's, in every version."""
    details = (thing.get("parent") or {}).get("subscription_details") or thing.get("subscription_details")
    holder = details if thing.get("object") == "invoice" and details else thing
    holder["metadata"] = holder.get("metadata") or {}
    return holder["metadata"]


def _lemonsqueezy(payload: Payload, document: dict[str, Any], *, injected: bool) -> dict[str, Any]:
    meta, data = document["meta"], document["data"]
    meta["test_mode"] = False
    meta["webhook_id"] = f"00000000-0000-4000-9000-{payload.number:012}"
    data["id"] = str(payload.number)
    if "test_mode" in data["attributes"]:
        data["attributes"]["test_mode"] = False
    meta["custom_data"] = {"datafast_visitor_id": payload.visitor} if injected else {}
    return document


_INJECTED = {
    "clerk": ("data", "unsafe_metadata"),
    "coinbase": ("event", "data", "metadata"),
    "dodo": ("data", "metadata"),
    "paddle": ("data", "custom_data"),
    "polar": ("data", "metadata"),
    "resend": ("data", "metadata"),
    "typeform": ("form_response", "hidden"),
}


def _generic(payload: Payload, document: Any, *, injected: bool) -> Any:
    for name in ("event_id", "eventId"):
        if isinstance(document, dict) and name in document:
            document[name] = f"{document[name]}-{payload.number}"
    if payload.source == "linear":
        document["webhookTimestamp"] = int(time.time() * 1000)  # it is signed, and must be of now
    if injected:
        below = document[0] if isinstance(document, list) else document
        for step in _INJECTED.get(payload.source, ()):
            below[step] = below = below.get(step) or {}
        if payload.source in (*_INJECTED, "sendgrid"):
            below["datafast_visitor_id"] = payload.visitor
    return json.loads(json.dumps(document).replace(GIVEN, payload.visitor))


def headers_of(payload: Payload) -> dict[str, str]:
    """What a provider says in a header only."""
    delivery = f"delivery-{payload.number}"
    if payload.source == "github":
        return {"X-GitHub-Event": payload.file.name.split(".")[1], "X-GitHub-Delivery": delivery}
    if payload.source == "shopify":
        return {"X-Shopify-Topic": "orders/paid", "X-Shopify-Event-Id": delivery}
    return {}


# ------------------------------------------------------------------------------------------------------ playing


def write_mappings(folder: Path, *, everything_on: bool) -> None:
    """The shipped files, with their rules that are off switched on or not, and one for each other provider."""
    folder.mkdir()
    files = [*(ROOT / "mappings").glob("*.yaml"), ROOT / "mappings" / "examples" / "polar.yaml"]
    for file in files:
        text = file.read_text("utf-8")
        (folder / file.name).write_text(re.sub(r"(?m)^ +enabled: false.*\n", "", text) if everything_on else text)
    for name, text in GENERIC.items():
        if text is not None:
            (folder / f"{name}.yaml").write_text(text)


def secrets() -> dict[str, str]:
    made = dict.fromkeys((*SHIPPED, "generic", *GENERIC), "whsec_" + "a2V5" * 8)
    made |= {"kofi": KOFI_TOKEN, "sendgrid": secret_for(preset("sendgrid").verify)}
    return {f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET": secret for name, secret in made.items()}


class Corpus:
    """A bridge that has received every payload and routed it."""

    def __init__(self, folder: Path, database_url: str, *, injected: bool = False, everything_on: bool = False) -> None:
        write_mappings(folder / "mappings", everything_on=everything_on)
        settings = load(
            {
                "DATABASE_URL": database_url,
                "BRIDGE_MAPPINGS": str(folder / "mappings"),
                "DATAFAST_API_KEY": "df_key",
                **secrets(),
            }
        )
        self.injected = injected
        self.bridge = app.build(settings, worker=False)
        self.client = web.create(self.bridge).test_client()
        self.answers = {payload: self._post(payload) for payload in payloads()}
        tokens = iter(f"token{n}" for n in range(10_000))
        self.router = Router(self.bridge.store, settings, new_token=lambda: next(tokens))
        self._route()

    def _route(self) -> None:
        while self.router.route_batch(self.bridge.rules, self.bridge.destinations()):
            pass

    def changed(self, name: str, number: int, changes: dict[str, Any]) -> Row:
        """What becomes of a payload with other values in it (`data.object.items.data.0.price.id`: value)."""
        payload = Payload(PAYLOADS / name, number)
        document = json.loads(body_of(payload, injected=True))
        for place, value in changes.items():
            *steps, last = place.split(".")
            below = document
            for step in steps:
                below = below[int(step)] if isinstance(below, list) else below.setdefault(step, {})
            below[last] = value
        self._post(payload, json.dumps(document).encode())
        self._route()
        with self.bridge.store.read() as conn:
            event = conn.execute(select(schema.events).order_by(schema.events.c.id.desc()).limit(1)).one()
            goals = {goal.id: goal for goal in conn.execute(select(schema.goals))}
        return Row(payload, event, goals)

    def _post(self, payload: Payload, body: bytes | None = None) -> tuple[int, Any]:
        source = self.bridge.source(payload.source)
        body = body_of(payload, injected=self.injected) if body is None else body
        made = signed_request(source, source.secrets[0], body, int(time.time()), f"msg_{payload.number}")
        headers = {**made.headers, **headers_of(payload)}
        query = made.url.partition("?")[2]
        answer = self.client.post(f"/webhooks/{source.name}?{query}", data=made.body, headers=headers)
        return answer.status_code, answer.get_json(silent=True)

    @cached_property
    def rows(self) -> list[Row]:
        """What became of each payload, in their order: they were stored one after another."""
        with self.bridge.store.read() as conn:
            wanted = select(schema.events).order_by(schema.events.c.id).limit(len(self.answers))
            events = conn.execute(wanted).all()
            goals = {goal.id: goal for goal in conn.execute(select(schema.goals))}
        return [Row(payload, event, goals) for payload, event in zip(payloads(), events, strict=True)]

    def fired(self) -> set[tuple[str, str]]:
        """(source, rule) of every rule that matched."""
        return {
            (row.payload.source, rule["rule"]) for row in self.rows for rule in row.rules if rule["result"] == "matched"
        }

    def close(self) -> None:
        self.bridge.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Row:
    payload: Payload
    event: Any
    all_goals: dict[int, Any] = field(repr=False)

    @cached_property
    def elements(self) -> list[dict[str, Any]]:
        return json.loads(self.event.trace)["elements"] if self.event.trace else []

    @property
    def rules(self) -> list[dict[str, Any]]:
        return [rule for element in self.elements for rule in element.get("rules") or ()]

    @property
    def goals(self) -> list[dict[str, Any]]:
        return [goal for element in self.elements for goal in element.get("goals") or ()]

    @property
    def made(self) -> list[Any]:
        return [self.all_goals[goal["id"]] for goal in self.goals if goal["outcome"] == "made"]

    def lines(self) -> list[str]:
        verdict = self.event.verdict or self.event.state
        reason = f": {self.event.reason}" if self.event.reason else ""
        told = [f"{self.payload.name} | {self.event.type} | {verdict}{reason}"]
        mine = [rule for rule in self.rules if rule["result"] != "event"]
        told += [f"    {self._rule(rule)}" for rule in mine]
        if not mine and verdict == "unmatched":
            told.append(f"    no rule is for {self.event.type}")
        return told

    def _rule(self, rule: dict[str, Any]) -> str:
        if rule["result"] == "matched":
            return f"{rule['rule']}: {self._goal(rule)}"
        if rule["result"] == "condition":
            return f"{rule['rule']}: {rule['path']} is {rule['actual']}, expected {rule['expected']}"
        return f"{rule['rule']}: {rule['result']}: {rule.get('message')}"

    def _goal(self, rule: dict[str, Any]) -> str:
        made = next(goal for goal in self.goals if goal["rule"] == rule["rule"])
        goal = self.all_goals[made["id"]]
        metadata = " ".join(f"{key}={value}" for key, value in sorted(json.loads(goal.metadata).items()))
        return f"goal {goal.name} ({made['outcome']}) {metadata} → {self._found(made)}"

    def _found(self, made: dict[str, Any]) -> str:
        found = made.get("found")
        if not found:
            return made["state"]
        return f"visitor from {found.get('path') or found.get('by')}"


HEAD = """\
# What the shipped rules make of every payload: file | type | verdict, then each rule for this type with its goal, or
# with its first failing condition. Written by `python tests/pipeline/corpus.py`; the tests compare.
"""


def table(plain: Corpus, injected: Corpus) -> str:
    """The table as text: as the payloads are, and where a goal came with a visitor put in, how it was found then."""
    lines = [HEAD]
    for row, given in zip(plain.rows, injected.rows, strict=True):
        lines += row.lines()
        lines += [f"        with a visitor → {given._found(goal)}" for goal in given.goals]
    return "\n".join(lines) + "\n"


def play(folder: Path, **how: bool) -> Corpus:
    """On an embedded database in this folder."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'bridge.db'}"
    store.migrate(url)
    return Corpus(folder, url, **how)


if __name__ == "__main__":
    from bridge import logs

    logs.configure("json")
    with (
        tempfile.TemporaryDirectory() as folder,
        play(Path(folder) / "plain") as plain,
        play(Path(folder) / "injected", injected=True) as injected,
    ):
        TABLE.write_text(table(plain, injected), "utf-8")
    print(f"wrote {TABLE.relative_to(ROOT)}")
