"""Bytes become a document in one way only, or not at all."""

import json
import time
from urllib.parse import parse_qsl, unquote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources_kit import source, source_of

from bridge import sources
from bridge.errors import UnreadableBody
from bridge.sources.body import MAX_DEPTH, MAX_DIGITS, form_fields, parse_json

FORM = source("gumroad")
FIELD = source("kofi")


def fault(body, made=None):
    with pytest.raises(UnreadableBody) as caught:
        sources.parse(made or source("stripe"), body)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body is empty"),
        (b" \r\n", "the body is empty"),
        (b"not json", "the body is not JSON: Expecting value at line 1, column 1"),
        (b'{"a": 1} trailing', "the body is not JSON: Extra data at line 1, column 10"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "same key twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "NaN or Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 0.' + b"1" * 90 + b"}", "too long"),
        (b'{"a": ' + b"9" * 5000 + b"}", "integer of more than 40 digits"),
        (b'{"a": "x\x01"}', "the body is not JSON: Invalid control character"),
        (b'{"\\u0000": 1, "\\udc00": 2}', "same key twice"),
        (b"[" * 100_000, "deeper than 64"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper than 64"),
        (b"{'a': 1}", "the body is not JSON"),
    ],
)
def test_a_body_that_can_be_read_in_two_ways_or_in_none_is_refused_with_a_sentence(body, sentence):
    assert sentence in fault(body)


def test_a_message_holds_nothing_of_the_body():
    assert "secret" not in fault(b'{"secret": 1, "secret": 2}') + fault(b"secret") + fault(b'{"a": "secret\xff"}')


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b'{"a": "\\ud83d\\ude00 caf\\u00e9 \\/"}', {"a": "😀 café /"}),
        (b'{"a": "\\\\u0000 \\\\ud83d"}', {"a": "\\u0000 \\ud83d"}),
        (b' [1, "]]]]", {"x": "{{{{"}]\n', [1, "]]]]", {"x": "{{{{"}]),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "\xed\xa0\xbd"}', {"a": "\ufffd"}),
        (b'{"a": "Ada \\ud83d"}', {"a": "Ada \ufffd"}),
        (b'{"\\udc00": [{"b": "x\\ud83dy"}]}', {"\ufffd": [{"b": "x\ufffdy"}]}),
        (b'{"a": "x\\u0000y\\\\u0000"}', {"a": "x\ufffdy\\u0000"}),
        (b'{"a": "x\0"}', {"a": "x\ufffd"}),
        (b'{"a": ' + b"9" * MAX_DIGITS + b"}", {"a": int("9" * MAX_DIGITS)}),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
    ],
)
def test_what_is_unusual_but_clear_is_read(body, document):
    read = parse_json(body)
    assert document is None or read == document


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2])
@pytest.mark.parametrize("inner", [b'"]}\\"]}"', b'"[[[[{{{{"', b"1", b'"\\\\"'])
def test_depth_is_counted_outside_of_texts(depth, inner):
    body = b'{"a":[' * (depth // 2) + (b"[" if depth % 2 else b"") + inner + (b"]" if depth % 2 else b"")
    body += b"]}" * (depth // 2)
    if depth <= MAX_DEPTH:
        assert parse_json(body) == json.loads(body)
    else:
        assert "deeper" in fault(body)


def test_many_shallow_objects_are_not_deep():
    body = json.dumps([{"a": ["x"], "b": {"c": "}{]["}}] * 500).encode()
    assert len(parse_json(body)) == 500


def test_a_price_keeps_its_digits():
    price = parse_json(b'{"price": 19.90}')["price"]
    assert (price.text, price) == ("19.90", 19.9)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
jsons = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(jsons, st.booleans())
def test_every_plain_document_is_read_as_it_is(document, ascii_only):
    assert parse_json(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text('[]{}",:\\u0123 dD8', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_and_nothing_else(body):
    for made in (source("stripe"), FORM, FIELD):
        try:
            sources.parse(made, body)
        except UnreadableBody:
            continue


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000 + b"]" * 500_000,
        b"%" * 1_000_000,
        b"a=1&" * 250_000,
        *(
            pytest.param(long, marks=pytest.mark.long)
            for long in (
                b'["' + b'\\"' * 500_000 + b'"]',
                b"{}" * 500_000,
                b'{"a":"' * 150_000,
                b"[" + b"[],{}," * 150_000 + b"1]",
                b"a" + b"[b]" * 300_000 + b"=1",
                b"a[b]" + b"[" * 900_000,
            )
        ),
    ],
    ids=range(9),
)
def test_a_megabyte_of_malice_takes_bounded_time(body):
    """Generous by two orders of magnitude, and of this process's own time: what is quadratic takes minutes."""
    start = time.process_time()
    for made in (source("stripe"), FORM):
        try:
            sources.parse(made, body)
        except UnreadableBody:
            continue
    assert time.process_time() - start < 20


# ------------------------------------------------------------------------------------------------------- forms


@given(
    st.lists(
        st.sampled_from(["%", "%4", "%41", "%c3%a9", "%C3", "%A9", "é", "&", "=", "+", "a[b]", "%zz", "%%41", "%00"])
    )
)
def test_a_form_is_decoded_as_the_standard_library_decodes_it(pieces):
    body = "".join(["a=", *pieces])
    try:
        expected = [
            (name.replace("\0", "\ufffd"), value.replace("\0", "\ufffd"))
            for name, value in parse_qsl(body, keep_blank_values=True, errors="strict")
        ]
    except UnicodeDecodeError:
        with pytest.raises(UnreadableBody, match="not UTF-8"):
            form_fields(body.encode())
    else:
        assert form_fields(body.encode()) == expected


@pytest.mark.long
@pytest.mark.parametrize("piece", [b"%", pytest.param(b"%4", marks=pytest.mark.long)])
def test_a_megabyte_of_stray_percent_signs_is_cheap(piece):
    """Some senders' signatures are in the form itself, so anybody can have it read."""
    body = b"a=" + piece * (2**20 // len(piece))
    assert _fastest(lambda: form_fields(body)) < _fastest(lambda: unquote_plus(body.decode())) / 2


def _fastest(work):
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b"a=1&b=two+words&c=%C3%A9", {"a": "1", "b": "two words", "c": "é"}),
        (b"u%5Bid%5D=1&u[name]=x", {"u": {"id": "1", "name": "x"}}),
        (b"a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        (b"a[]=1&a[]=2", {"a": ["1", "2"]}),
        (b"a[x][]=1", {"a": {"x": ["1"]}}),
        (b"a=1&a=2", {"a": "2"}),
        (b"a=1&a[b]=2", {"a": {"b": "2"}}),
        (b"empty=&flag", {"empty": "", "flag": ""}),
        (b"a[b=1&[c]=2&a]d=3", {"a[b": "1", "[c]": "2", "a]d": "3"}),
        (b"price=1%2E50&x=a%26b%3Dc", {"price": "1.50", "x": "a&b=c"}),
    ],
)
def test_a_form_nests_by_its_brackets(body, document):
    assert sources.parse(FORM, body) == document


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "empty"),
        (b"a=%ff", "not UTF-8"),
        (b"\xff=1", "not UTF-8"),
        (b"&&&", "not a form"),
        (b"a=1&" * 20_000, "more than 10000 fields"),
        (b"a" + b"[b]" * 100 + b"=1", "deeper than 64"),
    ],
)
def test_a_form_that_is_none_is_refused_with_a_sentence(body, sentence):
    assert sentence in fault(body, FORM)


def test_the_document_of_a_form_field_is_as_strict_as_any():
    assert sources.parse(FIELD, b"data=%7B%22a%22%3A1%7D&other=x") == {"a": 1}
    assert "no field 'data'" in fault(b"other=1", FIELD)
    assert "not JSON" in fault(b"data=x", FIELD)
    assert "same key twice" in fault(b"data=%7B%22a%22%3A1%2C%22a%22%3A2%7D", FIELD)


def test_the_fields_of_a_form_keep_their_order_and_repetition():
    assert form_fields(b"b=2&a=1&b=1") == [("b", "2"), ("a", "1"), ("b", "1")]


def test_any_source_can_say_that_its_body_is_a_form():
    made = source_of("custom", {"verify": {"type": "token", "signature": {"in": "query:token"}}, "body": "form"})
    assert sources.parse(made, b"a=1") == {"a": "1"}
