"""Recent changes: their page, and what the commands write there."""

from __future__ import annotations

import re

import pytest
from identity_kit import ALICE, SECRETS, Rig
from test_people_across_tools import FILES, checkout

from bridge.cli import main
from bridge.store import schema
from bridge.store.operator import changes


def record(console, *sentences, what="retry"):
    for sentence in sentences:
        console.bridge.store.run(lambda conn, sentence=sentence: changes.record(conn, what, "goal_1", sentence))


def sentences(page):
    return re.findall(r"sentence (\d+)", page)


def test_before_anything_was_changed_it_says_what_will_be_listed(visit):
    page = visit.get("/console/changes")
    assert (page.status_code, "Nothing has been changed yet" in page.text) == (200, True)
    assert "/console/changes" in visit.get("/console/").text


def test_every_change_is_on_one_page_the_newest_first(console, visit):
    record(console, *[f"sentence {number:03}" for number in range(120)])
    found, address, pages = [], "/console/changes", 0
    while address:
        page = visit.get(address).text
        found += sentences(page)
        older = re.search(r'href="([^"]+)">Older', page)
        address, pages = older and older[1].replace("&amp;", "&"), pages + 1
    assert found == [f"{number:03}" for number in reversed(range(120))]
    assert pages == 3
    assert "No older changes" in visit.get("/console/changes?before=1").text


def test_hostile_sentences_and_addresses_do_nothing(console, visit):
    record(console, "<script>alert(1)</script> \u202e" + "x" * 5_000, what="<b>")
    page = visit.get("/console/changes?before=%00&before=99999999999999999999")
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "\u202e" not in page.text
    assert "x" * 1_001 not in page.text
    for before in ("x", "-1", "1e9", "9" * 400):
        assert visit.get(f"/console/changes?before={before}").status_code == 200


# --------------------------------------------------------------------------------------------------- of the commands


@pytest.fixture
def rig(sqlite_store, clock):
    return Rig(sqlite_store, clock, FILES, destinations=("default", "other"))


@pytest.fixture
def bridge(rig, sqlite_url, tmp_path, monkeypatch, capfd):
    """The commands, on the rig's database; what each wrote into the changes."""
    folder = tmp_path / "mappings"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name, value in {"DATABASE_URL": sqlite_url, "BRIDGE_MAPPINGS": str(folder), **SECRETS}.items():
        monkeypatch.setenv(name, value)

    def run(*words):
        before = len(rig.rows(schema.changes))
        main(list(words))
        capfd.readouterr()
        return [(row.what, row.about, row.sentence) for row in rig.rows(schema.changes)[before:]]

    return run


def test_what_a_command_changes_is_listed_once_for_all_that_it_touched(rig, bridge):
    for number in range(1, 6):
        rig.route(checkout(number, customer=f"cus_{number}")[1])
    assert bridge("goals", "cancel", "goal_1") == [("cancel", "goal_1", "goal_1 is cancelled and will never be sent.")]
    assert bridge("goals", "cancel", "goal_1") == []
    (many,) = bridge("goals", "cancel", "goal_2", "goal_3", "goal_4", "goal_5")
    assert many == ("cancel", "goal_2", "goal_2, goal_3, goal_4 and 1 more will never be sent.")
    assert bridge("events", "replay", "ev_1", "ev_2") == [("replay", "ev_2", "ev_2, ev_1 are routed again.")]
    assert bridge("events", "replay", "--dry-run", "ev_3") == []
    assert bridge("events", "ignore", "ev_3") == []
    assert bridge("goals", "retry", "goal_99") == []


def test_what_a_command_does_about_people_is_listed(rig, bridge):
    rig.route(checkout(1, customer="cus_1")[1])
    key = "stripe:live:cus_1"
    assert bridge("links", "add", "stripe", "customer", "cus_1", ALICE) == [("bind", key, f"{key} leads to {ALICE}.")]
    assert bridge("links", "add", "stripe", "customer", "cus_1", "no visitor") == []
    assert bridge("relearn") == [("relearn", "", "Links were learned again from 1 stored event.")]
    assert bridge("links", "forget", "cus_1", "--yes") == [("forget key", key, f"{key} is forgotten.")]
    bridge("forget", "--customer", "cs_1", "--yes")
    assert [row.what for row in rig.rows(schema.changes)][-1] == "forget"
    (restored,) = bridge("restored", "--yes")
    assert restored[0] == "restored"
    assert "is a backup of" in restored[2]


def test_the_address_of_a_key_is_in_no_row(rig, bridge):
    rig.route(checkout(1, customer="ann@example.com")[1])
    ((_, about, sentence),) = bridge("links", "forget", "ann@example.com", "--yes")
    assert "ann@" not in about + sentence
    assert "a…@…" in sentence
