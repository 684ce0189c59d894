"""The console's people: looked for, seen on one page over all tools, bound, cut and forgotten."""

from __future__ import annotations

import html
import re
from urllib.parse import quote, unquote

import pytest
from composed import Composed
from console_kit import TOKEN, Visit
from identity_kit import ALICE, BOB, SECRETS, Rig
from sqlalchemy import select, update
from test_people_across_tools import FILES, checkout, customer, form, refund, renewal, sign_up

from bridge.store import schema

MAIL = "canary.ann@example.com"
HOSTILE = [
    "../../status",
    "..",
    "<script>alert(1)</script>",
    "x" * 500,
    "\u202ecus_1\u202c",
    "%00",
    "\x00cus",
    "a/b//c/",
    "'; DROP TABLE goals; --",
    "{{ 7*7 }}",
    "javascript:alert(1)",
    "ev_99999999999999999999",
    "\ud7ff\U0001f600",
]


class Shop:
    """A bridge with its console, and a rig that routes events into the same database."""

    def __init__(self, console, clock):
        self.console, self.visit = console, Visit(console)
        self.rig = Rig(console.bridge.store, clock, FILES, destinations=("default", "other"), BRIDGE_MATCH_EMAIL="on")
        self.see = self.visit.get

    def play(self, *events):
        for source, body in events:
            self.rig.route(body, source=source)
        self.rig.later(3 * 60_000)

    def page(self, name, code=200):
        answer = self.visit.get(f"/console/people/{quote(name, safe='')}", follow_redirects=True)
        assert answer.status_code == code, answer.text
        return html.unescape(answer.text)

    def find(self, text):
        return self.visit.change("/console/people", who=text)

    def changes(self):
        return [(row.what, row.about, row.sentence) for row in self.rig.rows(schema.changes)]

    def notice(self, answer):
        assert answer.status_code == 303, answer.text
        return html.unescape(self.visit.get(answer.location).text)


@pytest.fixture
def shop(console_url, clock, tmp_path):
    folder = tmp_path / "mappings"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    environ = {"BRIDGE_ADMIN_TOKEN": TOKEN, "BRIDGE_MATCH_EMAIL": "on", **SECRETS}
    with Composed(console_url, clock, mappings=folder, **environ) as console:
        yield Shop(console, clock)


# ------------------------------------------------------------------------------------------------------- one person


def paid(number=1, **fields):
    return checkout(number, customer_details={"email": MAIL}, **fields)


@pytest.mark.parametrize(
    "who",
    [
        "user_abc",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("cus_1", "user:default:live:user_abc", ALICE.upper())),
        MAIL,
    ],
)
def test_one_page_shows_a_person_over_all_tools(shop, who):
    shop.play(form(mail=MAIL), sign_up(mail=MAIL), paid(user="user_abc"), renewal(), refund())
    shop.play(checkout(7, customer="cus_7"), checkout(8, BOB, customer="cus_8"))  # of others
    page = shop.page(who)
    line = page.partition("Timeline")[2]
    for word in ("checkout.session.completed", "invoice.paid", "charge.refunded", "goal_", "via user user_abc"):
        assert word in line, word
    assert sorted(map(int, re.findall(r"/console/events/ev_(\d+)", line))) == [1, 2, 3, 4, 5]
    assert "stripe:live:cus_1" in page
    assert f"/console/people/{ALICE}" in page
    assert MAIL not in page


def test_the_page_says_what_why_says(shop, monkeypatch, capfd):
    from bridge.cli import main

    shop.play(sign_up(), paid(user="user_abc"), renewal())
    for name, value in shop.console.environ.items():
        monkeypatch.setenv(name, value)
    page = re.sub("</?time[^>]*>", "", " ".join(shop.page("cus_1").split()))
    assert main(["why", "cus_1"]) == 0
    keys, _, rest = capfd.readouterr().out.partition("Visitors")
    for key in re.findall(r"\S+:live:\S+", keys):
        assert (key.rpartition(":")[2][:12] if key.startswith("email:") else key) in page
    for told in re.findall(r"named by .*", rest) + re.findall(r"goal_\d+ \w+ to \S+", rest):
        assert " ".join(told.split()) in page, told


def test_an_event_that_named_a_visitor_under_two_keys_is_told_once(shop):
    shop.play(sign_up(), paid(user="user_abc"))
    named = re.findall(r"named by ([^,<]+)", shop.page("user_abc"))
    assert named == ["clerk user.created ev_1"]


def test_an_address_is_looked_for_by_its_hash_and_stands_nowhere(shop, capfd):
    shop.play(form(mail=MAIL))
    capfd.readouterr()
    answer = shop.find(f"  {MAIL.upper()} ")
    assert answer.status_code == 303
    assert re.fullmatch(r"/console/people/[0-9a-f]{64}", answer.location)
    page = shop.see(answer.location)
    assert "An e-mail address" in page.text
    assert MAIL not in page.text.lower()
    told = capfd.readouterr()
    assert MAIL not in (told.out + told.err).lower()
    assert shop.see(f"/console/people/{MAIL}").location == answer.location
    assert shop.see(f"/console/people?who={MAIL}").location == answer.location
    assert "an e-mail address" in shop.see("/console/people").text
    unknown = shop.find("ben@example.com")
    assert "ben@" not in unknown.location
    assert shop.see(unknown.location).status_code == 404


def test_a_key_that_is_an_address_is_masked_and_found_by_an_event_of_its(shop):
    shop.play(checkout(1, ALICE, customer=MAIL))
    answer = shop.find(MAIL)
    assert answer.location == "/console/people/ev_1"
    for path in (answer.location, "/console/people", "/console/changes", f"/console/people/{ALICE}"):
        page = shop.see(path).text
        assert MAIL not in page
    assert "c…@…" in shop.see(answer.location).text
    forget = shop.see(f"/console/people/forget?person={MAIL}")
    assert forget.location == "/console/people/forget?person=ev_1"
    assert MAIL not in shop.see(forget.location).text


def test_without_a_remembered_address_it_says_why(console):
    visit = Visit(console)
    answer = visit.change("/console/people", who=MAIL)
    assert answer.location == "/console/people"
    assert "once BRIDGE_MATCH_EMAIL is on" in visit.get(answer.location).text


def test_money_is_added_up_per_currency_each_event_once(shop):
    shop.play(paid(1, visitor=ALICE), checkout(2, ALICE), renewal(), refund())
    money = {1: ("29.00", "usd"), 2: ("1200.50", "eur"), 3: ("29.00", "usd"), 4: ("-9", "usd")}
    with shop.rig.store.write() as conn:
        for number, (amount, currency) in money.items():
            values = {"metadata": f'{{"amount": "{amount}", "currency": "{currency}"}}'}
            conn.execute(update(schema.goals).where(schema.goals.c.id == number).values(values))
        again = dict(conn.execute(select(schema.goals).where(schema.goals.c.id == 1)).one()._mapping)
        conn.execute(schema.goals.insert().values(again | {"id": 9, "once_key": "twice", "name": "again"}))
    page = re.sub(r"<[^>]+>", " ", shop.page("cus_1").partition('class="figures few"')[2].partition("Visitors")[0])
    assert re.findall(r"[-\d.,]+ [A-Z]{3}", " ".join(page.split())) == ["1,200.50 EUR", "49 USD"]


def test_a_visitor_of_two_customers_is_shown_as_shared(shop):
    shop.play(checkout(1, ALICE), checkout(2, ALICE, customer="cus_2"), checkout(3, BOB, customer="cus_3"))
    page = shop.page("cus_1")
    shared = page.partition("Shared with others")[2].partition("</section>")[0]
    assert "customer cus_2" in shared
    assert "cus_3" not in shared
    assert "Shared with others" not in shop.page("cus_3")


def test_many_events_come_a_page_at_a_time_each_once(shop):
    shop.play(checkout(1, ALICE))
    with shop.rig.store.write() as conn:
        row = dict(conn.execute(select(schema.events).where(schema.events.c.id == 1)).one()._mapping)
        rows = [row | {"id": number, "dedupe_key": f"k{number}"} for number in range(2, 131)]
        conn.execute(schema.events.insert(), rows)
        edges = [{"key": "stripe:live:cus_1", "event_id": n, "element": e} for n in range(2, 131) for e in (0, 1)]
        conn.execute(schema.link_events.insert(), edges)
    seen, address, pages = [], "/console/people/cus_1", 0
    while address:
        page = html.unescape(shop.see(address).text)
        line = page.partition('id="line"')[2]
        seen += map(int, re.findall(r'/console/events/ev_(\d+)"', line))
        earlier = re.search(r'href="([^"]+)">Earlier', line)
        address, pages = earlier and earlier[1], pages + 1
    assert sorted(seen) == list(range(1, 131))
    assert pages == 3


def test_the_people_of_late_are_listed_with_their_visitors(shop):
    assert "Nobody yet" in shop.see("/console/people").text
    shop.play(sign_up(), checkout(1, BOB), customer("cus_9"))
    page = html.unescape(shop.see("/console/people").text)
    assert "/console/people/user:default:live:user_abc" in page
    assert "/console/people/stripe:live:cus_1" in page
    assert f"/console/people/{BOB}" in page
    assert "none yet" in page


# ---------------------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize("name", [*HOSTILE[:2], *(pytest.param(one, marks=pytest.mark.long) for one in HOSTILE[2:])])
def test_a_hostile_id_is_unknown_and_harmless(shop, name):
    page = shop.page(name, code=404) if name != ".." else html.unescape(shop.see("/console/people?who=..").text)
    assert "Nobody is known by this id" in page
    assert "<script>alert" not in shop.see(f"/console/people/{quote(name, safe='')}").text
    assert "\u202e" not in page
    answer = shop.find(name)
    assert answer.status_code == 303
    assert answer.location.startswith("/console/people")
    assert shop.see(answer.location).status_code in (404, 200)
    for action in ("bind?key=", "bind?event=", "forget?key=", "forget?person=", "bind?visitor=a&key="):
        assert shop.see(f"/console/people/{action}{quote(name, safe='')}").status_code in (200, 400)
    for path, field in (("bind", "key"), ("forget", "key"), ("forget", "person")):
        sent = shop.visit.change(f"/console/people/{path}", **{field: name, "visitor": name, "found": name})
        assert sent.status_code == 400
    assert shop.changes() == []


@pytest.mark.parametrize(
    "name",
    [
        "../../status",
        "<script>alert(1)</script>",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("\u202ecus", "a/b//c/", "..", "x?y#z&amp;")),
    ],
)
def test_a_customer_with_a_hostile_id_has_a_page_to_which_every_link_leads(shop, name):
    shop.play(checkout(1, ALICE, customer=name))
    found = shop.find(name)
    here = shop.see(found.location)
    assert here.status_code in (200, 404)
    if name.isprintable():
        assert here.status_code == 200
        assert "checkout.session.completed" in here.text
        page = shop.see("/console/people").text
        (link,) = [one for one in re.findall(r'href="(/console/people[^"]+)"', page) if "stripe" in one]
        assert "checkout.session.completed" in shop.see(html.unescape(link)).text
        for one in (link, found.location):  # a browser would take dots and double slashes of a path for its own
            assert not {"", ".", ".."} & set(unquote(one.partition("?")[0]).split("/")[1:]), one
    assert "<script>alert" not in here.text
    assert "\u202e" not in here.text


# ------------------------------------------------------------------------------------------------------------- bind


def test_a_binding_is_shown_before_it_is_made_and_sends_what_waits(shop):
    shop.play(checkout(1), renewal())
    ask = f"/console/people/bind?key=stripe:live:cus_1&visitor={ALICE}"
    preview = html.unescape(shop.see(ask).text)
    assert "2 goals are sent now" in preview
    assert "goal_1 purchase: is sent now" in preview
    assert [goal.state for goal in shop.rig.goals()] == ["parked", "parked"]
    assert shop.rig.rows(schema.link_visitors) == []
    assert shop.changes() == []
    answer = shop.visit.change("/console/people/bind", key="stripe:live:cus_1", visitor=f" {ALICE} ")
    assert answer.location == "/console/people/stripe:live:cus_1"
    assert "stripe:live:cus_1 leads to" in shop.notice(answer)
    assert [(goal.state, goal.visitor) for goal in shop.rig.goals()] == [("pending", ALICE)] * 2
    assert shop.changes() == [("bind", "stripe:live:cus_1", f"stripe:live:cus_1 leads to {ALICE}.")]


def test_an_event_offers_its_keys_the_most_telling_first(shop):
    shop.play(checkout(1, customer_details={"email": MAIL}))
    page = shop.see("/console/people/bind?event=ev_1").text
    keys = re.findall(r'name="key" value="([^"]+)"', page)
    assert keys[0] == "stripe:live:sub_1"
    assert "stripe:live:cus_1" in keys
    assert not any("email" in key for key in keys)
    assert "no key to bind" in shop.see("/console/people/bind?event=ev_7").text


def test_a_user_is_offered_only_where_users_find_somebody(shop, console_url, clock, tmp_path):
    shop.play(checkout(1, user="user_abc"))
    assert "user:default:live:user_abc" in shop.see("/console/people/bind?event=ev_1").text
    environ = {"BRIDGE_ADMIN_TOKEN": TOKEN, "BRIDGE_MATCH_USER": "off", **SECRETS}
    with Composed(console_url, clock, mappings=tmp_path / "mappings", **environ) as other:
        page = Visit(other).get("/console/people/bind?event=ev_1").text
        assert "stripe:live:cus_1" in page
        assert "user:default" not in page


@pytest.mark.parametrize("visitor", ["x y", "<script>", "\u202e", "v" * 300])
def test_what_is_no_visitor_is_not_bound(shop, visitor):
    shop.play(checkout(1))
    answer = shop.see(f"/console/people/bind?key=stripe:live:cus_1&visitor={quote(visitor)}")
    assert answer.status_code == 400
    assert "datafast_visitor_id" in answer.text
    sent = shop.visit.change("/console/people/bind", key="stripe:live:cus_1", visitor=visitor)
    assert sent.status_code == 400
    assert shop.changes() == []


@pytest.mark.parametrize("path", ["bind", "forget"])
def test_no_change_without_the_token_of_the_session_or_by_get(shop, path):
    shop.play(checkout(1, ALICE))
    fields = {"key": "stripe:live:cus_1", "visitor": BOB, "person": "cus_1"}
    assert shop.visit.post(f"/console/people/{path}", **fields).status_code == 403
    assert (
        shop.visit.post(f"/console/people/{path}", csrf_token=Visit(shop.console).csrf(), **fields).status_code == 403
    )
    shop.see(f"/console/people/{path}?csrf_token={shop.visit.csrf()}&key=stripe:live:cus_1&visitor={BOB}")
    assert shop.changes() == []
    assert {row.visitor for row in shop.rig.rows(schema.link_visitors)} == {ALICE}


def test_an_address_that_many_share_brings_nobody_else_onto_a_page(shop):
    shop.play(
        *(
            checkout(number, ALICE if number == 1 else BOB, customer=f"cus_{number}", customer_details={"email": MAIL})
            for number in range(1, 6)
        )
    )
    text = shop.page(ALICE)
    assert "an e-mail address was seen with more than three customers of stripe" in text
    assert [name for name in ("cs_1", "cs_2", "cs_5", BOB) if name in text] == ["cs_1"]


# ---------------------------------------------------------------------------------------------------- cut and forget


def test_a_cut_key_says_first_which_goals_look_again(shop):
    shop.play(sign_up(), checkout(user="user_abc"), renewal())
    key = "user:default:live:user_abc"
    preview = html.unescape(shop.see(f"/console/people/forget?key={key}").text)
    assert "goal_3 paid to" in preview
    assert re.search(r"have [23] goals look for a visitor again", preview)
    assert shop.rig.rows(schema.link_keys, schema.link_keys.c.key == key)[0].stopped_at_ms is None
    answer = shop.visit.change("/console/people/forget", key=key)
    assert f"{key} is cut" in shop.notice(answer)
    assert {goal.name: goal.state for goal in shop.rig.goals()}["paid"] == "parked"
    assert [what for what, _, _ in shop.changes()] == ["forget key"]
    shop.visit.change("/console/people/forget", key=key)  # a second click does no harm
    assert shop.visit.change("/console/people/forget", key="stripe:live:cus_77").status_code == 400


@pytest.mark.parametrize("who", [MAIL, *(pytest.param(one, marks=pytest.mark.long) for one in ("user_abc", ALICE))])
def test_a_forgotten_person_leaves_nothing(shop, who):
    shop.play(sign_up(mail=MAIL), paid(user="user_abc"), renewal())
    shop.play(form(BOB, "other@example.com"), sign_up("user_abcd", BOB, "other@example.com"))
    shop.visit.change("/console/people/bind", key="stripe:live:cus_1", visitor=ALICE)
    name = shop.find(who).location.rpartition("/")[2] if "@" in who else who
    person = forgettable(shop, name)
    assert f"{ALICE}" in person["page"]
    assert "Remove 3 events, 3 goals" in person["page"]
    answer = shop.visit.change("/console/people/forget", person=name, found=person["found"])
    assert "Removed: 3 events, 3 goals" in shop.notice(answer)
    left = everything(shop)
    for text in (MAIL, ALICE, "user_abc'", "cus_1", "cs_1"):
        assert text not in left, text
    assert "user_abcd" in left
    assert BOB in left
    assert [what for what, _, _ in shop.changes()] == ["forget"]
    shop.page(name, code=404)
    assert shop.visit.change("/console/people/forget", person=name).status_code == 400


def test_whoever_mentions_the_person_is_said_apart_and_loses_a_body_only(shop):
    shop.play(sign_up(visitor=BOB, mail=MAIL), checkout(1, ALICE, metadata={"userId": "user_9", "by": "user_abc"}))
    person = forgettable(shop, "user_abc")
    assert "and the body of 1 event of others?" in person["page"]
    assert "1 event of others mentions this person: it loses its body" in person["page"]
    assert ALICE not in person["page"]
    shop.visit.change("/console/people/forget", person="user_abc", found=person["found"])
    assert "user_abc" not in everything(shop)
    assert [(row.body, row.verdict) for row in shop.rig.rows(schema.events)] == [(None, "matched")] * 2
    assert [goal.visitor for goal in shop.rig.goals()] == [None, ALICE]
    assert "user_9" in shop.page(ALICE)


def test_who_else_is_forgotten_is_said_before(shop):
    shop.play(checkout(1, ALICE), checkout(2, ALICE, customer="cus_2"), checkout(3, BOB, customer="cus_3"))
    page = forgettable(shop, "cus_1")["page"]
    assert "Remove 2 events" in page
    assert "cus_2" in page.partition("everyone whom the links lead to")[2]
    assert "cus_3" not in page
    assert "everyone whom the links lead to" not in forgettable(shop, "cus_3")["page"]


def test_bodies_to_which_no_link_leads_are_found_part_by_part(shop):
    shop.play(checkout(1, ALICE))
    with shop.rig.store.write() as conn:
        row = dict(conn.execute(select(schema.events).where(schema.events.c.id == 1)).one()._mapping)
        holds = {2: b'{"note": "CUS_1"}', 2_100: b'{"a": "cus_1"}', 2_101: b'{"a": "cus_12"}'}
        conn.execute(
            schema.events.insert(),
            [
                row | {"id": number, "dedupe_key": f"k{number}", "body": holds.get(number, b"{}"), "trace": None}
                for number in range(2, 2_202)
            ],
        )
    person = forgettable(shop, "cus_1")
    assert person["found"] == "2,2100"
    assert person["pages"] > 1
    shop.visit.change("/console/people/forget", person="cus_1", found=person["found"])
    gone = [row.id for row in shop.rig.rows(schema.events) if row.body is None]
    assert gone == [1, 2, 2_100]


def test_an_address_is_found_in_bodies_by_its_hash(shop):
    shop.play(form(mail=MAIL))
    forms = [MAIL.upper(), MAIL.replace("@", "\\u0040"), MAIL.replace("@", "%40"), f"<{MAIL}>", f"x{MAIL}", "a@b.co"]
    with shop.rig.store.write() as conn:
        row = dict(conn.execute(select(schema.events).where(schema.events.c.id == 1)).one()._mapping)
        rows = [
            row | {"id": number, "dedupe_key": f"k{number}", "body": f'{{"by": "{form_}"}}'.encode(), "trace": None}
            for number, form_ in enumerate(forms, 2)
        ]
        conn.execute(schema.events.insert(), rows)
    name = shop.find(MAIL).location.rpartition("/")[2]
    assert forgettable(shop, name)["found"] == "2,3,4,5"


def forgettable(shop, name):
    """Follow the pages that look through bodies, as a browser without JavaScript would."""
    address, pages = f"/console/people/forget?person={quote(name)}", 0
    while True:
        page = html.unescape(shop.see(address).text)
        pages += 1
        further = re.search(r'href="([^"]+)">Continue', page)
        if further is None:
            return {"page": page, "pages": pages, "found": re.search(r'name="found" value="([^"]*)"', page)[1]}
        address = further[1]


def everything(shop):
    with shop.rig.store.read() as conn:
        return "\n".join(repr(row) for table in schema.metadata.sorted_tables for row in conn.execute(select(table)))
