"""What one sees of people and does about them: a line of time, a cut key, a forgotten person, what would help."""

from __future__ import annotations

import json
import time

import pytest
from cases_kit import one_in
from identity_kit import ALICE, BOB, CAROL, MINUTE, SECRETS, Rig
from sqlalchemy import select, update
from test_people_across_tools import FILES, checkout, customer, form, refund, renewal, sign_up

from bridge.cli import main
from bridge.identity.people import email_hash
from bridge.store import facts, schema
from bridge.workbench import linking, people, stored

MAIL = "canary@example.com"


@pytest.fixture
def rig(sqlite_store, clock):
    return Rig(sqlite_store, clock, FILES, destinations=("default", "other"), BRIDGE_MATCH_EMAIL="on")


@pytest.fixture
def bridge(rig, sqlite_url, tmp_path, monkeypatch, capfd):
    """The commands, on the rig's database and mapping files."""
    folder = tmp_path / "mappings"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    given = {"DATABASE_URL": sqlite_url, "BRIDGE_MAPPINGS": str(folder), "DATAFAST_API_KEY": "df_key", **SECRETS}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capfd.readouterr()
        code = main(list(words))
        told = capfd.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return run


def play(rig, *events):
    for source, body in events:
        rig.route(body, source=source)
    rig.later(3 * MINUTE)


def everything(rig):
    """The database as text, with what SQLite has freed."""
    with rig.store.read() as conn:
        return "\n".join(repr(row) for table in schema.metadata.sorted_tables for row in conn.execute(select(table)))


# -------------------------------------------------------------------------------------------------- line of time


@pytest.mark.parametrize("who", ["user_abc", f"  {MAIL.upper()} ", ALICE])
def test_why_shows_one_line_of_time_over_all_tools(rig, bridge, who):
    paid = checkout(user="user_abc", customer_details={"email": MAIL})
    play(rig, form(mail=MAIL), sign_up(mail=MAIL), paid, renewal(), refund())
    code, out, _ = bridge("why", who)
    assert code == 0
    line = out.partition("Timeline")[2]
    told = [
        line.find(word) for word in ("clerk: user.created", "stripe: checkout.session.completed", "stripe: invoice")
    ]
    assert -1 not in told
    assert told == sorted(told)
    assert "refund" in line
    if who != ALICE:
        assert "via user user_abc, learned from Clerk user.created" in line
    assert MAIL not in out.lower()


@pytest.mark.parametrize("who", ["user_abc", ALICE])
def test_why_says_once_who_named_the_visitor(rig, bridge, who):
    """A sign-up teaches the user of all tools, and Clerk's own customer."""
    play(rig, sign_up(mail=MAIL))
    out = bridge("why", who)[1].partition("Timeline")[0]
    assert out.count("user.created") == 1
    assert "named by clerk user.created" in out


def test_an_address_that_nobody_remembers_is_not_known(bridge):
    code, _, err = bridge("why", "nobody@example.com")
    assert code == 1
    assert "only while BRIDGE_MATCH_EMAIL is on" in err


# ---------------------------------------------------------------------------------------------------- cutting


def sent(rig, *names):
    """Mark goals of these names as delivered."""
    with rig.store.write() as conn:
        values = {"state": "delivered", "datafast_event_id": "evt_df_1", "delivered_at_ms": 1}
        conn.execute(update(schema.goals).where(schema.goals.c.name.in_(names)).values(values))


def test_a_cut_key_takes_back_what_was_not_sent_and_lists_what_was(rig, bridge):
    play(rig, sign_up(), checkout(user="user_abc"), renewal())
    sent(rig, "sign_up", "purchase")
    code, _, err = bridge("links", "forget", "user_abc")
    assert code == 2
    assert "add --yes" in err
    code, out, _ = bridge("links", "forget", "user_abc", "--yes")
    assert code == 0
    assert "goal_3 paid" in out.partition("These were sent")[0]
    assert "DataFast's id evt_df_1" in out.partition("These were sent")[2]
    states = {goal.name: (goal.state, goal.visitor) for goal in rig.goals()}
    assert states["purchase"] == ("delivered", ALICE)
    assert states["paid"] == ("parked", None)
    play(rig, sign_up(visitor=BOB), refund())
    assert {goal.name: goal.visitor for goal in rig.goals()}["refund"] is None  # it stays cut


def test_the_name_of_a_person_is_that_of_live_events(rig, bridge):
    play(rig, sign_up(), checkout(user="user_abc", live=False))
    assert bridge("links", "forget", "user_abc", "--yes")[0] == 0
    rows = rig.rows(schema.link_keys, schema.link_keys.c.kind == "user", schema.link_keys.c.stopped_at_ms.is_not(None))
    assert [row.key for row in rows] == ["user:default:live:user_abc"]


def test_binding_a_cut_key_says_that_it_links_nothing(rig, bridge):
    play(rig, sign_up(), checkout(user="user_abc"))
    assert bridge("links", "forget", "user_abc", "--yes")[0] == 0
    code, out, _ = bridge("links", "add", "stripe", "user", "user_abc", BOB)
    assert code == 0
    assert "But user:default:live:user_abc was stopped and no longer links anything" in out
    assert "No goal waits" not in out
    assert {goal.name: goal.visitor for goal in rig.goals()}["purchase"] is None


def test_a_cut_key_leaves_the_purchase(rig, bridge):
    play(rig, checkout(1, BOB, user="user_abc"), sign_up(), customer(userId="user_abc"))
    assert bridge("links", "forget", "user_abc", "--yes")[0] == 0
    play(rig, renewal(), refund())
    assert {goal.name: goal.visitor for goal in rig.goals()} == {
        "purchase": BOB,
        "paid": BOB,
        "refund": BOB,
        "sign_up": ALICE,
    }


# ------------------------------------------------------------------------------------------------- forgetting


@pytest.mark.parametrize("whom", [("--user", "user_abc"), ("--email", MAIL)])
def test_a_forgotten_person_leaves_no_trace_as_text_or_as_hash(rig, bridge, whom, sqlite_url):
    play(rig, sign_up(mail=MAIL), checkout(user="user_abc", customer_details={"email": MAIL}), renewal())
    play(rig, form(BOB, "other@example.com"), sign_up("user_abcd", BOB, "other@example.com"))
    with rig.store.read() as conn:
        hashed = email_hash(MAIL, facts.get(conn, facts.EMAIL_KEY).encode())
    assert hashed in everything(rig)
    assert bridge("forget", *whom, "--yes")[0] == 0
    left = everything(rig)
    for text in (hashed, MAIL, ALICE, "user_abc'", 'user_abc"', "cus_1", "cs_1"):
        assert text not in left, text
    assert "user_abcd" in left
    assert BOB in left


def call(number, person, visitor=None):
    """A call in the CRM, whose mapping file says where the user's id is."""
    return "crm", {"type": "call", "id": f"call_{number}", "person": person, "visitor": visitor, "minutes": 42}


def with_bodies(rig):
    """The ids of the events whose bodies are still stored."""
    return {row.id for row in rig.rows(schema.events) if row.body is not None}


@pytest.mark.parametrize("whom", [("--customer", "stripe:live:customer:42"), ("--customer", "42"), ("--user", "42")])
def test_a_number_is_forgotten_where_links_lead_and_not_where_it_is_something_else(rig, bridge, whom):
    play(rig, checkout(1, ALICE, customer="42"), renewal(1))
    play(rig, checkout(2, BOB, customer="7", amount_total=42, metadata={"seats": "42"}), call(1, "7", BOB))
    play(rig, call(2, "42", CAROL))
    mine = {1, 2} if whom[0] == "--customer" else {5}
    code, out, err = bridge("forget", *whom, "--yes")
    assert code == 0, err
    assert with_bodies(rig) == {1, 2, 3, 4, 5} - mine
    assert BOB in out or BOB in everything(rig)


def test_a_number_that_several_people_have_is_nobody_in_particular(rig, bridge):
    play(rig, checkout(1, ALICE, customer="42"), checkout(2, BOB, customer="42", live=False))
    code, _, err = bridge("forget", "--customer", "42", "--yes")
    assert code == 2
    assert "names stripe:live:customer:42 and stripe:test:customer:42. Name one of them" in err
    assert with_bodies(rig) == {1, 2}
    assert bridge("forget", "--customer", "stripe:test:customer:42", "--yes")[0] == 0
    assert with_bodies(rig) == {1}


@pytest.mark.parametrize(
    "theirs",
    [
        "jo-canary@example.com",
        "canary@example.com.au",
        "canary@example.company",
        "jo.canary@example.com",
    ],
)
@pytest.mark.parametrize("matching", one_in(2, ["on", "off"]))
def test_an_address_that_another_one_holds_is_another_address(sqlite_store, clock, bridge, theirs, matching):
    rig = Rig(sqlite_store, clock, FILES, BRIDGE_MATCH_EMAIL=matching)
    play(rig, form(ALICE, MAIL, "r1"), form(BOB, theirs, "r2"))
    assert bridge("forget", "--email", MAIL.upper(), "--yes")[0] == 0
    assert with_bodies(rig) == {2}


@pytest.mark.parametrize(
    "written",
    [
        "canary@example.com", "CANARY@Example.com", "Ann <canary@example.com>", "canary%40example.com",
        "https://x.example/?email=canary%40example.com&a=1", "Mail:\ncanary@example.com", "mailto:canary@example.com.",
        "email=canary@example.com", "%63anary%2540example.com",
    ],
)  # fmt: skip
@pytest.mark.parametrize("escaped", one_in(2, [True, False]))
def test_an_address_is_forgotten_however_a_body_has_it(rig, bridge, written, escaped):
    _, body = form(ALICE, "other@example.com")
    body["data"]["note"] = written
    text = json.dumps(body)
    play(rig, ("tally", (text.replace("@", "\\u0040") if escaped else text).encode()))
    assert bridge("forget", "--email", MAIL, "--yes")[0] == 0
    assert with_bodies(rig) == set()


def test_a_word_that_is_an_id_is_looked_for_only_where_links_lead(rig, bridge):
    play(rig, sign_up("max"), checkout(2, BOB, metadata={"plan": "max"}))
    assert bridge("forget", "--user", "max", "--yes")[0] == 0
    assert with_bodies(rig) == {2}
    code, _, err = bridge("forget", "--email", "pro", "--yes")
    assert code == 2
    assert "--email should be a whole address" in err


# --------------------------------------------------------------------------------- forgetting whom others mention

TELLING = {  # goals that say who invited the buyer
    **FILES,
    "stripe.yaml": """\
provider: stripe
goals:
  - goal: purchase
    event: checkout.session.completed
    once_per: "{data.object.id}"
    metadata: {from: "{data.object.metadata.inviter}", plan: "{data.object.metadata.plan}"}
    description: "invited by {data.object.metadata.inviter}"
  - {goal: invited, event: checkout.session.completed, once_per: data.object.metadata.inviter}
  - {goal: refund, event: charge.refunded, once_per: data.object.id}
""",
}
ANN = {"customer_details": {"email": "ann@example.com"}}


def forgetting_of(rig, visitor=None, **named):
    """What the command and the console would remove."""
    with rig.store.read() as conn:
        keys = linking.keys_of(conn, **named)
    wanted = linking.WantedPerson(keys, visitor, list(named.values()))
    return linking.plan_forgetting(rig.store, stored.preparer(rig.store, rig.rules, rig.settings), wanted)


@pytest.mark.parametrize("matching", ["on", "off"])
@pytest.mark.parametrize("whom", ["email", "user"])
def test_whoever_mentions_a_forgotten_person_keeps_the_rest(store, clock, matching, whom):
    rig = Rig(store, clock, TELLING, destinations=("default", "other"), BRIDGE_MATCH_EMAIL=matching)
    called = {"email": MAIL, "user": "user_abc"}[whom]
    play(rig, sign_up(visitor=BOB, mail=MAIL), form(BOB, MAIL))
    play(rig, checkout(metadata={"userId": "user_ann", "inviter": f"by {called.upper()}", "plan": "pro"}, **ANN))
    play(rig, sign_up("user_ann", mail="ann@example.com"))
    with rig.store.read() as conn:
        key = facts.get(conn, facts.EMAIL_KEY)
    what = forgetting_of(rig, **{whom: called})
    assert linking.about_mentions(what.person).startswith("1 event of others mentions this person")
    assert linking.stored_amounts(what.person).endswith(" and the body of 1 event of others")
    rig.store.run(lambda conn: linking.forget(conn, what))
    left = everything(rig)
    for text in (BOB, called, called.upper(), email_hash(MAIL, key.encode()) if key else MAIL.upper()):
        assert text not in left, text
    assert {row.id for row in rig.rows(schema.events) if row.body is not None} >= {4}
    play(rig, refund())
    kept = {goal.name: goal for goal in rig.goals() if goal.visitor == ALICE}
    assert set(kept) == {"purchase", "invited", "sign_up", "refund"}
    assert (json.loads(kept["purchase"].metadata), kept["purchase"].description) == ({"plan": "pro"}, "")
    assert (kept["purchase"].state, kept["purchase"].once_key) == ("pending", "stripe:live:purchase:cs_1")
    assert kept["invited"].once_key == f"forgotten:{kept['invited'].id}"
    assert rig.rows(schema.link_events, schema.link_events.c.event_id == kept["purchase"].event_id) != []


@pytest.mark.parametrize(
    ("event", "theirs"),
    [
        (checkout(2, ALICE, metadata={"inviter": MAIL}, **ANN), True),
        (checkout(2, ALICE, metadata={"inviter": MAIL, "userId": "user_ann"}), True),
        (checkout(2, ALICE, metadata={"cc": MAIL, "userId": 42}), True),
        (checkout(2, ALICE, metadata={"cc": MAIL}), False),  # nobody knows whose it is
        (checkout(2, ALICE, metadata={"cc": MAIL, "userId": "guest"}), False),
        (checkout(2, ALICE, user="order_2", metadata={"cc": MAIL}), False),
        (checkout(2, ALICE, customer_details={"email": "billing@acme.example"}, metadata={"cc": MAIL}), False),
        (checkout(2, ALICE, metadata={"email": MAIL}, **ANN), False),
        (checkout(2, ALICE, customer_details={"email": f" {MAIL.upper()}"}, metadata={"userId": "user_1"}), False),
        (checkout(2, ALICE, user="user_abc", metadata={"cc": MAIL}, **ANN), False),  # by the link of her sign-up
    ],
    ids=str,
)  # fmt: skip
def test_whose_an_event_is_that_names_a_forgotten_person(rig, event, theirs):
    play(rig, sign_up(visitor=BOB, mail=MAIL), customer("cus_9", userId="user_abc"), event)
    person = forgetting_of(rig, email=MAIL).person
    assert (3 in person.mentions, 3 in person.events) == (theirs, not theirs)


def test_the_address_of_a_role_is_its_owners(rig):
    """Nobody is recognised by info@, but the event says whose it is."""
    play(rig, sign_up(mail="info@acme.example"), checkout(2, BOB, metadata={"shop": "info@acme.example"}, **ANN))
    person = forgetting_of(rig, email="info@acme.example").person
    assert (person.events, person.mentions) == ({1}, {2})


def test_who_is_only_mentioned_is_forgotten_too_and_why_says_what_is_gone(rig, bridge):
    play(rig, checkout(1, ALICE, metadata={"inviter": MAIL}, **ANN), checkout(2, ALICE, metadata={"cc": MAIL}, **ANN))
    code, out, err = bridge("forget", "--email", MAIL)
    assert code == 2
    assert "2 events of others mention this person: they lose their bodies" in out
    assert "Remove the bodies of 2 events of others?" in err
    code, out, _ = bridge("forget", "--email", MAIL, "--yes")
    assert (code, "Removed: the bodies of 2 events of others." in out) == (0, True)
    assert MAIL not in everything(rig)
    assert {goal.visitor for goal in rig.goals()} == {ALICE}
    out = bridge("why", "ev_1")[1]
    assert "together with a person whom the event only mentioned; verdict, goals and links stay" in out
    assert "purchase" in out
    assert bridge("forget", "--email", MAIL, "--yes")[0] == 1
    assert json.loads(bridge("forget", "--email", "ann@example.com", "--yes", "--json")[1])["mentions"] == 0


# ------------------------------------------------------------------------------------------- what would help


def test_doctor_names_the_field_that_nobody_reads_and_what_addresses_would_find(rig, sqlite_store):
    files = {**FILES, "stripe.yaml": FILES["stripe.yaml"]}
    for number in range(3):
        play(rig, sign_up(f"acct-{number}", mail=f"m{number}@example.com"))
        play(rig, checkout(number, customer=f"cus_{number}", metadata={"account": f"acct-{number}", "plan": "pro"}))
    mail = {"email": "m1@example.com"}
    with sqlite_store.write() as conn:
        conn.execute(schema.link_keys.delete().where(schema.link_keys.c.kind == "email"))
    quiet = Rig(sqlite_store, rig.clock, files)
    play(quiet, checkout(7, customer="cus_7", customer_details=mail))
    found = people.improvements(sqlite_store, quiet.rules, quiet.settings)
    assert found.goals == 4
    (unread,) = found.fields
    assert (unread.name, unread.path) == ("metadata.account", "data.object.metadata.account")
    assert (unread.goals, unread.known) == (3, 3)
    assert found.by_email == 1


def test_what_doctor_says_of_addresses_finds_the_visitors_that_it_counts(sqlite_store, clock, bridge, monkeypatch):
    clock.set(time.time_ns() // 1_000_000 - 10 * MINUTE)  # the commands go by the real clock
    rig = Rig(sqlite_store, clock, FILES)
    play(rig, form(mail=MAIL), checkout(customer_details={"email": MAIL}))
    monkeypatch.setenv("DATAFAST_API_URL", "http://127.0.0.1:9")
    said = bridge("doctor")[1]
    assert "would have found a visitor for 1 of 1 goals that have none" in said
    assert "BRIDGE_MATCH_EMAIL=on switches it on (docs/privacy.md), then `python -m bridge relearn`" in said
    monkeypatch.setenv("BRIDGE_MATCH_EMAIL", "on")
    assert bridge("relearn")[0] == 0
    assert {goal.name: goal.visitor for goal in rig.goals()} == {"lead": ALICE, "purchase": ALICE}


def sales(rig, name, values, **more):
    """Purchases without a visitor whose metadata has this field."""
    for number, value in enumerate(values, 1):
        _, body = checkout(f"x{number}", customer=f"cus_x{number}", metadata={name: value, **more})
        rig.put(body)
    rig.route_all()


def suggested(rig):
    return [unread.path for unread in people.improvements(rig.store, rig.rules, rig.settings).fields]


CONNECTED = [f"acct_{number}Nv0FGQ9RKHgCVd" for number in range(3)]  # accounts of Stripe Connect
IDS = [f"u-{number}x" for number in range(5)]


def known_users(rig):
    """Users whose visitors are known, three of them with numbers, which one file alone calls users' ids."""
    rig.put_all([sign_up(user, mail=f"m{user}@example.com")[1] for user in IDS], "clerk")
    rig.put_all([call(number, str(number), ALICE)[1] for number in (42, 43, 44)], "crm")
    rig.route_all()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("org", IDS), ("orgId", IDS), ("org_id", IDS), ("organization", IDS), ("teamId", IDS), ("workspace_id", IDS),
        ("tenant", IDS), ("company", IDS), ("order_id", IDS), ("orderNumber", IDS), ("cart", IDS), ("invoice_no", IDS),
        ("referrer", IDS), ("referred_by", IDS), ("affiliate_id", IDS), ("invitedBy", IDS), ("coach", IDS),
        ("seller_id", IDS), ("created_by", IDS), ("account_manager", IDS), ("plan", IDS), ("productId", IDS),
        ("account", ["org_1a", "org_2a", "org_3a", "org_4a"]), ("account", CONNECTED),
        ("account", ["free", "pro", "team", "business"]), ("account", ["1001", "1002", "1003", "1004"]),
        ("account", ["u-1x"] * 6), ("account", ["a@example.com", "b@example.com", "c@example.com"]),
        ("account", ["new-1"]), ("profile", ["guest", "guest", "guest"]), ("member", ["true", "false", "true"]),
        ("login", ["google", "github", "apple"]), ("seats", ["42", "43", "44"]), ("staff", ["u-1x"] * 9),
        ("credits", ["42", "43", "44"]), ("credits", [42, 43, 44]),
    ],
    ids=str,
)  # fmt: skip
def test_doctor_suggests_no_field_that_is_not_the_buyers(sqlite_store, clock, name, values):
    rig = Rig(sqlite_store, clock, FILES)
    known_users(rig)
    sales(rig, name, values)
    assert suggested(rig) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("account", ["a-1", "a-2", "a-3"]),
        ("account", IDS),
        ("owner", IDS),
        ("buyer", IDS[:1]),
        ("account", ["42", "43"]),
    ],
    ids=str,
)
def test_doctor_suggests_a_field_whose_values_are_users_or_that_is_called_so(sqlite_store, clock, name, values):
    rig = Rig(sqlite_store, clock, FILES)
    known_users(rig)
    sales(rig, name, values, note="thank you", plan="pro", orgId="org_1")
    assert suggested(rig) == [f"data.object.metadata.{name}"]
    read = {**FILES, "stripe.yaml": f"{FILES['stripe.yaml']}links: {{user: data.object.metadata.{name}}}\n"}
    assert suggested(Rig(sqlite_store, clock, read)) == []  # it is read now
    assert suggested(Rig(sqlite_store, clock, FILES, BRIDGE_MATCH_USER="off")) == []


def test_the_users_of_another_website_are_not_known_here(sqlite_store, clock):
    elsewhere = {**FILES, "clerk.yaml": f"{FILES['clerk.yaml']}datafast: {{name: other, api_key: df_other}}\n"}
    rig = Rig(sqlite_store, clock, elsewhere, destinations=("default", "other"))
    known_users(rig)
    sales(rig, "owner", IDS)
    assert suggested(rig) == []


ORDER = {"id": 0, "type": "orders", "attributes": {}}
SENT = {  # the event without the field, and what it belongs in
    "paddle": ("transaction.completed", {"data": {"id": 0, "origin": "web", "custom_data": {}}}, "data.custom_data"),
    "polar": ("order.paid", {"data": {"id": 0, "billing_reason": "purchase", "metadata": {}}}, "data.metadata"),
    "lemonsqueezy": ("order_created", {"meta": {"custom_data": {}}, "data": ORDER}, "meta.custom_data"),
    "tally": ("FORM_RESPONSE", {"data": {"responseId": 0, "fields": []}, "hidden": {}}, "hidden"),
}


@pytest.mark.parametrize("provider", SENT)
def test_doctor_reads_what_other_tools_sent(sqlite_store, clock, provider):
    event, body, path = SENT[provider]
    rule = f'provider: {provider}\ngoals:\n  - {{goal: made, event: "*", once_per: "{{once}}"}}\n'
    rig = Rig(sqlite_store, clock, {**FILES, f"{provider}.yaml": rule})
    known_users(rig)
    for number, user in enumerate(IDS):
        one = json.loads(json.dumps(body).replace(": 0", f": {number + 1}"))
        bag = one
        for name in path.split("."):
            bag = bag[name]
        bag |= {"account": user, "organization": f"org_{number}", "order_number": f"{number}77", "plan": "pro"}
        if provider == "lemonsqueezy":
            one["meta"]["event_name"] = event
        kind = dict.fromkeys(("eventType", "type", "event_type"), event)
        rig.put({**one, **kind, "eventId": f"e{number}", "event_id": f"e{number}", "once": number}, provider)
    rig.route_all()
    assert suggested(rig) == [f"{path}.account"]


def test_a_sale_that_waits_to_be_routed_is_not_lost_because_it_mentions_somebody(rig, bridge):
    rig.put_told([checkout(1, ALICE, metadata={"cc": MAIL}, **ANN)])
    code, out, err = bridge("forget", "--email", MAIL, "--yes")
    assert "1 event of others that mentions this person has not been routed, and stays as it is" in out
    assert (code, "Nothing that could be removed now is stored about" in err) == (1, True)
    rig.route_all()
    assert [(goal.name, goal.visitor) for goal in rig.goals()] == [("purchase", ALICE)]
    assert bridge("forget", "--email", MAIL, "--yes")[0] == 0
    assert MAIL not in everything(rig)
    assert [(goal.name, goal.visitor) for goal in rig.goals()] == [("purchase", ALICE)]


def test_what_has_to_be_forgotten_later_is_counted_for_programs_too(rig, bridge):
    play(rig, sign_up(mail=MAIL))
    rig.put_told([checkout(2, ALICE, metadata={"cc": MAIL}, **ANN)])
    told = json.loads(bridge("forget", "--email", MAIL, "--yes", "--json")[1])
    assert (told["events"], told["mentions"], told["unrouted"]) == (1, 0, 1)
