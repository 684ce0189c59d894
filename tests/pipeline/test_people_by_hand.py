"""What one sees of people and does about them: a line of time, a cut key, a forgotten person, what would help."""

from __future__ import annotations

import pytest
from identity_kit import ALICE, BOB, MINUTE, SECRETS, Desk
from sqlalchemy import select, update
from test_people_across_tools import FILES, checkout, customer, form, refund, renewal, sign_up

from bridge.cli import main
from bridge.identity.people import email_hash
from bridge.store import facts, schema
from bridge.workbench import people

MAIL = "canary@example.com"


@pytest.fixture
def desk(sqlite_store, clock):
    return Desk(sqlite_store, clock, FILES, destinations=("default", "other"), BRIDGE_MATCH_EMAIL="on")


@pytest.fixture
def bridge(desk, sqlite_url, tmp_path, monkeypatch, capfd):
    """The commands, on the desk's database and mapping files."""
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


def play(desk, *events):
    for source, body in events:
        desk.route(body, source=source)
    desk.later(3 * MINUTE)


def everything(desk):
    """The database as text, with what SQLite has freed."""
    with desk.store.read() as conn:
        return "\n".join(repr(row) for table in schema.metadata.sorted_tables for row in conn.execute(select(table)))


# -------------------------------------------------------------------------------------------------- line of time


@pytest.mark.parametrize("who", ["user_abc", f"  {MAIL.upper()} ", ALICE])
def test_why_shows_one_line_of_time_over_all_tools(desk, bridge, who):
    paid = checkout(user="user_abc", customer_details={"email": MAIL})
    play(desk, form(mail=MAIL), sign_up(mail=MAIL), paid, renewal(), refund())
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


def test_an_address_that_nobody_remembers_is_not_known(bridge):
    code, _, err = bridge("why", "nobody@example.com")
    assert code == 1
    assert "only while BRIDGE_MATCH_EMAIL is on" in err


# ---------------------------------------------------------------------------------------------------- cutting


def sent(desk, *names):
    """Mark goals of these names as delivered."""
    with desk.store.write() as conn:
        values = {"state": "delivered", "datafast_event_id": "evt_df_1", "delivered_at_ms": 1}
        conn.execute(update(schema.goals).where(schema.goals.c.name.in_(names)).values(values))


def test_a_cut_key_takes_back_what_was_not_sent_and_lists_what_was(desk, bridge):
    play(desk, sign_up(), checkout(user="user_abc"), renewal())
    sent(desk, "sign_up", "purchase")
    code, _, err = bridge("links", "forget", "user_abc")
    assert code == 2
    assert "add --yes" in err
    code, out, _ = bridge("links", "forget", "user_abc", "--yes")
    assert code == 0
    assert "goal_3 paid" in out.partition("These were sent")[0]
    assert "DataFast's id evt_df_1" in out.partition("These were sent")[2]
    states = {goal.name: (goal.state, goal.visitor) for goal in desk.goals()}
    assert states["purchase"] == ("delivered", ALICE)
    assert states["paid"] == ("parked", None)
    play(desk, sign_up(visitor=BOB), refund())
    assert {goal.name: goal.visitor for goal in desk.goals()}["refund"] is None  # it stays cut


def test_the_name_of_a_person_is_that_of_live_events(desk, bridge):
    play(desk, sign_up(), checkout(user="user_abc", live=False))
    assert bridge("links", "forget", "user_abc", "--yes")[0] == 0
    rows = desk.rows(schema.link_keys, schema.link_keys.c.kind == "user", schema.link_keys.c.stopped_at_ms.is_not(None))
    assert [row.key for row in rows] == ["user:default:live:user_abc"]


def test_a_cut_key_leaves_the_purchase(desk, bridge):
    play(desk, checkout(1, BOB, user="user_abc"), sign_up(), customer(userId="user_abc"))
    assert bridge("links", "forget", "user_abc", "--yes")[0] == 0
    play(desk, renewal(), refund())
    assert {goal.name: goal.visitor for goal in desk.goals()} == {
        "purchase": BOB,
        "paid": BOB,
        "refund": BOB,
        "sign_up": ALICE,
    }


# ------------------------------------------------------------------------------------------------- forgetting


@pytest.mark.parametrize("whom", [("--user", "user_abc"), ("--email", MAIL)])
def test_a_forgotten_person_leaves_no_trace_as_text_or_as_hash(desk, bridge, whom, sqlite_url):
    play(desk, sign_up(mail=MAIL), checkout(user="user_abc", customer_details={"email": MAIL}), renewal())
    play(desk, form(BOB, "other@example.com"), sign_up("user_abcd", BOB, "other@example.com"))
    with desk.store.read() as conn:
        hashed = email_hash(MAIL, facts.get(conn, facts.EMAIL_KEY).encode())
    assert hashed in everything(desk)
    assert bridge("forget", *whom, "--yes")[0] == 0
    left = everything(desk)
    for text in (hashed, MAIL, ALICE, "user_abc'", 'user_abc"', "cus_1", "cs_1"):
        assert text not in left, text
    assert "user_abcd" in left
    assert BOB in left


# ------------------------------------------------------------------------------------------- what would help


def test_doctor_names_the_field_that_nobody_reads_and_what_addresses_would_find(desk, sqlite_store):
    files = {**FILES, "stripe.yaml": FILES["stripe.yaml"]}
    for number in range(3):
        play(desk, sign_up(f"acct-{number}", mail=f"m{number}@example.com"))
        play(desk, checkout(number, customer=f"cus_{number}", metadata={"account": f"acct-{number}", "plan": "pro"}))
    mail = {"email": "m1@example.com"}
    with sqlite_store.write() as conn:
        conn.execute(schema.link_keys.delete().where(schema.link_keys.c.kind == "email"))
    quiet = Desk(sqlite_store, desk.clock, files)
    play(quiet, checkout(7, customer="cus_7", customer_details=mail))
    found = people.improvements(sqlite_store, quiet.rules, quiet.settings)
    assert found.goals == 4
    (unread,) = found.fields
    assert (unread.name, unread.path) == ("metadata.account", "data.object.metadata.account")
    assert (unread.goals, unread.known) == (3, 3)
    assert found.by_email == 1
