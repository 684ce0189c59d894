"""The page of recent changes."""

from __future__ import annotations

import re

from bridge.store.operator import changes


def record(console, *sentences, what="retry"):
    for sentence in sentences:
        console.bridge.store.run(lambda conn, sentence=sentence: changes.record(conn, what, "goal_1", sentence))


def sentences(page):
    return re.findall(r"sentence (\d+)", page)


def test_before_anything_was_changed_it_says_what_will_be_listed(visit):
    page = visit.get("/console/changes")
    assert (page.status_code, "Nothing was changed yet" in page.text) == (200, True)
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
