from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import Document, ExactFloat
from bridge.rules.reading.when import compile_when

BODY = {
    "s": "paid",
    "n": 49,
    "big": 12345678901234567890,
    "f": ExactFloat("0.1"),
    "ns": "49.00",
    "yes": True,
    "yes_text": "true",
    "no": False,
    "null": None,
    "empty": "",
    "zero": 0,
    "list": ["a", 2, {"id": "x1"}],
    "customer": {"id": "cus_1"},
    "object": {"a": 1},
    "same": "paid",
    "limit": 40,
    "huge": "1e999999999",
    "long": "9" * 5000,
    "exponent": ExactFloat("1e999"),
    "data": {
        "object": {
            "status": "active",
            "flag": True,
            "was_null": "x",
            "now_null": None,
            "amount": 200,
            "text": "200",
            "price": {"id": "p2"},
            "list": {"data": [{"price": {"id": "p2", "unit_amount": 20}}]},
        },
        "previous_attributes": {
            "status": "trialing",
            "flag": False,
            "was_null": None,
            "now_null": "x",
            "amount": 100,
            "text": "300",
            "price": "p1",
            "both_null": None,
            "list": {"data": [{"price": {"id": "p1", "unit_amount": 10}}]},
        },
    },
}


def no_faults(where, sentence):
    raise AssertionError(f"{where}: {sentence}")


def holds(when, body=BODY):
    return compile_when(when, no_faults).test(Document(body=body)) is None


@pytest.mark.parametrize(
    "when",
    [
        {"s": "paid"},
        {"n": 49},
        {"n": "49"},
        {"n": "49.0"},
        {"ns": 49},
        {"n": ExactFloat("49.00")},
        {"f": "0.1"},
        {"big": "12345678901234567890"},
        {"yes": True},
        {"yes": "true"},
        {"yes_text": True},
        {"no": False},
        {"no": "false"},
        {"zero": 0},
        {"zero": {"exists": True}},
        {"no": {"exists": True}},
        {"empty": {"exists": True}},
        {"empty": ""},
        {"s": ["open", "paid"]},
        {"n": [1, "49"]},
        {"missing": None},
        {"null": None},
        {"null": {"exists": False}},
        {"missing": {"exists": False}},
        {"missing": {"not": "paid"}},
        {"missing": {"not_in": ["paid"]}},
        {"missing": {"not": {"prefix": "x"}}},
        {"missing": {"not": {"gt": 1}}},
        {"missing": [None, "x"]},
        {"n": {"gt": 48, "lt": 50}},
        {"n": {"gte": 49, "lte": 49}},
        {"ns": {"gt": 48}},
        {"f": {"lte": ExactFloat("0.1"), "gte": ExactFloat("0.1")}},
        {"n": {"gt": {"path": "limit"}}},
        {"s": {"path": "same"}},
        {"s": {"not": {"path": "missing"}}},
        {"s": {"in": ["paid"]}},
        {"s": {"prefix": "pa", "suffix": "id", "contains": "ai"}},
        {"s": {"glob": "p?i*"}},
        {"s": {"glob": "paid"}},
        {"s": {"not": {"prefix": "warning_"}}},
        {"s": {"not": ["open", "void"]}},
        {"s": {"any": [{"prefix": "x"}, {"suffix": "id"}]}},
        {"s": {"all": [{"prefix": "p"}, {"suffix": "d"}]}},
        {"list": {"contains": "a"}},
        {"list": {"contains": "2"}},
        {"list": {"contains": "x1"}},
        {"customer": "cus_1"},
        {"customer": {"exists": True}},
        {"object": {"exists": True}},
        {"any": [{"s": "open"}, {"n": 49}]},
        {"any": {"s": "open", "n": 49}},
        {"all": [{"s": "paid"}, {"n": 49}]},
        {"not": {"s": "open"}},
        {"not": {"s": "paid", "n": 50}},
        {"not": {"any": [{"s": "open"}, {"n": 50}]}},
        {"body.any": None},
        {"data.object.status": {"changed": True}},
        {"data.object.status": {"changed": True, "in": ["active"]}},
        {"data.object.flag": {"changed": True, "in": [True]}},
        {"data.object.was_null": {"changed": True}},
        {"data.object.now_null": {"changed": True}},
        {"data.object.now_null": {"changed": True, "exists": False}},
        {"data.object.both_null": {"changed": False}},
        {"data.object.never": {"changed": False}},
        {"data.object.amount": {"changed": "up"}},
        {"data.object.text": {"changed": "down"}},
        {"data.object.price": {"changed": True}},
        {"data.object.list.data[0].price.id": {"changed": True}},
        {"data.object.list.data[0].price.unit_amount": {"changed": "up"}},
        {"body.data.object.status": {"changed": True}},
        {"long": {"exists": True}},
        {"huge": "1e999999999"},
        {},
    ],
)
def test_it_holds(when):
    assert holds(when)


@pytest.mark.parametrize(
    "when",
    [
        {"s": "Paid"},
        {"s": "pai"},
        {"n": 48},
        {"n": "49x"},
        {"n": "forty-nine"},
        {"n": " 49"},
        {"big": "12345678901234567891"},
        {"f": "0.10000000000000001"},
        {"yes": "True"},
        {"yes": 1},
        {"zero": False},
        {"no": 0},
        {"zero": ""},
        {"zero": None},
        {"empty": None},
        {"missing": "paid"},
        {"missing": ["paid"]},
        {"missing": {"exists": True}},
        {"missing": {"gt": 0}},
        {"missing": {"lt": 0}},
        {"missing": {"prefix": "x"}},
        {"missing": {"contains": "x"}},
        {"missing": {"glob": "*"}},
        {"missing": {"path": "also_missing"}},
        {"missing": {"not": None}},
        {"missing": {"in": ["x"]}},
        {"null": {"exists": True}},
        {"n": {"gt": 49}},
        {"n": {"gt": 1, "lt": 2}},
        {"s": {"gt": 1}},
        {"yes": {"gt": 0}},
        {"n": {"gt": {"path": "missing"}}},
        {"n": {"gt": {"path": "s"}}},
        {"huge": {"gt": 0}},
        {"exponent": {"gt": 0}},
        {"long": {"gt": 0}},
        {"object": "x"},
        {"object": {"prefix": "{"}},
        {"list": "a"},
        {"list": {"contains": "b"}},
        {"s": {"glob": "p?d"}},
        {"s": {"glob": "*x*"}},
        {"any": [{"s": "open"}, {"n": 50}]},
        {"all": [{"s": "paid"}, {"n": 50}]},
        {"not": {"s": "paid"}},
        {"data.object.status": {"changed": False}},
        {"data.object.never": {"changed": True}},
        {"data.object.both_null": {"changed": True}},
        {"data.object.amount": {"changed": "down"}},
        {"data.object.status": {"changed": "up"}},
        {"data.object.was_null": {"changed": "up"}},
    ],
)
def test_it_does_not_hold(when):
    assert not holds(when)


def test_a_renewal_that_only_moves_the_period_changes_no_price():
    item = {"price": {"id": "p1", "unit_amount": 10}}
    body = {
        "data": {
            "object": {"items": {"data": [item | {"end": 2}]}},
            "previous_attributes": {"items": {"data": [item | {"end": 1}]}},
        }
    }
    assert not holds({"data.object.items.data[0].price.id": {"changed": True}}, body)
    assert holds({"data.object.items": {"changed": True}}, body)


def test_an_element_of_what_was_no_list_before_counts_as_unchanged():
    body = {"data": {"object": {"seats": ["a"]}, "previous_attributes": {"seats": 1}}}
    assert holds({"data.object.seats[0]": {"changed": False}}, body)
    assert holds({"data.object.seats": {"changed": True}}, body)


@pytest.mark.parametrize(
    ("when", "path", "expected", "actual"),
    [
        ({"s": "open"}, "s", "open", "paid"),
        ({"n": 49, "s": ["open", "void"]}, "s", "one of open, void", "paid"),
        ({"zero": {"gt": 0}}, "zero", "gt 0", "0"),
        ({"missing": True}, "missing", "true", "missing"),
        ({"null": {"exists": True}}, "null", "a value", "missing"),
        ({"s": {"not": {"prefix": "pa"}}}, "s", "not prefix pa", "paid"),
        ({"s": {"prefix": "x", "suffix": "d"}}, "s", "prefix x and suffix d", "paid"),
        ({"customer": "cus_2"}, "customer", "cus_2", "cus_1"),
        ({"object": 1}, "object", "1", "an object with 1 entries"),
        ({"empty": "x"}, "empty", "x", '""'),
        ({"data.object.status": {"changed": False}}, "data.object.status", "unchanged", "active"),
        (
            {"any": [{"s": "open"}, {"n": {"gt": 50}}]},
            "s",
            "any of: s is open; n is gt 50",
            "paid; n is 49",
        ),
        ({"not": {"s": "paid"}}, "s", "not (s is paid)", "paid"),
        ({"not": {"s": "paid", "n": 49}}, "s", "not (s is paid and n is 49)", "paid; n is 49"),
    ],
)
def test_a_failure_says_path_expected_and_actual(when, path, expected, actual):
    failure = compile_when(when, no_faults).test(Document(body=BODY))
    assert failure is not None
    assert (failure.path, failure.expected, failure.actual) == (path, expected, actual)


def test_a_long_value_is_cut_in_the_trace():
    failure = compile_when({"x": "y"}, no_faults).test(Document(body={"x": "a\nb" * 1000}))
    assert failure is not None
    assert len(failure.actual) == 80
    assert "\n" not in failure.actual


def test_a_glob_over_a_hostile_text_is_quick():
    text = "a" * 200_000
    assert not holds({"x": {"glob": "*a" * 20 + "b"}}, {"x": text})


@pytest.mark.parametrize(
    ("when", "where", "words"),
    [
        ({"a": {"greater": 1}}, ("a", "greater", "~key"), "unknown operator"),
        ({"a": {"prefx": "x"}}, ("a", "prefx", "~key"), 'did you mean "prefix"?'),
        ({"a": {"gt": "many"}}, ("a", "gt"), "takes a number"),
        ({"a": {"exists": "yes"}}, ("a", "exists"), "true or false"),
        ({"a": {"changed": True}}, ("a", "changed", "~key"), "below data.object"),
        ({"data.object": {"changed": True}}, ("data.object", "changed", "~key"), "below data.object"),
        ({"data.object.a": {"changed": 1}}, ("data.object.a", "changed"), "true, false, up or down"),
        ({"a": {"in": "x"}}, ("a", "in"), "a list"),
        ({"a": []}, ("a",), "at least one"),
        ({"a": {}}, ("a",), "expects nothing"),
        ({"a..b": 1}, ("a..b", "~key"), "cannot be read"),
        ({"any": []}, ("any",), "a list of conditions"),
        ({"any": ["x"]}, ("any", 0), "a map of path to expectation"),
        ({"not": "x"}, ("not",), "a map of path to expectation"),
        ({"a": {"gt": {"path": "b..c"}}}, ("a", "gt"), "cannot be read"),
        ([{"a": 1}], (), "a map of path to expectation"),
    ],
)
def test_a_fault_says_where_and_what(when, where, words):
    found = []
    compile_when(when, lambda at, sentence: found.append((at, sentence)))
    assert len(found) == 1, found
    assert found[0][0] == where
    assert words in found[0][1]


def test_conditions_nest_only_so_deep():
    when: dict = {"a": 1}
    for _ in range(30):
        when = {"not": when}
    found = []
    compile_when(when, lambda _at, sentence: found.append(sentence))
    assert found == ["conditions are nested more than 10 levels deep"]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("1e999999")
JSON = st.recursive(
    SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("ab"), x, max_size=3), max_leaves=8
)
EVERY_OPERATOR = compile_when(
    {
        "any": [
            {"a": {"gt": 1, "gte": {"path": "b"}, "lt": 2, "lte": {"path": "b"}}},
            {"a": {"not": {"in": ["x"]}, "not_in": [1], "prefix": {"path": "b"}, "suffix": "y"}},
            {"a": {"contains": {"path": "b"}, "glob": "*x*", "exists": True, "path": "b"}},
            {"a": [1, "x", True, None], "b": None},
            {"data.object.a": {"changed": True}, "data.object.b": {"changed": "up"}},
        ],
        "not": {"a": 1},
    },
    no_faults,
)


@given(JSON, JSON, JSON)
def test_no_operator_ever_raises(a, b, previous):
    body = {"a": a, "b": b, "data": {"object": {"a": a, "b": b}, "previous_attributes": previous}}
    EVERY_OPERATOR.test(Document(body=body))


@given(st.integers(-(10**40), 10**40), st.integers(-(10**40), 10**40))
def test_integers_compare_exactly_as_numbers_and_as_texts(a, b):
    body = {"a": a, "b": str(b)}
    assert holds({"a": {"path": "b"}}, body) == (a == b)
    assert holds({"a": {"gt": {"path": "b"}}}, body) == (a > b)
