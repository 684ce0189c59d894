"""What a stranger can get into the database, on every page and download of the console.

Hostile events come in as real, signed webhooks. Then every text of every table that is not a word of the bridge's own
is made hostile, too, so that a page which shows a new column is tried by itself. The addresses are those of the
application, of the links on its pages and of its forms: a new page is walked here without a word, and one whose address
needs a value that is not known here fails until `VALUES` has it.
"""

from __future__ import annotations

import csv
import html
import io
import json
import time
from collections import Counter
from html.parser import HTMLParser
from itertools import product
from urllib.parse import urlencode, urlsplit

import pytest
from composed import Composed
from console_kit import TOKEN, Visit
from running import ALICE, BOB, GENERIC_SECRET, KEY, LEMON_SECRET, ROOT, STRIPE_SECRET, checkout, event
from sqlalchemy import Text, select, update

from bridge.sandbox import sign
from bridge.store import schema
from bridge.store.operator import changes

RIGHT_TO_LEFT = "\u202e"
BREAK_OUT = "\"'></textarea></title></script><xss-element>"
MARKUP = f"{BREAK_OUT}<script>alert(1)</script><img src=x onerror=alert(2)>' onfocus='alert(3)"
HOSTILE = f"=1+1 {MARKUP} {RIGHT_TO_LEFT}gnp.exe \x1b[2J\x07\x7f javascript:alert(4)"
FORMULA = '=HYPERLINK("http://evil.example/","x")'
LONG = "A" * 1_000_000
CUSTOMER, USER, ORDER = f"cus_{MARKUP}", f"user_{MARKUP}", f"order_{MARKUP}"

SHOP = """\
# <script>alert(1)</script> "'><xss-element>
provider: standard-webhooks
secret: ${GENERIC_WEBHOOK_SECRET}
envelope: {type: type}
visitor: [visitor]
links:
  - {path: order, kind: order}
  - {path: customer, kind: customer}
  - {path: user, kind: user}
goals:
  - id: any
    goal: bought
    event: "*"
    metadata: {note: "{note}", formula: "{formula}", link: "{link}", fixed: "<xss-element>"}
  - id: near
    goal: near
    event: "*"
    when: {note: "<script>alert(5)</script><xss-element>"}
tests:
  - name: "<script>alert(6)</script><xss-element>"
    event: {type: "<xss-element>", id: "1", note: x, visitor: 00000000-0000-4000-8000-00000000000a}
    goals: [{goal: bought}]
"""

# Words and keys that the bridge chooses, writes and reads itself, and the JSON of its own.
OWN = {
    "source", "provider", "state", "verdict", "destination", "kind", "outcome", "lease_token", "rules_hash", "hash",
    "handover", "notify", "visitor", "once_key", "dedupe_key", "dedupe_key_2", "what", "thread", "key_fingerprint",
    "pause_kind", "probe_token", "name", "to_prove", "target", "headers", "query", "trace", "signature", "metadata",
    "provenance", "unknown_visitors", "files", "value",
}  # fmt: skip
UNTOLD = {"sessions"}  # every page renews its own


IN_A_FILE = "a-secret-that-stands-in-a-file"
PLAIN = f"""\
provider: custom
verify: {{type: token, signature: {{in: "header:X-Token"}}}}
secret: {IN_A_FILE}
goals: []
"""
MORE = {"BRIDGE_LINKS_TOKEN": "links-token-not-to-be-told", "STRIPE_API_KEY": "rk_live_not_to_be_told"}


class Page(HTMLParser):
    """What a browser would make of an answer, and what is wrong with it."""

    def __init__(self, text):
        super().__init__()
        self.wrong, self.links, self.forms = [], [], []
        self._open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self._judge(tag, given)
        if tag not in VOID:
            self._open.append(tag)
        self.links += [given[name] for name in ("href", "hx-get") if tag != "link" and name in given]
        if tag == "form":
            self.forms.append(Form(given))
        elif tag in ("input", "select", "textarea", "button") and given.get("name") and self.forms:
            self.forms[-1].fields.setdefault(given["name"], given.get("value", ""))

    def _judge(self, tag, given):
        if tag in FOREIGN or (tag == "script" and not given.get("src", "").startswith("/console/static/")):
            self.wrong.append(f"a tag <{tag}>")
        for name, value in given.items():
            if name == "style" or name.startswith(("on", "hx-on", "hx-vals")) or set(name) & set("\"'<"):
                self.wrong.append(f"{name}={value[:40]!r} of <{tag}>")
            if name in ("href", "src", "action", "formaction", "hx-get", "hx-post") and not is_safe(value):
                self.wrong.append(f"{name}={value[:60]!r} of <{tag}>")
            if name != "value" and set(value) & UNSEEN:  # what was entered stands in its field as it was
                self.wrong.append(f"an unseen character in {name} of <{tag}>")

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if self._open[-1:] in (["script"], ["style"]) and data.strip():
            self.wrong.append(f"something inside <{self._open[-1]}>: {data[:40]!r}")
        if set(data) & UNSEEN and "textarea" not in self._open:
            self.wrong.append(f"an unseen character in {self._open[-3:]}")


class Form:
    def __init__(self, given):
        self.method, self.action, self.fields = given.get("method", "get").lower(), given.get("action", ""), {}


UNSEEN = {RIGHT_TO_LEFT, "\x7f", *map(chr, range(32))} - {"\n", "\r", "\t"}
VOID = {"meta", "link", "input", "img", "br", "hr", "wbr", "col"}
FOREIGN = {"xss-element", "iframe", "object", "embed", "base", "style", "audio", "video", "applet"}
KINDS = {
    "text/css", "text/javascript", "image/svg+xml", "text/plain", "text/csv", "text/x-diff", "application/json",
    "application/octet-stream",
}  # fmt: skip
CODES = {200, 302, 303, 304, 400, 404, 405, 409, 413, 414, 422}


def is_safe(address):
    """An address of the console's own, or of a page elsewhere."""
    parts = urlsplit(address)
    return parts.scheme in ("http", "https") or (not parts.scheme and not address.startswith(("//", "\\", "/\\")))


class Walker(Visit):
    """Looks at addresses, and judges whatever comes."""

    def __init__(self, shop):
        super().__init__(shop)
        secrets = {TOKEN, STRIPE_SECRET, LEMON_SECRET, GENERIC_SECRET, KEY, IN_A_FILE, *MORE.values()}
        secrets |= {self.cookie(), *shop.signatures}
        self._told = {word for secret in secrets for word in (secret, html.escape(secret))}

    def look(self, address):
        """The page at this address, None if it is a download."""
        return self.judge(f"GET {address[:300]}", self.get(address))

    def judge(self, asked, answer):
        text, head = answer.get_data(as_text=True), str(answer.headers)
        assert answer.status_code in CODES, (asked, answer.status_code, text[:500])
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, asked
        assert "unsafe" not in policy, asked
        assert answer.headers["X-Content-Type-Options"] == "nosniff", asked
        assert is_safe(answer.headers.get("Location", "/")), asked
        for secret in self._told:
            assert secret not in text, (asked, secret)
            assert secret not in head, (asked, secret)
        if answer.mimetype == "text/html":
            return self._page(asked, text)
        self._download(asked, answer, text)
        return None

    def _page(self, asked, text):
        page = Page(text)
        assert not page.wrong, (asked, page.wrong[:5])
        return page

    def _download(self, asked, answer, text):
        assert answer.mimetype in KINDS, (asked, answer.mimetype)
        if answer.mimetype == "text/csv":
            cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
            assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))], asked
        if answer.mimetype != "text/plain" and "/static/" not in asked:
            assert answer.headers["Content-Disposition"].startswith("attachment"), asked


# -------------------------------------------------------------------------------------------------------- what came in


def of_stripe():
    """Events with every field that a page may show made hostile."""
    sale = checkout(1, ALICE, customer=CUSTOMER, client_reference_id=USER)
    sale["data"]["object"]["metadata"] |= {"note": HOSTILE, MARKUP: HOSTILE, "formula": FORMULA, "plan": FORMULA}
    sale["data"]["object"]["customer_details"] = {"name": HOSTILE, "email": f"{MARKUP}@example.com"}
    refund = {"id": f"ch_{MARKUP}", "object": "charge", "amount_refunded": 500, "currency": "usd"}
    refund |= {"customer": CUSTOMER, "payment_intent": "pi_1", "refunds": {"data": [{"id": f"re_{MARKUP}"}]}}
    yield sale
    yield checkout(2, None, customer=CUSTOMER, long=LONG[:900_000])
    yield event(f"checkout.{HOSTILE}", {"id": HOSTILE, "object": HOSTILE}, f"evt_{HOSTILE}")
    yield event("charge.refunded", refund, "evt_refund")


def of_the_shop():
    texts = dict.fromkeys(("note", "customer_name", "phone"), HOSTILE) | {"email": f"{MARKUP}@example.com"}
    texts |= {"formula": FORMULA, "link": "javascript:alert(4)", "customer": CUSTOMER, "user": USER}
    for number, visitor in enumerate((ALICE, BOB, None, HOSTILE)):
        kind = {"type": HOSTILE if number else "sale", "id": f"{number} {HOSTILE}", "order": f"{ORDER}{number}"}
        yield {**kind, **texts, "visitor": visitor}
    yield {"type": "long", "id": "long", "note": LONG[:400_000], "visitor": ALICE, LONG[:100_000]: LONG[:100_000]}


class HostileShop(Composed):
    """A bridge that was sent all this."""

    def fill(self):
        self.signatures = set()
        now_s = int(time.time())
        for body in (*map(written, of_stripe()), b"{not json " + MARKUP.encode()):
            self.receive("stripe", body, sign.stripe(body, STRIPE_SECRET, now_s))
        for number, body in enumerate(map(written, of_the_shop())):
            self.receive("shop", body, sign.standard_webhooks(body, GENERIC_SECRET, f"msg_{number}", now_s))
        self.client.post("/webhooks/stripe", data=b"{}", headers={"Stripe-Signature": MARKUP})
        self.bridge.counters.flush(self.bridge.store)
        self.bridge._beat()
        self.taint()

    def receive(self, source, body, headers):
        self.signatures |= {headers[name].rpartition("v1")[2][1:] for name in headers if "ignature" in name}
        more = {"User-Agent": f"{MARKUP} =1+1", "X-Request-Id": MARKUP, "Referer": "javascript:alert(1)"}
        address = f"/webhooks/{source}?{urlencode({'note': MARKUP, MARKUP: 'x'})}"
        answer = self.client.post(address, data=body, headers={**headers, **more})
        assert answer.status_code == 200, answer.get_data(as_text=True)
        self.work()

    def taint(self):
        """Every text that is no word of the bridge's own, also where only the bridge's own sentences stand today."""
        with self.bridge.store.write() as conn:
            for number in range(60):
                changes.record(conn, "replay", f"ev_{number}", "It was sent again.")
            for table in schema.metadata.sorted_tables:
                free = [column for column in table.c if isinstance(column.type, Text) and column.name not in OWN]
                for column in free:
                    if not column.primary_key and table.name not in UNTOLD:
                        conn.execute(update(table).values({column: f"{HOSTILE} {FORMULA}"}))
            conn.execute(update(schema.goals).values(name=f"goal_{MARKUP}", rule_id=f"rule_{MARKUP}"))
            conn.execute(update(schema.attempts).values(message=f"{HOSTILE} {LONG}"))
            conn.execute(update(schema.source_counters).values(last_refusal=f"{HOSTILE} {LONG}"))

    def stored(self):
        """Everything but the sessions, and the time of the last proof that the database can be written."""
        with self.bridge.store.read() as conn:
            return {
                table.name: sorted(repr(row) for row in conn.execute(select(table)) if row[0] != "ready_at_ms")
                for table in schema.metadata.sorted_tables
                if table.name not in UNTOLD
            }


def written(told):
    return json.dumps(told).encode()


@pytest.fixture
def shop(console_url, clock, tmp_path):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings/shop.yaml").write_text(SHOP)
    (tmp_path / "mappings/plain.yaml").write_text(PLAIN)
    (tmp_path / "mappings/stripe.yaml").write_text((ROOT / "mappings/stripe.yaml").read_text())
    clock.set(int(time.time()) * 1000)
    with HostileShop(console_url, clock, tmp_path / "mappings", BRIDGE_ADMIN_TOKEN=TOKEN, **MORE) as made:
        made.fill()
        yield made


# ------------------------------------------------------------------------------------------------------------ the walk

NAME = MARKUP.replace("/", "\\")  # an address ends a name at a slash
VALUES = {
    "rest": ("nothing", MARKUP),
    "digest": (NAME,),
    "action": ("retry", "cancel"),
    "bulk_action": ("replay", "retry", "cancel"),
    "name": (
        "shop",
        "plain",
        "stripe",
        NAME,
        "console.css",
        *(f"{kind}_{id_}" for kind in ("ev", "goal") for id_ in range(1, 7)),
    ),
}
ODD = (MARKUP, HOSTILE, "\x00\ufffd", "9" * 40, "-1", "%", "ev_1", LONG[:5_000])
OPEN = {"console.sign_in", "console.sign_in_sent", "console.static_file"}
MOST, OF_A_PATH = 300, 24  # addresses


def addresses(shop, method):
    """The addresses of the console's own routes, by the values that their arguments can have."""
    routes = shop.client.application.url_map
    found = [rule for rule in routes.iter_rules() if rule.endpoint.startswith("console.") and method in rule.methods]
    assert found
    for rule in found:
        lacking = rule.arguments - VALUES.keys()
        assert not lacking, f"{rule.rule}: VALUES has nothing for {sorted(lacking)}"
        names = sorted(rule.arguments)
        for chosen in product(*(VALUES[name] for name in names)):
            yield rule.endpoint, routes.bind("localhost").build(rule.endpoint, dict(zip(names, chosen, strict=True)))


def filled(form, path):
    """The form with something hostile in each of its fields, one after the other and all at once."""
    action = (form.action or path).partition("?")[0]
    for value in ODD:
        for name in form.fields:
            yield f"{action}?{urlencode({**form.fields, name: value})}"
        yield f"{action}?{urlencode(dict.fromkeys(form.fields, value))}"


def follow(page, path):
    """Where a person goes from here without changing anything."""
    yield from (link for link in page.links if link.startswith("/console"))
    yield from (path + link for link in page.links if link.startswith("?"))
    for form in page.forms:
        if form.method == "get":
            yield from filled(form, path)


@pytest.mark.long
def test_no_page_download_or_answer_lets_through_what_came_and_looking_changes_nothing(shop):
    before, walker = shop.stored(), Walker(shop)
    waiting = [address for _, address in addresses(shop, "GET")]
    waiting.append("/console/sign-in?next=javascript:alert(1)")
    seen, tried, changes = set(), Counter(), {}
    routes = len(set(waiting))
    while waiting and len(seen) < MOST:
        address = waiting.pop(0)
        path = urlsplit(address).path
        if address in seen or tried[path] >= OF_A_PATH:
            continue
        seen.add(address)
        tried[path] += 1
        page = walker.look(address)
        if page is not None:
            waiting += follow(page, path)
            changes |= {
                (form.action or path, *form.fields): form.fields for form in page.forms if form.method == "post"
            }
    assert len(seen) >= routes
    assert shop.stored() == before
    token = walker.csrf()
    for (address, *_), fields in changes.items():
        change(walker, address, {**fields, "csrf_token": token})


def change(walker, address, fields):
    """Send a form as it is and with something hostile in each field, and look at where it leads."""
    own = [name for name in fields if name != "csrf_token"]
    for sent in ({}, *({name: value} for value in ODD[:2] for name in own)):
        if not address.endswith(("/sign-out", "/sign-in")):
            answer = walker.post(address, **{**fields, **sent})
            walker.judge(f"POST {address} {sent}"[:300], answer)
            if answer.status_code == 303:
                walker.look(answer.headers["Location"])


def test_no_change_without_a_session_without_its_token_or_with_that_of_another_session(shop):
    before = shop.stored()
    stranger, mine, other = Visit(shop, signed_in=False), Visit(shop), Visit(shop).csrf()
    for endpoint, address in addresses(shop, "POST"):
        if endpoint not in OPEN:
            assert stranger.post(address, csrf_token=other).status_code in (303, 401, 403), address
            for fields in ({}, {"csrf_token": ""}, {"csrf_token": other}, {"csrf_token": TOKEN}):
                assert mine.post(address, **fields).status_code == 403, (address, fields)
    assert mine.get("/console/").status_code == 200  # a refused sign-out ends nothing
    assert shop.stored() == before


def test_no_page_without_a_session_whatever_else_a_request_has(shop):
    for endpoint, address in addresses(shop, "GET"):
        if endpoint not in OPEN:
            for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}, {"Cookie": f"bridge_session={TOKEN}"}):
                answer = Visit(shop, signed_in=False).get(address, headers=headers)
                assert answer.status_code == 303, address
                assert answer.headers["Location"].startswith("/console/sign-in"), address


@pytest.mark.parametrize(
    "breach",
    [
        MARKUP,
        "<p style='color:red'>x</p>",
        "<a href='javascript:alert(1)'>x</a>",
        "<a href='//evil.example'>x</a>",
        "<p onclick='x'>x</p>",
        "<script>1</script>",
        f"<p>{RIGHT_TO_LEFT}x</p>",
        f"<p title='{RIGHT_TO_LEFT}'>x</p>",
        "<p>\x1b[2J</p>",
    ],
)
def test_the_walk_notices(breach):
    assert Page(breach).wrong
    seen = html.escape("".join(character for character in breach if character not in UNSEEN))
    assert not Page(f"<p title='{seen}'>{seen} <input value='{RIGHT_TO_LEFT}'>").wrong
