from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import Document, ExactFloat
from bridge.rules.language.filters import FILTERS, Scope, compile_filter
from bridge.rules.language.templates import compile_template

BODY = {
    "text": "Crème & Co",
    "n": 4900,
    "neg": -4900,
    "zero": 0,
    "yes": True,
    "no": False,
    "float": ExactFloat("4.10"),
    "exp": ExactFloat("1e3"),
    "plain_float": 2.5,
    "null": None,
    "empty": "",
    "object": {"a": 1},
    "list": [1],
    "customer": {"id": "cus_1"},
    "cur": "usd",
    "jpy": "JPY",
    "kwd": "kwd",
    "isk": "isk",
    "bad_cur": "dollars",
    "refunded": 1500,
    "before": 500,
    "amount": "49.00",
    "third": ExactFloat("0.125"),
    "big": 10**50,
    "huge": "1e999999999",
    "monster": "9" * 5000,
    "s": 1718806094,
    "ms": 1718806094123,
    "iso": "2024-06-19T14:08:14.000000Z",
    "zone": "2024-06-19T01:00:00+02:00",
    "day": "2024-06-19",
    "email": "Ann.Lee@Example.COM",
    "url": "https://user@www.Example.com:8080/x?y=1",
    "broken_url": "https://[::1",
    "deep": {"plan": "pro", 'qu"ote': 1},
    "notes": [{"name": "a|b}", "value": "odd"}],
    "long": "x" * 300,
    "odd": "a\x00b\ud800c",
}
MAPS = {"plans": {"pro": "Pro plan", "4900": "forty-nine", "none": ""}}


def render(template, body=BODY, missing=None):
    scope = Scope(Document(body=body), b"key")
    return compile_template(template, MAPS).render(scope, missing=missing)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{literal}} brace", "{literal} brace"),
        ("{text}", "Crème & Co"),
        ("{n}", "4900"),
        ("{yes} {no}", "true false"),
        ("{float} {exp} {plain_float}", "4.10 1e3 2.5"),
        ("{zero}", "0"),
        ("{null}", None),
        ("{empty}", None),
        ("{object}", None),
        ("{list}", None),
        ("{customer}", "cus_1"),
        ("a {nothing} b", None),
        ("{nothing or null or empty or deep.plan}", "pro"),
        ("{object or deep.plan}", "pro"),
        ("{zero or n}", "0"),
        ("{no or n}", "false"),
        ("{ deep.plan }", "pro"),
        ("{notes[name=a|b}].value}", "odd"),
        ('{deep."qu\\"ote"}', "1"),
        ("{odd}", "a\ufffdb\ufffdc"),
        # money and its reverse
        ("{n|money:cur}", "49.00"),
        ("{n|money:USD}", "49.00"),
        ("{neg|money:USD}", "-49.00"),
        ("{zero|money:USD}", "0.00"),
        ("{n|money:jpy}", "4900"),
        ("{n|money:kwd}", "4.900"),
        ("{n|money:isk}", "49.00"),
        ("{n|money:bad_cur}", None),
        ("{n|money:nothing}", None),
        ("{n|money:object}", None),
        ("{text|money:USD}", None),
        ("{yes|money:USD}", None),
        ("{nothing|money:USD}", None),
        ("{huge|money:USD}", None),
        ("{monster|money:USD}", None),
        ("{big|money:USD}", "1" + "0" * 48 + ".00"),
        ("{float|money:USD}", "0.041"),
        ("{amount|minor:cur}", "4900"),
        ("{amount|minor:JPY}", "49"),
        ("{amount|minor:KWD}", "49000"),
        ("{text|minor:cur}", None),
        # numbers
        ("{n|positive}", "4900"),
        ("{zero|positive}", None),
        ("{neg|positive}", None),
        ("{text|positive}", None),
        ("{yes|positive}", None),
        ("{refunded|minus:before}", "1000"),
        ("{refunded|minus:before|money:cur}", "10.00"),
        ("{refunded|minus:nothing}", "1500"),
        ("{refunded|minus:null}", "1500"),
        ("{refunded|minus:text}", None),
        ("{text|minus:before}", None),
        ("{amount|minus:float}", "44.9"),
        ("{float|int}", "4"),
        ("{third|round:2}", "0.13"),
        ("{third|round:0}", "0"),
        ("{n|round:2}", "4900.00"),
        ("{text|int}", None),
        ("{text|round:2}", None),
        # texts
        ("{text|lower}", "crème & co"),
        ("{cur|upper}", "USD"),
        ("{text|slug}", "creme-co"),
        ("{object|slug}", None),
        ("{text|max:5}", "Crème"),
        ("{object|max:5}", None),
        ("{nothing|default:unknown}", "unknown"),
        ("{empty|default:not known}", "not known"),
        ("{null|default:x}", "x"),
        ("{object|default:x}", "x"),
        ("{zero|default:x}", "0"),
        ("{no|default:x}", "false"),
        ('{nothing|default:"a|b}"}', "a|b}"),
        ("{text|slug|upper}", "CREME-CO"),
        ("{deep.plan|map:plans}", "Pro plan"),
        ("{n|map:plans}", "forty-nine"),
        ("{cur|map:plans}", "usd"),
        ("{nothing|map:plans}", None),
        ("{object|map:plans}", None),
        ("{email|domain}", "example.com"),
        ("{url|domain}", "www.example.com"),
        ("{broken_url|domain}", None),
        ("{text|domain}", None),
        ("{n|domain}", None),
        # dates
        ("{s|date:%Y-%m-%d %H:%M}", "2024-06-19 14:08"),
        ("{ms|date:%Y-%m-%dT%H:%M:%S}", "2024-06-19T14:08:14"),
        ("{iso|date:%d.%m.%Y}", "19.06.2024"),
        ("{zone|date:%Y-%m-%d}", "2024-06-18"),
        ("{day|date}", "2024-06-19"),
        ("{text|date:%Y}", None),
        ("{big|date:%Y}", None),
        ("{huge|date:%Y}", None),
        ("{yes|date:%Y}", None),
        ("{object|date:%Y}", None),
        ("{object|hash}", None),
        ("{empty|hash}", None),
        ("{object|lower}", None),
        ("{object|upper}", None),
    ],
)
def test_a_template_renders(template, text):
    assert render(template) == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{n|money:USD}", "0.00"),
        ("{n|money:JPY}", "0"),
        ("{n|minor:USD}", "0"),
        ("{n|int}", "0"),
        ("{n|round:1}", "0.0"),
        ("{small|int}", "0"),
        ("{small|round:0}", "0"),
    ],
)
def test_a_zero_is_never_negative(template, text):
    assert render(template, {"n": ExactFloat("-0.0"), "small": ExactFloat("-0.4")}) == text


def test_a_hash_is_sixteen_hex_digits_of_this_installation():
    import hashlib
    import hmac

    expected = hmac.new(b"key", BODY["email"].encode(), hashlib.sha256).hexdigest()[:16]
    assert render("{email|hash}") == expected


def test_what_is_missing_can_be_empty_instead():
    assert render("Plan {nothing} of {deep.plan}", missing="") == "Plan  of pro"


def test_the_first_missing_placeholder_is_named():
    template = compile_template("{deep.plan}_{nothing|lower}_{null}")
    assert template.first_missing(Scope(Document(body=BODY))) == "{nothing|lower}"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{a", "never closed"),
        ("a}", "without"),
        ("{}", "names no path"),
        ("{a|}", "unknown filter"),
        ("{a|uper}", 'did you mean "upper"?'),
        ("{a|money}", "needs an argument, such as money:data.currency"),
        ("{a|upper:x}", "takes no argument"),
        ("{a|max:many}", "whole number from 1 to 9999"),
        ("{a|max:0}", "whole number"),
        ("{a|round:99}", "whole number"),
        ("{a|map:prices}", "which is not in maps"),
        ("{a|date:%Q}", "a format such as"),
        ("{a..b}", "cannot be read"),
        ("{a or }", "a path is empty"),
        ("{a{b}}", "never closed"),
        ("{a|money:b..c}", "cannot be read"),
        ("x" * 2001, "2000 are allowed"),
        ("{a}" * 31, "more than 30"),
    ],
)
def test_what_is_no_template_is_refused_with_a_sentence(template, words):
    with pytest.raises(ValueError, match=r".") as caught:
        compile_template(template, MAPS)
    assert words in str(caught.value)


CURRENCIES = st.sampled_from(["USD", "JPY", "KWD", "ISK", "EUR"])


@given(st.integers(-(10**18), 10**18), CURRENCIES)
def test_money_and_minor_are_each_others_reverse(amount, currency):
    body = {"n": amount, "c": currency}
    text = render("{n|money:c}", body)
    assert render("{n|minor:c}", {"n": text, "c": currency}) == str(amount)


@given(st.integers(0, 10**20))
def test_money_is_exact(amount):
    assert Decimal(render("{n|money:USD}", {"n": amount})) == Decimal(amount) / 100


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(list(BODY.values())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abid"), inner, max_size=3),
    max_leaves=8,
)
EVERY_FILTER = [
    compile_filter(text, MAPS)
    for text in (
        "money:o", "money:USD", "minor:o", "positive", "minus:o", "int", "round:3", "default:x", "max:3", "map:plans",
        "date:%Y", "lower", "upper", "slug", "domain", "hash", "plus:o", "sum", "count", "min", "max", "first", "last",
        "join", "join:/",
    )
]  # fmt: skip


def test_the_list_above_is_every_filter():
    assert len(EVERY_FILTER) == len(FILTERS) + 3


@given(JSON, JSON)
def test_no_filter_ever_raises(value, other):
    scope = Scope(Document(body={"o": other}), b"key")
    for apply in EVERY_FILTER:
        apply(value, scope)


@given(st.text(max_size=40))
def test_compiling_raises_nothing_but_a_sentence(text):
    for template in (text, "{" + text + "}"):
        with contextlib.suppress(ValueError):
            compile_template(template)


def test_how_long_a_template_may_be_and_how_many_placeholders_it_may_have():
    assert compile_template("x" * 2_000).literal == "x" * 2_000
    assert len(compile_template("{a}" * 30).placeholders) == 30
    for text, words in (("x" * 2_001, "2001 characters"), ("{a}" * 31, "more than 30")):
        with pytest.raises(ValueError, match=words):
            compile_template(text)


def test_a_template_says_which_placeholder_has_no_value():
    scope = Scope(Document({"a": "x", "b": "", "c": None}))
    assert compile_template("{a}-{b}-{c}").first_missing(scope) == "{b}"
    assert compile_template("{a}").first_missing(scope) is None
    assert [compile_template(text).render(scope) for text in ("{a}{{}}", "{b}", "{a} {c}")] == ["x{}", None, None]
    assert [compile_template(text).render(scope, missing="?") for text in ("{b}", "{a} {c}")] == ["?", "x ?"]


@pytest.mark.parametrize(("text", "rendered"), [('{a[k="}"].v}', "1"), ('{a[k="|"].v}', "2"), ('{a[k=" or "].v}', "3")])
def test_what_stands_in_brackets_or_quotes_ends_no_placeholder_and_splits_none(text, rendered):
    elements = [{"k": "}", "v": 1}, {"k": "|", "v": 2}, {"k": " or ", "v": 3}]
    assert compile_template(text).render(Scope(Document({"a": elements}))) == rendered
