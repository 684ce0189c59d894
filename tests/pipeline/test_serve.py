"""`python -m bridge serve` and a stand-in for DataFast, each a process of its own, and real HTTP between them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import shutil
import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import pytest
import requests
from running import (
    ADMIN,
    ALICE,
    BOB,
    GENERIC_SECRET,
    KEY,
    LEMON_SECRET,
    ROOT,
    STRIPE_SECRET,
    DataFast,
    Web,
    checkout,
    environment,
    event,
    eventually,
)

from bridge.sandbox import sign

SHOP_KEYS = [base64.b64encode(text).decode() for text in (b"the-old-key-of-the-shop!", b"the-new-key-of-the-shop!")]

# As a user would write it for a sender that nobody has heard of, with the whole vocabulary of `verify`.
SHOP = """
provider: custom
secret: ${SHOP_KEYS}

verify:
  type: hmac-sha256
  key: whsec                     # whsec_ and base64
  signature:
    in: [header:webhook-signature, header:x-shop-signature]
    split: " "
    prefix: "v1,"
    encoding: base64
  timestamp:
    in: header:webhook-timestamp
    tolerance: 120
  id: header:webhook-id
  signed: "{id}.{timestamp}.{body}"

envelope:
  type: kind
  id: header.webhook-id
  time: at
  test: sandbox

visitor: order.attributes.visitor
links:
  order: order.id
  customer: order.buyer

maps:
  tiers: {s: small, l: large}

goals:
  - goal: "shop_{order.plan|slug}"
    id: sale
    event: "order.*"
    when:
      order.paid: true
      order.cents: {gt: 0}
    once_per: order.id
    description: "order {order.id} of the shop"
    metadata:
      amount: "{order.cents|money:order.currency}"
      tier: "{order.tier|map:tiers}"
      note: "{order.note or order.remark|default:none|max:5}"
"""


@dataclass
class Shop:
    datafast: DataFast
    web: Web
    database: str

    def recorded(self, count: int = 1, **chosen: str) -> list[dict]:
        """The goals at DataFast with these facts, as soon as there are `count`."""

        def look() -> list[dict]:
            found = [goal for goal in self.datafast.goals() if chosen.items() <= goal.items()]
            return found if len(found) >= count else []

        return eventually(look, what=f"{count} goals {chosen}; the log says:\n{self.web.log[-2_000:]}")

    def settled(self) -> None:
        """Everything that was accepted until now has become whatever it becomes."""
        mark = f"mark_{uuid.uuid4().hex}"
        assert self.web.stripe(checkout(mark, str(uuid.uuid4()))).status_code == 200
        self.recorded(description=f"stripe evt_{mark}")

        def idle() -> bool:
            waiting = "SELECT count(*) FROM goals WHERE state IN ('pending', 'leased', 'sending', 'unconfirmed')"
            return self.sql(waiting) == [(0,)] and not self.sql("SELECT 1 FROM events WHERE state = 'received'")

        eventually(idle, what="nothing is under way")

    def sql(self, statement: str, *values: object) -> list[tuple]:
        with closing(sqlite3.connect(self.database, timeout=10)) as conn:
            return conn.execute(statement, values).fetchall()


@pytest.fixture(scope="module")
def shop(shared_machine) -> Shop:
    folder = shared_machine.folder / "mappings"
    shutil.copytree(ROOT / "mappings", folder)
    (folder / "shop.yaml").write_text(SHOP)
    (folder / "unset.yaml").write_text("provider: github\ngoals:\n  - {goal: pushed, event: push}\n")
    database = shared_machine.folder / "bridge.db"
    datafast = shared_machine.sandbox()
    keys = ", ".join(f"whsec_{key}" for key in SHOP_KEYS)
    web = shared_machine.web(environment(datafast, f"sqlite:///{database}", folder, SHOP_KEYS=keys))
    return Shop(datafast, web, str(database))


def fresh() -> str:
    return uuid.uuid4().hex[:12]


# -------------------------------------------------------------------------------------------------- what is sent


def test_a_checkout_becomes_exactly_one_goal_with_its_visitor_name_and_metadata(shop):
    number = fresh()
    answer = shop.web.stripe(checkout(number, ALICE))
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    (goal,) = shop.recorded(description=f"stripe evt_{number}")
    assert (goal["name"], goal["visitor"]) == ("purchase", ALICE)
    assert goal["metadata"] == {
        "provider": "stripe",
        "amount": "49.00",
        "currency": "USD",
        "mode": "payment",
        "plan": "pro",
    }
    assert json.loads(goal["request"]["body"]) == {
        "datafast_visitor_id": ALICE,
        "name": "purchase",
        "description": f"stripe evt_{number}",
        "metadata": goal["metadata"],
    }
    again = shop.web.stripe(checkout(number, ALICE))
    assert (again.status_code, again.json()) == (200, {"status": "duplicate"})
    shop.settled()
    assert len(shop.recorded(description=f"stripe evt_{number}")) == 1


def test_fifty_at_once_are_still_one(shop):
    number = fresh()
    body = json.dumps(checkout(number, BOB), indent=2).encode()
    headers = sign.stripe(body, STRIPE_SECRET, int(time.time()))
    with ThreadPoolExecutor(50) as many:
        answers = list(many.map(lambda _: shop.web.post("stripe", body, headers), range(50)))
    assert [answer.status_code for answer in answers] == [200] * 50
    assert sorted(answer.json()["status"] for answer in answers) == ["accepted"] + ["duplicate"] * 49
    shop.settled()
    assert len(shop.recorded(description=f"stripe evt_{number}")) == 1
    assert shop.sql("SELECT duplicates FROM events WHERE provider_event_id = ?", f"evt_{number}") == [(49,)]


def test_two_events_about_one_sale_are_one_goal(shop):
    number = fresh()
    first, second = checkout(number, ALICE), checkout(number, ALICE)
    second |= {"id": f"evt_{number}b", "type": "checkout.session.async_payment_succeeded"}
    assert {shop.web.stripe(one).json()["status"] for one in (first, second)} == {"accepted"}
    shop.settled()
    of_session = "SELECT count(*) FROM goals WHERE once_key = ?"
    assert shop.sql(of_session, f"stripe:live:purchase:cs_live_{number}") == [(1,)]
    names = [goal["description"] for goal in shop.datafast.goals()]
    assert len([name for name in names if number in name]) == 1


def lemon_order(number: int) -> bytes:
    r"""As PHP writes it: `\/`, and everything beyond ASCII as `\u20ac`."""
    document = {
        "meta": {
            "test_mode": False,
            "event_name": "order_created",
            "webhook_id": str(uuid.uuid4()),
            "custom_data": {"datafast_visitor_id": BOB},
        },
        "data": {
            "type": "orders",
            "id": str(number),
            "attributes": {
                "store_id": 1,
                "customer_id": 7,
                "status": "paid",
                "total": 1999,
                "total_usd": 2150,
                "currency": "EUR",
                "discount_total": 0,
                "first_order_item": {"product_name": "Café/Größe €", "variant_name": "Default"},
                "created_at": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
            },
            "links": {"self": f"https://api.lemonsqueezy.com/v1/orders/{number}"},
        },
    }
    body = json.dumps(document, separators=(",", ":")).replace("/", "\\/").encode()
    assert b"https:\\/\\/" in body
    assert rb"\u20ac" in body
    return body


def test_a_lemon_squeezy_order_in_the_bytes_of_php_becomes_its_goal(shop):
    number = int(time.time() * 1000)
    body = lemon_order(number)
    signature = hmac.new(LEMON_SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Signature": signature, "X-Event-Name": "order_refunded"}  # not signed, so not believed
    assert shop.web.post("lemonsqueezy", body, headers).json() == {"status": "accepted"}
    shop.settled()
    rows = shop.sql("SELECT id, type FROM events WHERE source = 'lemonsqueezy' ORDER BY id DESC LIMIT 1")
    assert rows[0][1] == "order_created"
    (goal,) = [goal for goal in shop.datafast.goals() if goal["metadata"].get("product") == "Café/Größe €"]
    assert (goal["name"], goal["visitor"]) == ("purchase", BOB)
    assert goal["metadata"]["amount"] == "19.99"
    assert goal["metadata"]["amount_usd"] == "21.50"
    assert goal["metadata"]["currency"] == "EUR"
    assert "discount" not in goal["metadata"]


def shop_headers(body: bytes, event_id: str, key: str, *, at_s: int | None = None) -> dict[str, str]:
    """Standard Webhooks, written from its specification."""
    at = str(int(time.time()) if at_s is None else at_s)
    mac = hmac.new(base64.b64decode(key), f"{event_id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": at,
        "webhook-signature": f"v1a,AAAA v1,{base64.b64encode(b'x' * 32).decode()} v1,{base64.b64encode(mac).decode()}",
    }


def shop_order(number: str, **fields: object) -> bytes:
    order = {
        "id": number,
        "buyer": 7,
        "plan": "Team Größe",
        "paid": "true",
        "cents": "123456",
        "currency": "jpy",
        "tier": "l",
        "remark": "a long remark",
        "attributes": {"visitor": ALICE},
        **fields,
    }
    return json.dumps({"kind": "order.paid", "at": int(time.time() * 1000), "order": order}).encode()


def test_a_sender_of_a_mapping_file_that_a_user_wrote_becomes_its_goal(shop):
    for number, key in ((fresh(), SHOP_KEYS[0]), (fresh(), SHOP_KEYS[1])):  # while the key is rotated
        body = shop_order(number)
        answer = shop.web.post("shop", body, shop_headers(body, f"msg_{number}", key))
        assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
        (goal,) = shop.recorded(description=f"order {number} of the shop")
        assert (goal["visitor"], goal["metadata"]) == (ALICE, {"amount": "123456", "tier": "large", "note": "a lon"})
        assert goal["name"].startswith("shop_team")


def test_what_the_user_wrote_about_signatures_holds(shop):
    body, now = shop_order(fresh()), int(time.time())
    good = shop_headers(body, "msg_good", SHOP_KEYS[0])
    faults = {
        "another key": shop_headers(body, "msg_1", base64.b64encode(b"another-key-of-somebody-").decode()),
        "too old": shop_headers(body, "msg_2", SHOP_KEYS[0], at_s=now - 240),
        "from the future": shop_headers(body, "msg_3", SHOP_KEYS[0], at_s=now + 240),
        "another id": good | {"webhook-id": "msg_other"},
        "no time": {name: value for name, value in good.items() if name != "webhook-timestamp"},
        "no signature": {name: value for name, value in good.items() if name != "webhook-signature"},
        "another version": good | {"webhook-signature": good["webhook-signature"].replace("v1,", "v2,")},
    }
    for fault, headers in faults.items():
        assert shop.web.post("shop", body, headers).status_code == 401, fault
    assert shop.web.post("shop", body + b" ", good).status_code == 401
    assert shop.web.post("shop", body, good).status_code == 200


def test_a_goal_of_ones_own_application_needs_no_rule(shop):
    number = fresh()
    body = json.dumps({"event": "Sign Up", "id": number, "datafast_visitor_id": ALICE, "metadata": {"Plan": "x"}})
    headers = sign.standard_webhooks(body.encode(), GENERIC_SECRET, f"msg_{number}", int(time.time()))
    assert shop.web.post("generic", body.encode(), headers).status_code == 200
    (goal,) = shop.recorded(description=f"generic msg_{number}")
    assert (goal["name"], goal["visitor"], goal["metadata"]) == ("sign_up", ALICE, {"plan": "x"})


def test_an_event_whose_type_can_be_no_goals_name_says_so_in_its_reason_and_in_status(shop):
    number = fresh()
    body = json.dumps({"event": "日本", "id": number, "datafast_visitor_id": ALICE}).encode()
    headers = sign.standard_webhooks(body, GENERIC_SECRET, f"msg_{number}", int(time.time()))
    assert shop.web.post("generic", body, headers).json() == {"status": "accepted"}
    wanted = "SELECT verdict, reason FROM events WHERE provider_event_id = ? AND state = 'routed'"
    ((verdict, reason),) = eventually(lambda: shop.sql(wanted, f"msg_{number}"), what="it is routed")
    assert verdict == "unmatched"
    assert reason == 'the rule any failed: "日本" has no letter or digit that a goal name can hold'
    eventually(lambda: any(reason in note for note in shop.web.get("/status", admin=True).json()["notes"]))


# --------------------------------------------------------------------------------------------- what is answered


def stripe_headers(body: bytes, secret: str = STRIPE_SECRET, *, later_s: int = 0) -> dict[str, str]:
    return sign.stripe(body, secret, int(time.time()) + later_s)


def test_every_refusal_has_its_answer(shop):
    body = json.dumps(checkout(fresh())).encode()
    good = stripe_headers(body)
    answers = {
        "unsigned": (shop.web.post("stripe", body, {}), 401),
        "forged": (shop.web.post("stripe", body, stripe_headers(body, "whsec_somebody_else")), 401),
        "stale": (shop.web.post("stripe", body, stripe_headers(body, later_s=-400)), 401),
        "future": (shop.web.post("stripe", body, stripe_headers(body, later_s=400)), 401),
        "changed": (shop.web.post("stripe", body.replace(b"4900", b"9900"), good), 401),
        "empty": (shop.web.post("stripe", b"", {}), 401),
        "nobody's": (shop.web.post("nobody", body, good), 404),
        "deeper": (shop.web.post("stripe/extra", body, good), 404),
        "large": (shop.web.post("stripe", b"x" * (1_048_577), good), 413),
        "compressed": (shop.web.post("stripe", gzip.compress(body), good | {"Content-Encoding": "gzip"}), 415),
        "no secret": (shop.web.post("unset", body, good), 503),
    }
    for fault, (answer, status) in answers.items():
        assert answer.status_code == status, fault
        assert len(answer.text) < 200, fault
        assert "Location" not in answer.headers, fault
    assert len({answers[fault][0].text for fault in ("unsigned", "forged", "stale", "future", "changed")}) == 1
    assert int(answers["no secret"][0].headers["Retry-After"]) > 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_post_is_taken_and_a_sentence_says_so(shop, method):
    answer = requests.request(method, f"{shop.web.url}/webhooks/stripe", timeout=30, allow_redirects=False)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert "POST" in answer.text


def test_a_body_longer_than_the_limit_is_refused_without_a_length_too(shop):
    def pieces():
        for _ in range(20):
            yield b"x" * 65_536

    url = f"{shop.web.url}/webhooks/stripe"
    try:
        answer = requests.post(url, data=pieces(), headers=stripe_headers(b"x"), timeout=30)
    except requests.ConnectionError:
        return  # it was told while it still wrote, and the connection was closed
    assert answer.status_code == 413


def test_slash_at_the_end_and_any_content_type_are_fine(shop):
    for source, kind in (("stripe/", "text/plain"), ("stripe", "application/x-www-form-urlencoded"), ("stripe/", "")):
        body = json.dumps(checkout(fresh())).encode()
        answer = shop.web.post(source, body, stripe_headers(body) | {"Content-Type": kind})
        assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})


PROXIES = [
    {"X-Forwarded-Proto": "https", "X-Forwarded-Protocol": "http"},
    {"X-Forwarded-Proto": "http", "X-Forwarded-Ssl": "on"},
    {"X-Forwarded-Proto": "https, http", "X-Forwarded-For": "1.2.3.4, 127.0.0.1", "Forwarded": "for=1;proto=http"},
    {"X-Forwarded-Protocol": "ssl", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/webhooks/generic"},
    {"Script-Name": "/webhooks", "X-Script-Name": "/x", "X-Forwarded-Port": "no port"},
]


@pytest.mark.parametrize("said", PROXIES, ids=" ".join)
def test_no_header_of_a_proxy_changes_the_answer_to_a_webhook(shop, said):
    body = json.dumps(checkout(fresh())).encode()
    answer = shop.web.post("stripe", body, stripe_headers(body) | said)
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})


BROKEN_CHARACTERS = {
    "NUL": "Ada \\u0000",
    "half an emoji": "Ada \\ud83d",
    "the other half": "\\ude00 Ada",
    "a raw NUL": "Ada \0",
}


@pytest.mark.parametrize("name", BROKEN_CHARACTERS)
def test_a_sale_whose_buyers_name_holds_a_broken_character_is_a_sale(shop, name):
    number, visitor = fresh(), str(uuid.uuid4())
    body = json.dumps(checkout(number, visitor, note="@NAME@")).replace("@NAME@", BROKEN_CHARACTERS[name]).encode()
    assert shop.web.stripe(b"\xef\xbb\xbf" + body).json() == {"status": "accepted"}
    (goal,) = shop.recorded(description=f"stripe evt_{number}")
    assert (goal["name"], goal["visitor"]) == ("purchase", visitor)
    assert shop.sql("SELECT body FROM events WHERE provider_event_id = ?", f"evt_{number}") == [
        (b"\xef\xbb\xbf" + body,)
    ]


UNREADABLE = {
    "no UTF-8": b'{"id": "evt_\xff"}',
    "NaN": b'{"id": "evt_1", "type": "x", "amount": NaN}',
    "Infinity": b'{"id": "evt_1", "type": "x", "amount": -Infinity}',
    "a key twice": b'{"id": "evt_1", "type": "x", "type": "y"}',
    "deep": b'{"type": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "a huge integer": b'{"type": "x", "amount": ' + b"9" * 5_000 + b"}",
    "not JSON": b"type=checkout.session.completed",
    "cut": b'{"id": "evt_1", "ty',
    "nothing": b"",
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_what_is_authentic_but_unreadable_is_kept_in_quarantine(shop, fault):
    body = UNREADABLE[fault]
    answer = shop.web.stripe(body)
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    rows = shop.sql("SELECT state, reason, body FROM events ORDER BY id DESC LIMIT 1")
    (state, reason, kept) = rows[0]
    assert (state, kept) == ("quarantined", body)
    assert reason
    assert shop.web.stripe(body).json() == {"status": "duplicate"}


ODD = {
    "NUL": checkout("nul", ALICE, note="\0") | {"id": "evt_\0nul"},
    "half a character": b'{"id": "evt_half", "type": "checkout.session.completed", "data": {"object": "\\ud800"}}',
    "a list": b"[1, 2]",
    "a text": b'"text"',
    "null": b"null",
    "types of another kind": b'{"id": 7, "type": ["x"], "created": {"a": 1}, "livemode": "no", "data": []}',
    "a time far away": b'{"id": "evt_far", "type": "charge.refunded", "created": 99999999999999999, "data": {}}',
}


@pytest.mark.parametrize("fault", ODD)
def test_what_is_odd_is_taken_and_has_a_verdict(shop, fault):
    answer = shop.web.stripe(ODD[fault])
    assert answer.status_code == 200
    (number,) = shop.sql("SELECT max(id) FROM events")[0]

    def judged() -> list[tuple]:
        return shop.sql("SELECT state, verdict FROM events WHERE id = ? AND state <> 'received'", number)

    ((state, verdict),) = eventually(judged, what=f"{fault} is routed")
    assert state == "quarantined" or verdict in ("matched", "unmatched", "ignored")


def test_status_names_what_somebody_should_look_at(shop):
    shop.web.stripe(b"not JSON " + fresh().encode())
    shop.settled()

    def told() -> dict | None:
        answer = shop.web.get("/status", admin=True)
        return answer.json() if answer.status_code == 503 else None

    problems = " ".join(eventually(told, what="/status is red")["problems"])
    assert "could not be read" in problems
    for _ in range(6):
        shop.web.post("generic", b"{}", {})
    eventually(lambda: "Source generic refused the last" in shop.web.get("/status", admin=True).text)
    assert "generic" not in shop.web.get("/status").text  # names are for the owner


def test_ready_metrics_and_the_root_answer(shop):
    ready = shop.web.get("/readyz", admin=True)
    assert ready.status_code == 200
    assert ready.json()["sources_without_secret"] == ["unset"]
    shop.web.stripe(checkout(fresh()))
    wrong = requests.get(f"{shop.web.url}/metrics", headers={"Authorization": "Bearer wrong"}, timeout=30)
    assert wrong.status_code == 401
    metrics = shop.web.get("/metrics", admin=True)
    assert metrics.status_code == 200
    assert 'source="stripe"' in metrics.text
    root = shop.web.get("/")
    assert (root.status_code, root.headers["Location"]) == (302, "/console/")


# ------------------------------------------------------------------------------------------------- what is told


def test_no_secret_and_no_body_stands_in_the_log_or_in_an_answer(shop, shared_machine):
    number = fresh()
    private = f"privateword{number}"
    body = json.dumps(checkout(number, ALICE, note=private, customer_email=f"{private}@example.com")).encode()
    lemon = json.dumps({"meta": {"event_name": "order_created"}, "private": private}).encode()
    answers = [
        shop.web.post("stripe", body, stripe_headers(body)),
        shop.web.post("stripe", body, stripe_headers(body, "whsec_wrong_" + private)),
        shop.web.post("stripe", body[:-1], stripe_headers(body[:-1])),
        shop.web.post("stripe", b'{"id": "' + private.encode() + b'", NaN', {"Stripe-Signature": private}),
        shop.web.post("lemonsqueezy", lemon, {"X-Signature": private}),
        shop.web.post("nobody", body, {"Authorization": f"Bearer {private}"}, f"?token={private}"),
        shop.web.get("/status"),
        shop.web.get("/readyz"),
        shop.web.get("/status", admin=True),
        shop.web.get("/metrics", admin=True),
    ]
    shop.datafast.tell("faults", {"kind": "500", "times": 1})
    more = json.dumps(checkout(number + "b", BOB, note=private)).encode()
    shop.web.post("stripe", more, stripe_headers(more))
    shop.recorded(description=f"stripe evt_{number}")
    eventually(lambda: shop.web.told("webhook", id=f"evt_{number}b"))
    secrets = [KEY, STRIPE_SECRET, LEMON_SECRET, GENERIC_SECRET, ADMIN, *SHOP_KEYS, private, "must-not-be-told"]
    told = shop.web.log + "".join(answer.text + str(answer.headers) for answer in answers)
    assert [secret for secret in secrets if secret in told] == []
    assert "Traceback" not in told
    assert "must_not_be_told" not in told
    kept = b"".join(file.read_bytes() for file in shared_machine.folder.glob("bridge.db*"))
    assert [secret for secret in secrets if secret.encode() in kept] == [private, "must-not-be-told"]  # bodies alone


def test_the_log_has_one_line_a_webhook_and_one_an_attempt(shop):
    number = fresh()
    shop.web.stripe(checkout(number, ALICE))
    shop.recorded(description=f"stripe evt_{number}")
    (webhook,) = shop.web.told("webhook", id=f"evt_{number}")
    assert webhook | {"source": "stripe", "type": "checkout.session.completed", "outcome": "accepted"} == webhook
    (number_here,) = shop.sql("SELECT id FROM events WHERE provider_event_id = ?", f"evt_{number}")[0]
    (attempt,) = eventually(lambda: shop.web.told("attempt", event_id=f"ev_{number_here}"))
    assert attempt | {"outcome": "delivered", "status": 200, "goal_name": "purchase"} == attempt


# ---------------------------------------------------------------------------------------------- starting, stopping


def test_wrong_settings_are_all_named_at_once_and_nothing_starts(machine):
    wrong = {
        "DATAFAST_API_KEY": "sk_live_" + "x" * 20,
        "DATAFAST_API_URL": "ftp://datafa.st",
        "DATABASE_URL": "mysql://root@localhost/x",
        "BRIDGE_LEASE": "soon",
        "BRIDGE_WORKER": "sometimes",
        "PORT": "99999",
    }
    process = machine.bridge("serve", environ=wrong)
    assert process.ended() == 1
    said = process.log.splitlines()
    assert len(said) == len(wrong)
    for name in wrong:
        assert len([line for line in said if name in line]) == 1, name
    assert "sk_live_xxx" not in process.log
    assert sorted(path.name for path in machine.folder.iterdir()) == ["command.log"]


def test_sigterm_finishes_what_is_being_sent_and_exits_with_0(machine):
    datafast = machine.datafast()
    database = machine.folder / "bridge.db"
    web = machine.web(environment(datafast, f"sqlite:///{database}"))
    datafast.tell("faults", {"kind": "recorded_drip", "drip_ms": 5})
    web.stripe(checkout("slow", ALICE))
    web.stripe(event("charge.succeeded", {"id": "ch_1", "object": "charge"}, "evt_2"))
    with closing(sqlite3.connect(database, timeout=10)) as conn:
        eventually(lambda: conn.execute("SELECT 1 FROM goals WHERE state = 'sending'").fetchall())
        code, took_s = web.stop()
        assert code == 0
        assert took_s < 20
        assert conn.execute("SELECT state FROM goals").fetchall() == [("delivered",)]
        assert conn.execute("SELECT count(*) FROM events WHERE lease_token IS NOT NULL").fetchall() == [(0,)]
    assert datafast.seen() == [("purchase", ALICE)]
    assert "Traceback" not in web.log
