"""The choice among visitors, the shape of threads, the key that links too much, and the sentences about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_kit import ALICE, BOB, DAY

from bridge.identity import sentences, threads
from bridge.identity.choice import Evidence, FoundVisitor, Mention, choose
from bridge.identity.sentences import HINT
from bridge.model import NamedVisitor


def seen(visitor, first, last=None, *, sure=True, key="k"):
    return Evidence(key, visitor, sure, Mention(first, f"e{first}", first), Mention(last or first, f"e{last}", last))


def who(evidence, at_ms, **more):
    chosen = choose(evidence, at_ms, **more)
    return chosen and chosen[0].visitor


def test_the_latest_not_after_counts_else_the_earliest():
    both = [seen(ALICE, 10), seen(BOB, 20)]
    assert [who(both, at) for at in (5, 10, 15, 20, 99)] == [ALICE, ALICE, ALICE, BOB, BOB]
    assert who([], 5) is None


def test_first_is_always_the_earliest():
    assert who([seen(ALICE, 10), seen(BOB, 20)], 99, first=True) == ALICE


def test_a_visitor_who_came_back_counts_again():
    assert who([seen(ALICE, 10, 30), seen(BOB, 20)], 40) == ALICE


def test_a_bare_client_reference_id_counts_only_alone():
    assert who([seen(ALICE, 10), seen(BOB, 20, sure=False)], 30) == ALICE
    assert who([seen(BOB, 20, sure=False)], 30) == BOB


def test_who_is_not_usable_is_passed_over():
    assert who([seen(ALICE, 10), seen(BOB, 20)], 30, usable=lambda item: item.visitor != BOB) == ALICE


EVIDENCE = st.builds(
    lambda visitor, first, more, sure: seen(visitor, first, first + more, sure=sure, key=f"k{visitor}{first}"),
    st.sampled_from([ALICE, BOB]),
    st.integers(0, 50),
    st.integers(0, 20),
    st.booleans(),
)


@given(st.lists(EVIDENCE, max_size=6), st.integers(0, 80), st.booleans(), st.randoms())
def test_the_choice_does_not_depend_on_the_order(evidence, at_ms, first, rng):
    mixed = list(evidence)
    rng.shuffle(mixed)
    assert who(evidence, at_ms, first=first) == who(mixed, at_ms, first=first)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), max_size=8), st.randoms())
def test_threads_do_not_depend_on_the_order_of_events(edges, rng):
    keys = {key for edge in edges for key in edge}
    mixed = [list(edge) for edge in edges]
    rng.shuffle(mixed)
    parts = threads.components(edges, keys)
    assert parts == threads.components(mixed, keys)
    for edge in edges:
        assert len({parts[key] for key in edge}) == 1


def test_the_culprit_is_the_key_that_holds_strangers_together():
    edges = [
        ("cs_1", "ch_1"),
        ("ch_1", "product"),
        ("cs_2", "ch_2"),
        ("ch_2", "product"),
        ("cs_3", "ch_3"),
        ("ch_3", "product"),
    ]
    named = {"cs_1": {"A"}, "ch_1": {"A"}, "cs_2": {"B"}, "ch_2": {"B"}, "cs_3": {"C"}, "ch_3": {"C"}}
    assert threads.overlinking_key(edges, named) == "product"


def test_what_a_goal_remembers_of_its_visitor_survives_the_database():
    found = FoundVisitor(
        ALICE, "thread", key="k", kind="subscription", ref="sub_1", event="x evt_1", event_id=3, before_ms=4
    )
    assert FoundVisitor.from_json(found.to_json()) == found
    own = FoundVisitor(
        ALICE, "own", path="p", others=(NamedVisitor(BOB, "q", sure=False, borrowed=True),), borrowed=True
    )
    assert FoundVisitor.from_json(own.to_json()) == own
    waiting = FoundVisitor(ALICE, "own", path="p", borrowed=True, unproved=True)
    assert FoundVisitor.from_json(waiting.to_json()) == waiting
    assert FoundVisitor.from_json(waiting.to_json() | {"of_a_later_release": 1}) == waiting
    assert waiting.own == (NamedVisitor(ALICE, "p", sure=True, borrowed=True),)


# -------------------------------------------------------------------------------------------------------- words


def test_a_provenance_is_one_sentence():
    found = FoundVisitor(
        ALICE,
        "thread",
        key="stripe:live:sub_1",
        kind="subscription",
        ref="sub_1",
        event="checkout.session.completed evt_1",
        before_ms=12 * DAY + 5,
    )
    assert (
        sentences.provenance(found)
        == "found through subscription sub_1, learned from checkout.session.completed evt_1, 12 days before"
    )


def test_a_provenance_names_the_key_in_between():
    found = FoundVisitor(
        ALICE,
        "thread",
        key="stripe:live:ch_1",
        kind="charge",
        ref="ch_1",
        via="stripe:live:cs_1",
        event="x evt_1",
        before_ms=-1_500,
    )
    assert sentences.provenance(found) == (
        "found through charge ch_1 (one purchase with cs_1), learned from x evt_1, 1 second after"
    )


def test_own_fields_and_hints_have_their_sentences():
    assert sentences.provenance(FoundVisitor(ALICE, "own", path="a.b")) == "in the event itself, at a.b"
    hint = FoundVisitor(ALICE, "customer", key="c", kind="customer", ref="cus_1", event=HINT, before_ms=5)
    assert sentences.provenance(hint) == "found through customer cus_1, bound by a person or by your site"


LOOKED_UP = "Stripe's invoice in_1, looked up"
WAYS = [
    (FoundVisitor(ALICE, "own", path="a.b"), "event"),
    *((FoundVisitor(ALICE, by, event="x evt_1"), by) for by in ("thread", "customer", "user", "email")),
    *((FoundVisitor(ALICE, by, event=LOOKED_UP), "look-up") for by in ("thread", "customer")),
    *((FoundVisitor(ALICE, by, event=f"stripe {LOOKED_UP}"), "look-up") for by in ("user", "email")),
    *((FoundVisitor(ALICE, by, event=HINT), "by-hand") for by in ("thread", "customer", "user")),
]


@pytest.mark.parametrize(("found", "way"), WAYS)
def test_what_a_visitor_was_found_through_is_one_of_seven_ways(found, way):
    assert sentences.way(found.to_json()) == way
    assert way in sentences.WAYS


def test_a_person_of_a_look_up_is_told_once():
    found = FoundVisitor(ALICE, "user", kind="user", ref="u_1", event=f"stripe {LOOKED_UP}", at_ms=0, before_ms=0)
    assert sentences.provenance(found) == "via user u_1, learned from Stripe's invoice in_1, looked up, 1 Jan"


@pytest.mark.parametrize(
    ("before_ms", "day"),
    [(0, "30 Dec"), (DAY, "30 Dec"), (2 * DAY, "30 Dec 1970"), (-363 * DAY, "30 Dec"), (-364 * DAY, "30 Dec 1970")],
)
def test_the_day_of_a_person_has_its_year_if_the_goal_is_of_another(before_ms, day):
    at_ms = 363 * DAY  # 30 December 1970
    found = FoundVisitor(ALICE, "user", kind="user", ref="u_1", event="x evt_1", at_ms=at_ms, before_ms=before_ms)
    assert sentences.provenance(found).endswith(f", {day}")


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "at the same time"), (999, "at the same time"), (60_000, "1 minute before"), (-7_200_000, "2 hours after")],
)
def test_time_is_told_in_its_largest_unit(ms, text):
    assert sentences.before_or_after(ms) == text


def test_what_found_nobody_says_what_to_do():
    keys = [
        ("customer", "cus_1"),
        ("subscription", "sub_1"),
        ("charge", "ch_1"),
        ("invoice", "in_1"),
        ("session", "cs_1"),
    ]
    said = sentences.unattributed("stripe", keys)
    assert said.startswith("no event of subscription sub_1, session cs_1 or 3 more keys carried a visitor id; ")
    assert "subscription_data.metadata.datafast_visitor_id" in said
    assert "checkout[custom]" in sentences.unattributed("lemonsqueezy", [("order", "1")])
    assert "no key that could lead to one" in sentences.unattributed("stripe", [], 'a.b is the word "undefined"')
    assert sentences.waiting([("order", "1")]) == "waits for an event of order 1 that carries a visitor id"


def test_evidence_of_two_events_is_joined_in_either_order():
    early, late = Mention(1, "a", 9), Mention(2, "b", 3)
    sure = Evidence("k", "v", sure=True, first=early, last=early)
    lent = Evidence("k", "v", sure=False, first=late, last=late, borrowed=True)
    both = Evidence("k", "v", sure=True, first=early, last=late)
    assert sure.joined(lent) == lent.joined(sure) == both
    assert lent.joined(lent) == lent


def test_of_two_mentions_at_one_time_the_event_that_came_first_is_the_first():
    one, two, hint = Mention(1, "b", 3), Mention(1, "a", 9), Mention(1, "c")
    seen = [Evidence("k", "v", sure=True, first=mention, last=mention) for mention in (two, hint, one)]
    joined = seen[0].joined(seen[1]).joined(seen[2])
    assert (joined.first, joined.last) == (hint, two)


def test_the_smallest_name_is_the_groups_and_the_order_does_not_matter():
    for order in (("ab", "cd", "bc"), ("bc", "cd", "ab"), ("cd", "ab", "bc")):
        groups = threads.DisjointSets()
        for edge in order:
            groups.join(edge)
        assert {groups.find(name) for name in "abcd"} == {"a"}
        assert (groups.find("x"), groups.join([]), groups.join("zd")) == ("x", None, "a")


def test_a_trusted_key_is_no_culprit_and_where_only_such_ones_link_there_is_none():
    edges = [("t", "a"), ("t", "b"), ("t", "c")]
    named = {"a": {"v1"}, "b": {"v2"}, "c": {"v3"}}
    assert threads.overlinking_key(edges, named) == "t"
    assert threads.overlinking_key(edges, named, trusted={"t", "a", "b", "c"}) is None
    edges, named = [("t", "u"), ("t", "a")], {"t": {"v1"}, "u": {"v2"}}
    assert threads.overlinking_key(edges, named, trusted={"t", "u"}) is None
    assert threads.overlinking_key(edges, named | {"a": {"v3"}}, trusted={"t", "u"}) == "a"
    edges, named = [("t", "u", "v"), ("t", "a"), ("a", "b")], {"t": {"v1"}, "b": {"v2"}}
    assert threads.overlinking_key(edges, named, trusted={"t", "u", "v"}) == "a", "it has one visitor and many keys"


def test_the_keys_of_one_customer_are_those_whose_events_all_name_it():
    told = threads.keys_of_one_customer(
        [
            ("one", {"c1"}, False), ("one", {"c1", "c2"}, True), ("one", set(), False),
            ("two", {"c1"}, False), ("two", {"c2"}, False),
            ("stranger", {"c1"}, False), ("stranger", set(), True),
            ("none", set(), False),
        ]
    )  # fmt: skip
    assert told == {"one"}


def test_a_key_without_a_kind_is_called_a_key():
    assert [sentences.kind_in_words(kind) for kind in ("order_item", None, "")] == ["order item", "key", "key"]
