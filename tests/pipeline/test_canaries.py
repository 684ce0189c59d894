"""A person in every place where ten tools carry one, and where no tool should: nobody who has not asked sees them.

The bodies are those of docs/recipes/samples, with an address, a name and a telephone number wherever the tool has one.
Then every string of four of them becomes an address in turn, as a stranger's form or a careless shop may write it.
"""

from __future__ import annotations

import html
import json
import re
import time
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from itertools import count, cycle
from pathlib import Path
from urllib.parse import unquote, urlencode

import pytest
import structlog
from composed import Composed
from console_kit import TOKEN, Visit
from running import BOB, ROOT
from sources_kit import secret_for
from sqlalchemy import LargeBinary, select

from bridge import logs, rules, sources
from bridge.cli import main
from bridge.identity.people import email_hash
from bridge.model import BodyForm, Request
from bridge.sandbox import sign
from bridge.store import facts, schema

TOOLS = ("clerk", "tally", "calcom", "stripe", "paddle", "polar", "lemonsqueezy", "gumroad", "typeform", "calendly")
MAIL, NAME, PHONE = "Canary.Bird+news@Example.com", "Canaria Birdsong", "+49 151 5550199887"
WRITTEN = (  # an address, as forms, links and keyboards write it
    MAIL, MAIL.upper(), "canary.bird%2Bnews%40example.com", "canäry.bird@exämple.com", "canary.bird\uff20example.com",
    f"https://shop.example/thanks?email={MAIL}&plan=pro", f"mailto:{MAIL}", f"Ann <{MAIL}>",
    '"canary bird"@example.com',
)  # fmt: skip
CANARY = re.compile(r"can[aä]r|birdsong|5550199887", re.IGNORECASE)


def sample(tool):
    return json.loads((ROOT / f"docs/recipes/samples/{tool}.json").read_text("utf-8"))


def question(kind, label, value):
    """An answer of Tally's."""
    return {"key": f"question_{kind}_{label}", "label": label, "type": kind, "value": value}


def clerk(body):
    body["data"] |= {"first_name": "Canaria", "last_name": "Birdsong", "username": "canaria_birdsong"}
    body["data"]["email_addresses"] += [{"id": "idn_2", "email_address": MAIL.upper()}]
    body["data"]["email_addresses"][0]["email_address"] = MAIL
    body["data"]["phone_numbers"] = [{"id": "idn_3", "phone_number": PHONE}]
    body["data"]["external_accounts"] = [{"email_address": MAIL, "first_name": "Canaria", "username": MAIL}]
    body["data"]["public_metadata"] = {"invited_by": MAIL}


def tally(body):
    body["data"]["fields"] += [
        question("INPUT_EMAIL", "E-mail", MAIL), question("INPUT_TEXT", "Your name", NAME),
        question("INPUT_PHONE_NUMBER", "Phone", PHONE), question("HIDDEN_FIELDS", "email", MAIL),
        question("TEXTAREA", "Anything else?", f"Write to {MAIL}\nor to {MAIL.upper()}."),
        question("MULTIPLE_CHOICE", "Guests", [MAIL, MAIL.lower()]),
    ]  # fmt: skip


def calcom(body):
    person = {"email": MAIL, "name": NAME, "firstName": "Canaria", "lastName": "Birdsong", "phoneNumber": PHONE}
    answers = {"email": MAIL, "name": NAME, "attendeePhoneNumber": PHONE, "guests": [MAIL.lower()]}
    body["payload"] |= {
        "attendees": [person], "organizer": {"email": MAIL.lower(), "name": NAME}, "userPrimaryEmail": MAIL,
        "title": f"Demo between Team and {MAIL}", "description": MAIL, "location": f"https://cal.example/?e={WRITTEN[2]}",
        "responses": {name: {"label": name, "value": value} for name, value in answers.items()},
        "userFieldsResponses": {"E-mail": {"label": "E-mail", "value": MAIL}},
    }  # fmt: skip


def stripe(body):
    details = {"email": MAIL, "name": NAME, "phone": PHONE, "address": {"line1": "5550199887 Birdsong Road"}}
    body["data"]["object"] |= {
        "customer_details": details, "customer_email": MAIL.upper(), "receipt_email": MAIL, "shipping_details": details,
        "metadata": {"email": MAIL, "customer_name": NAME, "note": f"for {MAIL}", "userId": MAIL},
        "custom_fields": [{"key": "email", "type": "text", "text": {"value": MAIL}}],
        "success_url": f"https://shop.example/?email={WRITTEN[2]}",
    }  # fmt: skip


def paddle(body):
    body["data"] |= {"customer": {"id": "ctm_01", "email": MAIL, "name": NAME}, "receipt_data": MAIL}
    body["data"]["custom_data"] |= {"email": MAIL, "userEmail": MAIL.upper(), "user_id": WRITTEN[2]}


def polar(body):
    body["data"]["customer"] |= {"email": MAIL, "name": NAME, "billing_address": {"line1": "Birdsong Road"}}
    body["data"] |= {"customer_email": MAIL, "customer_name": NAME, "user": {"email": MAIL, "public_name": NAME}}
    body["data"]["metadata"] |= {"email": MAIL}
    body["data"]["customer"]["external_id"] = MAIL


def lemonsqueezy(body):
    body["data"]["attributes"] |= {"user_email": MAIL, "user_name": NAME}
    body["data"]["attributes"]["urls"] = {"receipt": f"https://lemon.example/{WRITTEN[2]}?signature=1"}
    body["meta"]["custom_data"] |= {"email": MAIL, "user_id": MAIL}


def gumroad(body):
    body |= {"email": MAIL, "full_name": NAME, "Phone": PHONE, "custom_fields[Name]": NAME, "url_params[email]": MAIL}
    body |= {"ip_country": "Germany", "referrer": f"https://shop.example/?email={MAIL}", "gift_sender_email": MAIL}


def typeform(body):
    answers = {"email": MAIL, "text": NAME, "phone_number": PHONE, "url": f"https://x.example/?e={MAIL}"}
    body["form_response"]["answers"] = [
        {"type": kind, kind: value, "field": {"id": f"f_{kind}", "type": kind, "ref": kind}}
        for kind, value in answers.items()
    ]
    body["form_response"]["hidden"] |= {"email": MAIL, "user_email": MAIL.upper(), "name": NAME}
    body["form_response"]["answers"] += [{"type": "choices", "choices": {"labels": [MAIL]}, "field": {"id": "f9"}}]


def calendly(body):
    body["payload"] |= {
        "email": MAIL, "name": NAME, "first_name": "Canaria", "last_name": "Birdsong", "text_reminder_number": PHONE,
        "questions_and_answers": [{"question": "Phone", "answer": PHONE}, {"question": "Mail", "answer": MAIL}],
        "cancel_url": f"https://calendly.example/cancellations/1?email={WRITTEN[2]}",
    }  # fmt: skip
    body["payload"]["scheduled_event"]["event_guests"] = [{"email": MAIL.lower()}]
    body["payload"]["tracking"]["utm_term"] = MAIL


PUT = (clerk, tally, calcom, stripe, paddle, polar, lemonsqueezy, gumroad, typeform, calendly)


def with_a_person(tool):
    body = sample(tool)
    dict(zip(TOOLS, PUT, strict=True))[tool](body)
    return body


def leaves(value, place=()):
    """Where the strings of a document are."""
    if isinstance(value, str):
        yield place
    elif isinstance(value, dict | list):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(below, (*place, name))


NAMED_BY = {"stripe": "id", "tally": "eventId", "calcom": "createdAt", "gumroad": "sale_id"}  # else it is a repeat
SOLD = {"product_name", "formName", "title", "name", "type", "event", "amount_total", "currency", "price", "variants"}


def hostile():
    """Every string of some tools' bodies as an address in turn, but what one sells and the form that was filled in."""
    written, numbers = cycle(WRITTEN), count(1)
    for tool in ("stripe", "tally", "calcom", "gumroad"):
        for place in leaves(sample(tool)):
            if place[-1] not in SOLD - {"type", "event"} and (tool, place[-1]) != ("calcom", "type"):
                body = sample(tool) | {NAMED_BY[tool]: f"a_{next(numbers)}"}
                holder = body
                for name in place[:-1]:
                    holder = holder[name]
                holder[place[-1]] = next(written)
                yield tool, body
    for address in WRITTEN:
        body = sample("stripe")
        body["id"] = f"evt_{len(address)}_{address}"
        body["data"]["object"]["metadata"] = {address: "yes", "datafast_visitor_id": address}
        yield "stripe", body


class Tools(Composed):
    """A bridge that knows the ten tools, and is sent what they send."""

    def __init__(self, url, clock, folder, **environ):
        folder.mkdir()
        for tool in TOOLS:
            shipped = ROOT / "mappings" / f"{tool}.yaml"
            example = ROOT / "mappings/examples" / f"{tool}.yaml"
            (folder / f"{tool}.yaml").write_bytes((shipped if shipped.exists() else example).read_bytes())
        files = {file.name: file.read_text("utf-8") for file in folder.iterdir()}
        self._compiled = rules.load(files, {}, sources.presets()).sources
        self.secrets = {f"{tool.upper()}_WEBHOOK_SECRET": secret_for(self._compiled[tool].verify) for tool in TOOLS}
        super().__init__(url, clock, folder, BRIDGE_ADMIN_TOKEN=TOKEN, **self.secrets, **environ)
        self._ids = count(1)
        self.answers = []

    def send(self, tool, body, query="", **headers):
        source = self._compiled[tool]
        raw = urlencode(body).encode() if source.body is BodyForm.FORM else json.dumps(body).encode()
        kind = "application/x-www-form-urlencoded" if source.body is BodyForm.FORM else "application/json"
        path = f"/webhooks/{tool}"
        request = Request("POST", f"http://localhost{path}?{query}", path, query, {"content-type": kind}, raw)
        secret = self.secrets[f"{tool.upper()}_WEBHOOK_SECRET"]
        signed = sign.by_scheme(source.verify, request, secret, f"msg_{next(self._ids)}", int(time.time()))
        address = f"{path}?{signed.query_string}" if signed.query_string else path
        answer = self.client.post(address, data=signed.body, headers={**signed.headers, **headers})
        self.answers.append(answer)
        return answer

    def spoil(self, tool):
        """What is refused, cannot be read, or is for nobody, always with an address."""
        for path in (
            f"/webhooks/{tool}",
            f"/webhooks/{MAIL}",
            f"/{MAIL}?e={MAIL}",
            f"/links/{tool}",
            f"/console/{MAIL}",
        ):
            for headers in ({}, {"Authorization": f"Bearer {MAIL}"}, {"X-Signature": MAIL, "Stripe-Signature": MAIL}):
                self.answers.append(self.client.post(path, data=json.dumps({"email": MAIL}), headers=headers))
        self.answers.append(self.client.get(f"/status?{urlencode({'e': MAIL})}", headers={"Authorization": MAIL}))

    def quarantine(self):
        """An authentic body that is no document."""
        raw, now_s = f"{{not json {MAIL}".encode(), int(time.time())
        headers = sign.stripe(raw, self.secrets["STRIPE_WEBHOOK_SECRET"], now_s)
        self.answers.append(self.client.post("/webhooks/stripe", data=raw, headers=headers))


@pytest.fixture(params=["on", pytest.param("off", marks=pytest.mark.long)])
def tools(request, console_url, clock, tmp_path, capfd):
    clock.set(int(time.time()) * 1000)
    logs.configure("json")
    with Tools(console_url, clock, tmp_path / "mappings", BRIDGE_MATCH_EMAIL=request.param) as made:
        yield made
    structlog.reset_defaults()


def spelled(text):
    """A text as it is, and as it was before it was escaped, however often."""
    for _ in range(3):
        yield unicodedata.normalize("NFKC", text)
        escaped = text
        text = unquote(html.unescape(re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)))
        if text == escaped:
            return


def canaries(text):
    """What of the person a text tells, with what is around it."""
    return {found[max(0, at.start() - 60) : at.end() + 30] for found in spelled(text) for at in CANARY.finditer(found)}


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("href", "hx-get") and value and tag != "link"]


REVEALED = re.compile(r"show=personal|/body$|/static/")


def pages(bridge, most=20):
    """Pages of the console that links lead to, but those on which somebody asks for the person. most: of each kind."""
    visit, seen, todo = Visit(bridge), Counter(), ["/console/", "/console/people", "/console/activity?kind=events"]
    while todo:
        address = html.unescape(todo.pop(0)).partition("#")[0]
        kind = re.sub(r"[?/](?=[^/]*$).*", "", address.removeprefix("/console/"))
        if seen[address] or seen[kind] >= most or not address.startswith("/console") or REVEALED.search(address):
            continue
        seen.update({address, kind})
        answer = visit.get(address)
        assert answer.status_code < 500, address
        text = answer.get_data(as_text=True)
        yield address, f"{text} {answer.headers.get('Location', '')}"
        if answer.mimetype == "text/html":
            todo += [link for link in Links(text).found if not seen[link]]
    assert seen["events"] > 5
    assert seen["people"] > 5


def told(bridge, capfd):
    """Everything that a bridge says to somebody: (where, text)."""
    logs.flush(10)
    captured = capfd.readouterr()
    yield "log", captured.err + captured.out
    for number, answer in enumerate(bridge.answers):
        yield f"answer {number}", f"{answer.headers} {answer.get_data(as_text=True)}"
    for path in ("/metrics", "/status", "/readyz", "/healthz"):
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
            yield path, bridge.client.get(path, headers=headers).get_data(as_text=True)
    yield "goals", json.dumps([[goal.name, goal.description, goal.metadata] for goal in bridge.datafast.world.goals()])
    yield from pages(bridge)


def stored(bridge, *but):
    """Each text of the database beside the stored requests: (where, text)."""
    with bridge.bridge.store.read() as conn:
        for table in schema.metadata.sorted_tables:
            columns = [column for column in table.c if not isinstance(column.type, LargeBinary)]
            for column in columns:
                place = f"{table.name}.{column.name}"
                if place not in but:
                    yield place, "\n".join(str(row[0]) for row in conn.execute(select(column)))


REQUEST = ("events.headers", "events.query", "rulesets.files", "ruleset.files")


IDS = (  # what is unique by an id keeps it, and so do a trace of 30 days and what leads to a purchase
    "events.provider_event_id", "events.dedupe_key", "events.dedupe_key_2", "events.trace", "goals.once_key",
    "link_events.key", "link_keys.key", "link_keys.ref", "link_keys.thread", "link_visitors.key", "goal_keys.key",
    "goals.provenance", "goals.metadata",
)  # fmt: skip


def play(bridge, sent):
    for tool, body in sent:
        answer = bridge.send(tool, body)
        assert answer.status_code in (200, 204), (tool, body)
    bridge.work()
    bridge.later(3 * 60_000)
    bridge.bridge.counters.flush(bridge.bridge.store)


def leaks(texts):
    return {where: found for where, text in texts if (found := canaries(text))}


def test_nobody_sees_a_person_whom_the_tools_told_of(tools, capfd):
    tools.quarantine()
    tools.spoil("stripe")
    play(tools, [(tool, with_a_person(tool)) for tool in TOOLS])
    assert len({goal.name for goal in tools.goals()}) >= 4
    assert leaks(told(tools, capfd)) == {}
    assert leaks(stored(tools, *REQUEST)) == {}


@pytest.mark.long
@pytest.mark.parametrize("tools", ["on"], indirect=True)
def test_nobody_sees_an_address_that_is_where_no_address_belongs(tools, capfd):
    play(tools, hostile())
    in_the_url = {"email": MAIL, MAIL: MAIL, "next": f"https://shop.example/?email={WRITTEN[2]}"}
    tools.send("calcom", with_a_person("calcom"), urlencode(in_the_url), Referer=WRITTEN[5], **{"X-Contact": MAIL})
    tools.work()
    assert leaks(told(tools, capfd)) == {}
    assert leaks(stored(tools, *REQUEST, *IDS)) == {}


# ------------------------------------------------------------------------------------------------------- forgotten


@pytest.fixture
def forget(tools, monkeypatch, capfd):
    for name, value in tools.environ.items():
        monkeypatch.setenv(name, value)

    def run(*words):
        code = main(["forget", *words, "--yes"])
        assert code == 0, capfd.readouterr()

    return run


def everything(bridge):
    """All that the database holds, and the key of its hashes."""
    with bridge.bridge.store.read() as conn:
        rows = [repr(tuple(row)) for table in schema.metadata.sorted_tables for row in conn.execute(select(table))]
        key = facts.get(conn, facts.EMAIL_KEY)
    return "\n".join(rows), key


@pytest.mark.long
def test_after_forget_there_is_no_trace_of_an_address_however_it_was_written(tools, forget):
    play(tools, [(tool, with_a_person(tool)) for tool in TOOLS])
    play(tools, ((tool, body) for tool, body in hostile()))
    play(tools, [("stripe", {**sample("stripe"), "id": "evt_other", "data": {"object": other()}})])
    before, key = everything(tools)
    hashed = email_hash(MAIL, key.encode()) if key else None
    assert "Birdsong" in before
    assert (hashed is not None and hashed in before) == (tools.environ["BRIDGE_MATCH_EMAIL"] == "on")
    forget("--email", MAIL.lower())
    left, _ = everything(tools)
    assert hashed is None or hashed not in left
    hers = re.compile(r".{0,40}(?<!jo)canary\.bird\+news.{0,20}", re.IGNORECASE)
    assert [found for text in spelled(left) for found in hers.findall(text)] == []
    for file in in_files(tools):
        assert hers.search(file) is None
        assert hashed is None or hashed not in file
    assert "Birdsong" not in left
    for kept in ("jocanary.bird+news@example.com", BOB):
        assert kept in left


def in_files(bridge):
    """What is in the files of a SQLite database: also what it has freed."""
    kind, _, path = bridge.environ["DATABASE_URL"].partition("///")
    files = Path(path).parent.glob(f"{Path(path).name}*") if kind == "sqlite:" else ()
    return [file.read_bytes().decode("latin-1") for file in files]


def other():
    """The purchase of somebody else, whose address ends like hers."""
    body = sample("stripe")["data"]["object"]
    details = {"email": "jocanary.bird+news@example.com", "name": "Jo"}
    return body | {
        "id": "cs_live_other", "customer": "cus_other", "subscription": "sub_other", "customer_details": details,
        "client_reference_id": f"dfv_{BOB}",
    }  # fmt: skip
