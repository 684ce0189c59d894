"""Bodies are written as the providers write them, and say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox import encode

FIXTURES = Path(__file__).parents[2] / "fixtures" / "simulator" / "stripe"
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("write", [encode.stripe, encode.lemonsqueezy, encode.compact])
@given(document=DOCUMENTS)
def test_a_body_says_what_it_was_made_of(write: object, document: object) -> None:
    assert json.loads(write(document)) == document


def test_lemonsqueezy_writes_as_php_does() -> None:
    body = {"url": "https://a.b/c", "total_formatted": "€19.99", "name": "Zoë 😀", "n": 1}
    expected = rb'{"url":"https:\/\/a.b\/c","total_formatted":"\u20ac19.99","name":"Zo\u00eb \ud83d\ude00","n":1}'
    assert encode.lemonsqueezy(body) == expected


@pytest.mark.parametrize("name", ["2020.invoice.paid", "2020.charge.refunded", "2020.customer.subscription.updated"])
def test_stripe_writes_a_real_event_byte_for_byte(name: str) -> None:
    """Key order and indentation are the real ones, whatever order the keys come in."""
    real = (FIXTURES / f"{name}.json").read_text()
    shuffled = json.loads(real, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert encode.stripe(shuffled).decode() == json.dumps(json.loads(real), indent=2, ensure_ascii=False)
