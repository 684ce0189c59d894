from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.model import MISSING, Document, ExactFloat
from bridge.rules.language.paths import compile_path, reads_list, value_name

BODY = {
    "id": "evt_1",
    "data": {
        "object": {
            "id": "cs_1",
            "amount": 0,
            "paid": False,
            "customer": {"id": "cus_1", "email": "a@example.com"},
            "subscription": "sub_1",
            "metadata": {"plan": "pro", "note": None, "empty": "", "id": None},
            "items": {"data": [{"id": "si_1", "price": {"id": "price_1"}}, {"id": "si_2", "price": None}]},
        }
    },
    "a.b": {"c d": 1},
    "header": {"x": "of the body"},
    "notes": [
        {"name": "color", "value": "green"},
        {"name": "visitor", "value": "v1", "meta": {"deep": {"id": "x"}}},
        {"name": "What should we talk about?", "value": "prices"},
        {"n": 7, "flag": True, "value": "seven"},
        {"of": {"the": "product", "kind": "gift"}, "value": "dotted"},
    ],
    "json": json.dumps({"visitor": "v2", "list": [1, {"x": 2}], "float": 4.1}),
    "broken": "{not json",
}
DOCUMENT = Document(
    body=BODY,
    header={"x-topic": "orders/paid", "x.y": "dotted"},
    query={"token": "t", "hub.mode": "subscribe"},
    envelope={"type": "order.paid", "id": None, "test": False, "time": 5},
    key={"subscription": "sub_9"},
    root={"account": "acct_1"},
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "evt_1"),
        ("data.object.amount", 0),
        ("data.object.paid", False),
        ("data.object.items.data[0].id", "si_1"),
        ("data.object.items.data[-1].id", "si_2"),
        ("data.object.items.data[1].price", MISSING),
        ("data.object.items.data[2].id", MISSING),
        ("data.object.items.data[-3].id", MISSING),
        ("data.object.metadata.note", MISSING),
        ("data.object.metadata.note.deeper", MISSING),
        ("data.object.metadata.empty", ""),
        ("data.object.nothing.at.all", MISSING),
        ("data.object.amount.deeper", MISSING),
        ("data.object.items[0]", MISSING),
        ("notes.value", MISSING),
        ('"a.b"."c d"', 1),
        ('["a.b"]["c d"]', 1),
        ("notes[name=visitor].value", "v1"),
        ("notes[name=visitor].meta.deep", "x"),
        ("notes[name=What should we talk about?].value", "prices"),
        ('notes[name="visitor"].value', "v1"),
        ("notes[n=7].value", "seven"),
        ("notes[flag=true].value", "seven"),
        ("notes[of.the=product].value", "dotted"),
        ("notes[name=nobody].value", MISSING),
        ("data[name=x].value", MISSING),
        ("header.x-topic", "orders/paid"),
        ("header.X-Topic", "orders/paid"),
        ('header."x.y"', "dotted"),
        ("query.token", "t"),
        ('query."hub.mode"', "subscribe"),
        ("envelope.type", "order.paid"),
        ("envelope.id", MISSING),
        ("envelope.test", False),
        ("key.subscription", "sub_9"),
        ("key.order", MISSING),
        ("root.account", "acct_1"),
        ("body.header.x", "of the body"),
        ("body.id", "evt_1"),
        ('"header".x', "of the body"),
        ("json.visitor", "v2"),
        ("json.list[1].x", 2),
        ("broken.x", MISSING),
        ("broken", "{not json"),
        ("id.x", MISSING),
    ],
)
def test_a_path_reads_what_the_grammar_says(path, value):
    found = compile_path(path).read(DOCUMENT)
    assert found == value
    assert type(found) is type(value)


def test_an_element_is_found_by_a_number_however_it_is_written():
    body = {"list": [{"n": ExactFloat("2.0"), "v": "a"}, {"n": "3", "v": "b"}]}
    assert compile_path("list[n=2].v").read(Document(body=body)) == "a"
    assert compile_path("list[n=3].v").read(Document(body=body)) == "b"


def test_an_expanded_object_reads_as_its_id_at_the_end_of_a_path():
    assert compile_path("data.object.customer").read(DOCUMENT) == "cus_1"
    assert compile_path("data.object.subscription").read(DOCUMENT) == "sub_1"
    assert compile_path("data.object.customer.email").read(DOCUMENT) == "a@example.com"


def test_the_whole_object_can_still_be_read():
    assert compile_path("data.object.customer").whole(DOCUMENT) == BODY["data"]["object"]["customer"]


def test_an_object_whose_id_is_null_stays_an_object():
    assert compile_path("data.object.metadata").read(DOCUMENT) == BODY["data"]["object"]["metadata"]


def test_the_text_of_a_float_in_a_text_is_kept():
    assert repr(compile_path("json.float").read(DOCUMENT)) == "4.1"


def test_root_is_the_body_where_nothing_else_is_said():
    assert compile_path("root.id").read(Document(body={"id": "x"})) == "x"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "empty"),
        ("a.", 'ends with "."'),
        ("a..b", 'cannot be read from ".b"'),
        (".a", "cannot be read"),
        ("a[", 'after "["'),
        ("a[x]", 'after "["'),
        ("a[0", 'after "["'),
        ("a b", "cannot be read"),
        ('a."b', "never closed"),
        ("a{b}", "cannot be read"),
        ("a[0]b", "cannot be read"),
        ("a.'b c'", 'is quoted with "'),
        ("'a'", 'is quoted with "'),
        (".".join("a" * 60), "40 are allowed"),
        ("x" * 501, "500 are allowed"),
    ],
)
def test_what_is_no_path_is_refused_with_a_sentence(path, words):
    with pytest.raises(ValueError, match="path") as caught:
        compile_path(path)
    assert words in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abid"), inner, max_size=4),
    max_leaves=20,
)
PATHS = [compile_path(text) for text in ("a", "a.b", "a[0].b", "a[-1]", "a[b=c].d", "body", "a.b.id", "header.a")]


@given(JSON)
@example({"a": "[" * 100_000})
@example({"a": '{"b": ' * 50_000})
@example({"a": '{"b": NaN}'})
def test_reading_never_raises_whatever_the_body(body):
    document = Document(body=body, header={"a": "x"})
    for path in PATHS:
        path.read(document)
        path.whole(document)


@given(st.text(max_size=60))
def test_compiling_raises_nothing_but_a_sentence(text):
    with contextlib.suppress(ValueError):
        compile_path(text)


@pytest.mark.parametrize("body", [{}, {"a": None}, {"a": 1}, {"a": "x"}, {"a": {"b": 1}}])
def test_a_star_where_there_is_no_list_reads_nothing_at_all(body):
    path = compile_path("a.*.b")
    assert path.read(Document(body)) is MISSING
    assert path.whole(Document(body)) is MISSING


def test_a_star_leaves_out_what_is_not_there_and_reads_an_empty_list_as_one():
    path = compile_path("a.*.b")
    assert path.whole(Document({"a": [{"b": 1}, {"b": None}, {}, 7, None, {"b": 0}]})) == [1, 0]
    assert path.read(Document({"a": []})) == []
    assert compile_path("a.*.b.*").read(Document({"a": [{"b": [1]}, {"b": 2}, {}, {"b": [3]}]})) == [1, 3]


def test_how_long_a_path_may_be():
    for text in ("a" * 500, ".".join("a" * 40), f" {'a' * 500} "):
        assert compile_path(text).text == text.strip()
    for text, words in (("a" * 501, "501 characters"), (".".join("a" * 41), "41 parts")):
        with pytest.raises(ValueError, match=words):
            compile_path(text)


def test_what_is_said_of_a_path_by_its_form():
    told = {text: (reads_list(compile_path(text)), value_name(compile_path(text))) for text in FORMS}
    assert told == FORMS


FORMS = {
    "a.b": (False, None),
    "a.*": (True, None),
    "was.a.b": (False, None),
    "was.a.*.b": (True, None),
    "value.plan": (False, "plan"),
    "value.plan.a": (False, "plan"),
    "value.plan.*.a": (True, "plan"),
    "was.value.plan": (False, "plan"),
    "value": (False, None),
    "value[0].a": (False, None),
    "value.*": (True, None),
    "was": (False, None),
}


def test_there_is_one_event_before_the_change():
    with pytest.raises(ValueError, match="twice"):
        compile_path("was.was.a")


CHANGED = Document(
    body={"data": {"object": {"plan": {"id": "p_2"}}, "previous_attributes": {"plan": {"id": "p_1"}}}},
    header={"plan": "of the header"},
)


def test_what_was_before_a_change_is_read_whole_too():
    path = compile_path("was.data.object.plan")
    assert path.read(CHANGED) == "p_1"
    assert path.whole(CHANGED) == {"id": "p_1"}


@pytest.mark.parametrize("read", ["read", "whole"])
def test_a_field_that_is_called_was_is_that_field(read):
    body = {"was": {"plan": "mine"}, "plan": "p_2"}
    assert getattr(compile_path("was.plan"), read)(Document(body=body)) == "mine"


@pytest.mark.parametrize("name", ["was", "value"])
def test_a_star_reads_the_list_in_a_field_of_such_a_name(name):
    document = Document(body={name: {"lines": [{"sku": "a"}, {"sku": {"id": "b"}}]}})
    path = compile_path(f"{name}.lines.*.sku")
    assert (path.read(document), path.whole(document)) == (["a", "b"], ["a", {"id": "b"}])
