"""The stand-in for Stripe's API, asked by Stripe's own package: what it answers is what the SDK understands."""

from __future__ import annotations

import base64

import pytest
import requests
import stripe

from bridge.sandbox import server

LIVE, TEST = "rk_live_1", "rk_test_1"


@pytest.fixture
def sandbox(monkeypatch):
    monkeypatch.setattr(stripe, "enable_telemetry", False)
    with server.start() as made:
        yield made


def sdk(sandbox, key=LIVE, **options):
    return stripe.StripeClient(key, base_addresses={"api": sandbox.url}, max_network_retries=0, **options)


def session(number, **fields):
    return {
        "id": f"cs_{number}",
        "object": "checkout.session",
        "created": number,
        "livemode": True,
        "status": "complete",
        "client_secret": "never shown",
        **fields,
    }


def test_lists_are_filtered_newest_first_and_limited(sandbox):
    sandbox.stripe.seed(
        [
            session(1, subscription="sub_1"),
            session(2, subscription={"id": "sub_1", "object": "subscription"}),
            session(3, subscription="sub_2", status="open"),
        ]
    )
    sessions = sdk(sandbox).v1.checkout.sessions
    found = sessions.list({"subscription": "sub_1"})
    assert [one.id for one in found.data] == ["cs_2", "cs_1"]
    assert found.has_more is False
    assert sessions.list({"limit": 2}).has_more is True
    assert [one.id for one in sessions.list({"status": "open"}).data] == ["cs_3"]
    assert "client_secret" not in found.data[0].to_dict()


def test_objects_are_found_by_their_id(sandbox):
    sandbox.stripe.seed(
        [
            {"id": "sub_1", "object": "subscription", "livemode": True, "metadata": {"a": "b"}},
            {"id": "pi_1", "object": "payment_intent", "livemode": True},
            {"id": "ch_1", "object": "charge", "livemode": True},
            {"id": "in_1", "object": "invoice", "livemode": True},
            session(1),
        ]
    )
    v1 = sdk(sandbox).v1
    assert v1.subscriptions.retrieve("sub_1").metadata.to_dict() == {"a": "b"}
    found = [v1.payment_intents.retrieve("pi_1"), v1.charges.retrieve("ch_1"), v1.invoices.retrieve("in_1")]
    assert [one.object for one in found] == ["payment_intent", "charge", "invoice"]
    assert v1.checkout.sessions.retrieve("cs_1").id == "cs_1"


def test_the_invoices_of_a_payment_can_be_expanded(sandbox):
    payment = {"type": "payment_intent", "payment_intent": "pi_1"}
    sandbox.stripe.seed(
        [
            {"id": "inpay_1", "object": "invoice_payment", "livemode": True, "invoice": "in_1", "payment": payment},
            {"id": "in_1", "object": "invoice", "livemode": True, "customer": "cus_1"},
        ]
    )
    listed = sdk(sandbox).v1.invoice_payments
    (plain,) = listed.list({"payment": payment}).data
    (whole,) = listed.list({"payment": payment, "expand": ["data.invoice"]}).data
    assert plain.invoice == "in_1"
    assert whole.invoice.customer == "cus_1"
    assert listed.list({"payment": {"type": "payment_intent", "payment_intent": "pi_2"}}).data == []


def test_a_key_sees_its_own_mode_alone(sandbox):
    sandbox.stripe.seed([session(1), session(2, livemode=False)])
    assert [one.id for one in sdk(sandbox).v1.checkout.sessions.list().data] == ["cs_1"]
    assert [one.id for one in sdk(sandbox, TEST).v1.checkout.sessions.list().data] == ["cs_2"]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sdk(sandbox, TEST).v1.checkout.sessions.retrieve("cs_1")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")


def test_an_account_is_another_world(sandbox):
    sandbox.stripe.seed([session(1)], account="acct_1")
    assert sdk(sandbox).v1.checkout.sessions.list().data == []
    assert len(sdk(sandbox, stripe_account="acct_1").v1.checkout.sessions.list().data) == 1
    with pytest.raises(stripe.PermissionError, match="does not have access to account 'acct_2'"):
        sdk(sandbox, stripe_account="acct_2").v1.checkout.sessions.list()


@pytest.mark.parametrize(
    ("key", "failure"), [("nonsense", "Invalid API Key"), ("rk_live_gone", "Invalid API Key"), ("pk_live_1", "Invalid")]
)
def test_a_key_that_is_none_is_401(key, failure, sandbox):
    sandbox.stripe.permissions["rk_live_gone"] = None
    with pytest.raises(stripe.AuthenticationError, match=failure) as caught:
        sdk(sandbox, key).v1.charges.list()
    assert caught.value.http_status == 401


def test_without_a_key_it_is_401_and_basic_is_as_good_as_bearer(sandbox):
    url = f"{sandbox.url}/v1/charges"
    assert requests.get(url, timeout=10).status_code == 401
    basic = base64.b64encode(f"{LIVE}:".encode()).decode()
    assert requests.get(url, headers={"Authorization": f"Basic {basic}"}, timeout=10).status_code == 200
    assert requests.get(url, headers={"Authorization": "Basic é".encode()}, timeout=10).status_code == 401


def test_a_missing_permission_is_named_as_stripe_names_it(sandbox):
    sandbox.stripe.permissions[LIVE] = ["charge"]
    assert sdk(sandbox).v1.charges.list().data == []
    with pytest.raises(stripe.PermissionError, match="Having the 'rak_invoice_read' permission"):
        sdk(sandbox).v1.invoice_payments.list()


def test_unknown_parameters_and_paths_are_refused(sandbox):
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sdk(sandbox).raw_request("get", "/v1/checkout/sessions", colour="red")
    assert (caught.value.http_status, caught.value.param) == (400, "colour")
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        sdk(sandbox).raw_request("get", "/v1/nothing/x")
    with pytest.raises(stripe.InvalidRequestError, match="limit"):
        sdk(sandbox).v1.charges.list({"limit": 101})


def test_faults_come_as_they_were_asked_for_and_everything_is_noted(sandbox):
    seeded = requests.post(
        f"{sandbox.url}/__fake__/stripe",
        json={"objects": [session(1)], "keys": {"rk_live_2": []}, "fail": {"status": 429, "retry_after_s": 3}},
        timeout=10,
    )
    assert seeded.json() == {"objects": 1, "requests": []}
    with pytest.raises(stripe.RateLimitError) as caught:
        sdk(sandbox).v1.charges.list()
    assert caught.value.headers["Retry-After"] == "3"
    assert sdk(sandbox).v1.charges.list().data == []
    told = requests.get(f"{sandbox.url}/__fake__/stripe", timeout=10).json()
    assert [(row["path"], row["mode"], row["account"]) for row in told["requests"]] == [
        ("/v1/charges", "live", "acct_sandbox")
    ] * 2
    assert requests.post(f"{sandbox.url}/__fake__/stripe", data="[", timeout=10).status_code == 400
    assert requests.delete(f"{sandbox.url}/__fake__/stripe", timeout=10).json() == {"objects": 0, "requests": []}
