"""What the page of an event makes of a body, of names that tell of people, and of a provider's address."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bridge import loading
from bridge.masking import names_person
from bridge.workbench.body import SHOWN_MAX, provider_page, shown_body

STRIPE = loading.from_preset("stripe", "stripe", {})


def told(body, find="", *, personal=True, secrets=(), source=STRIPE):
    shown = shown_body(SimpleNamespace(body=body), source, secrets, find, personal=personal)
    return shown, "\n".join("".join(part.text for part in line.parts) for line in shown.lines)


@pytest.mark.parametrize(
    "body", [b'{"a": 4.10, "b": 1e3, "c": [], "": {"d": null}}', b"[1, 2]", b'"x"', b"12345678901234567890"]
)
def test_a_body_stays_the_same_document_with_its_numbers_as_they_were_written(body):
    _, text = told(body)
    assert text.replace("\n", "").replace(" ", "") == body.decode().replace(" ", "")


def test_what_would_move_a_cursor_is_spelled_out():
    assert told(b'{"a": "\xe2\x80\xae\\u001b[2J"}')[1] == '{\n  "a": "\\u202e\\u001b[2J"\n}'
    shown, text = told(b"{\xe2\x80\xae\x1b[2J\xff")
    assert text == "{\\u202e\\x1b[2J\\xff"
    assert shown.unreadable


@pytest.mark.parametrize("body", [b'{"a": "' + b"x" * 300_000 + b'"}', b"[" + b"0," * 20_000 + b"0]", b"x\n" * 20_000])
def test_a_long_body_is_cut(body):
    shown, text = told(body)
    assert shown.cut
    assert len(text) <= 2 * SHOWN_MAX
    shown, text = told(body, "0" if b"0" in body else "x")
    assert shown.found > 1_000
    assert len(text) <= 2 * SHOWN_MAX


def test_what_is_found_is_shown_with_the_lines_around_it():
    body = b"[" + b",".join(b"%d" % number for number in range(20_000)) + b"]"
    shown, text = told(body, "15000")
    assert text.split() == ["14998,", "14999,", "15000,", "15001,", "15002,"]
    assert [line.number for line in shown.lines if line.gap] == [15_000]
    assert [part.text for line in shown.lines for part in line.parts if part.found] == ["15000"]
    assert told(body, "no such thing")[0].lines == ()


def test_a_secret_is_hidden_wherever_it_stands():
    assert "whsec_abcdefgh" not in told(b'{"a": "x whsec_abcdefgh y"}', secrets=("whsec_abcdefgh",))[1]


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("email", ""), ("customerEmail", ""), ("phone_number", ""), ("first_name", ""), ("name", "customer"),
        ("name", "billing_details"), ("full_name", ""), ("line1", "address"), ("street_address", ""), ("ip", ""),
    ],
)  # fmt: skip
def test_these_fields_tell_of_a_person(name, within):
    assert names_person(name, within)


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("name", "product"), ("name", ""), ("plan_name", ""), ("country", "address"), ("amount", "customer"),
        ("email_verified", ""), ("description", ""), ("shipping", "zip_file"), ("recipe", ""), ("id", "customer"),
    ],
)  # fmt: skip
def test_these_do_not(name, within):
    assert not names_person(name, within)


def at(provider, event_type, event_id, body=b"{}", *, test=False, account=None):
    line = SimpleNamespace(provider=provider, type=event_type, provider_event_id=event_id, account=account, test=test)
    source = loading.from_preset(provider, provider, {})
    return provider_page(SimpleNamespace(line=line, event=SimpleNamespace(body=body)), source)


def test_the_providers_own_page():
    assert at("stripe", "charge.refunded", "evt_1") == "https://dashboard.stripe.com/events/evt_1"
    assert at("stripe", "x", "evt_1", test=True) == "https://dashboard.stripe.com/test/events/evt_1"
    body = b'{"data": {"id": "txn_1"}}'
    assert at("paddle", "transaction.completed", "evt_1", body) == "https://vendors.paddle.com/transactions-v2/txn_1"
    assert at("paddle", "customer.created", "evt_1", body) is None
    assert at("stripe", "x", "evt_1", account="acct_1") == "https://dashboard.stripe.com/acct_1/events/evt_1"
    assert (
        at("stripe", "x", "evt_1", account="acct_1", test=True)
        == "https://dashboard.stripe.com/acct_1/test/events/evt_1"
    )
    body = b'{"data": {"id": 12, "attributes": {"identifier": "104e18a2-d755-4d4b"}}}'
    assert at("lemonsqueezy", "order_created", None, body) == "https://app.lemonsqueezy.com/orders/104e18a2-d755-4d4b"
    assert at("clerk", "user.created", "evt_1") is None


@pytest.mark.parametrize(
    "event_id", [None, "", "../x", "a/b", "evt_1?x=", "javascript:alert(1)", "évt", "x" * 201, "a b"]
)
def test_what_is_no_id_makes_no_address(event_id):
    assert at("stripe", "charge.refunded", event_id) is None
    assert at("paddle", "transaction.paid", "evt_1", b'{"data": {"id": ["txn_1"]}}') is None
    assert at("paddle", "transaction.paid", "evt_1", None) is None
    assert at("paddle", "transaction.paid", "evt_1", b"{") is None
