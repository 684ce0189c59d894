"""What is a visitor id, what is not and why, and which of several counts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.identity import judge, ranked
from bridge.model import Candidate, NamedVisitor

ID = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
META, BARE = "data.object.metadata.datafast_visitor_id", "data.object.client_reference_id"


def verdict(value, path=META, form="uuid4"):
    return judge(Candidate(path, value), form)


def test_a_uuid_of_version_4_is_a_visitor():
    assert verdict(ID).visitor == ID
    assert verdict(f" {ID}\n").visitor == ID
    assert verdict(ID).why is None


def test_capital_letters_are_the_same_visitor():
    assert verdict(ID.upper()).visitor == ID


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("undefined", 'the word "undefined"'),
        ("None", 'the word "None"'),
        ("null", 'the word "null"'),
        ("[object Object]", "the word"),
        ("unknown", "the word"),
        (f"s{ID}", "session id"),
        (f"S{ID}", "session id"),
        (f"dfv_s{ID}", "session id"),
        ("1b9d6bcd-bbfd-1b2d-9b5d-ab8dfbbd4bed", "not of version 4"),
        ("user_42", "does not have the form of a visitor id"),
        ("{{visitor}}", "does not have the form"),
        ("dfv_", "is empty"),
        (42, "is a number"),
        (4.5, "is a number"),
        (True, "is true or false"),
        ({"id": ID}, "is an object"),
        ([ID], "is a list"),
    ],
)
def test_what_is_no_visitor_id_is_refused_with_the_reason(value, why):
    judged = verdict(value)
    assert judged.visitor is None
    assert why in judged.why


def test_the_refusal_shows_no_more_than_the_beginning_of_a_value():
    assert len(verdict("x" * 5_000).shown) <= 41
    assert verdict("a\x00b\n").shown == "a·b·"
    assert verdict({"secret": "1"}).shown == ""


def test_a_bare_client_reference_id_is_not_sure_and_the_prefix_makes_it_so():
    assert not verdict(ID, BARE).sure
    assert verdict(f"dfv_{ID}", BARE).sure
    assert verdict(f"DFV_{ID}", BARE).visitor == ID
    assert verdict(ID, META).sure


def test_a_bare_client_reference_id_ranks_last_even_where_it_is_listed_first():
    other = "2b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
    listed = [verdict(other, BARE), verdict("undefined"), verdict(ID)]
    assert [named.visitor for named in ranked(listed)] == [ID, other]
    certain = [verdict(f"dfv_{other}", BARE), verdict(ID)]
    assert [named.visitor for named in ranked(certain)] == [other, ID]


def test_a_visitor_who_stands_in_two_places_counts_once_and_surely():
    assert ranked([verdict(ID, BARE), verdict(ID)]) == (NamedVisitor(ID, META, sure=True),)


def test_any_takes_what_a_cookieless_site_may_have():
    assert verdict("3f9ab2c", form="any").visitor == "3f9ab2c"
    assert verdict(12345, form="any").visitor == "12345"
    assert verdict("undefined", form="any").visitor is None
    assert verdict(f"s{ID}", form="any").visitor is None
    assert verdict("two words", form="any").visitor is None
    assert verdict("x" * 201, form="any").visitor is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(JSON, st.sampled_from(["uuid4", "any"]))
def test_whatever_stands_there_there_is_a_verdict(value, form):
    judged = verdict(value, form=form)
    assert (judged.visitor is None) != (judged.why is None)
    json.dumps(judged.shown)
    assert "\0" not in (judged.visitor or "") + judged.shown


@pytest.mark.parametrize("value", [f"s{ID}", f" S{ID} "])
def test_a_session_id_in_a_borrowed_field_is_an_error_of_the_hand_over(value):
    judged = judge(Candidate("data.object.client_reference_id", value, borrowed=True))
    assert judged.visitor is None
    assert "session id" in judged.why
    assert not judged.app_value  # nobody's own user id looks like that


def test_a_bare_uuid_in_a_borrowed_field_is_not_certain_and_one_with_the_prefix_is():
    bare, marked, own = (
        judge(Candidate("order_id", value, borrowed=True)) for value in (f" {ID.upper()} ", f"dfv_{ID}", "order 1")
    )
    assert (bare.visitor, bare.sure, bare.borrowed, bare.app_value) == (ID, False, True, False)
    assert (marked.visitor, marked.sure, marked.borrowed) == (ID, True, False)
    assert (own.visitor, own.app_value) == (None, True)


@pytest.mark.parametrize("value", [f"s{ID}", f"S{ID}"])
def test_the_cookie_of_a_session_in_a_borrowed_field_is_told_as_what_it_is(value):
    judged = judge(Candidate("order_id", value, borrowed=True))
    assert (judged.visitor, judged.app_value) == (None, False)
    assert judged.why == verdict(value).why


@pytest.mark.parametrize(("length", "shown"), [(40, "x" * 40), (41, "x" * 40 + "…")])
def test_at_most_forty_characters_of_a_value_are_shown(length, shown):
    assert verdict("x" * length).shown == shown


@pytest.mark.parametrize(
    ("value", "visitor", "why"),
    [
        (7, "7", None),
        (True, None, "is true or false"),
        ({}, None, "is an object"),
        ([], None, "is a list"),
        (1.5, None, "is a number"),
    ],
)
def test_where_any_text_is_a_visitor_a_whole_number_is_one_too_and_nothing_else(value, visitor, why):
    told = verdict(value, form="any")
    assert told.visitor == visitor
    assert (told.why or "").startswith(why or "")
    assert verdict(value).visitor is None
