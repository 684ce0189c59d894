"""Secrets are known by the words in a name; values and URLs are shown without them."""

from __future__ import annotations

import pytest

from bridge.masking import (
    hidden,
    hidden_in,
    masked,
    names_secret,
    url_without_password,
    without_addresses,
    without_secret_parameters,
)

SECRET = (
    "access_token client_secret X-Webhook-Key X-Amz-Signature X-Amz-Security-Token X-Amz-Credential X-Goog-Signature"
    " X-Goog-Credential apiKey APIKEY APIkey XApiKey x-api-key x-webhookkey AWSAccessKeyId Ocp-Apim-Subscription-Key"
    " X-Functions-Key key secretkey privateKey signing-key licence_key passwd pwd user_pass user[password] password2"
    " webhook.secret sig sign X-Sign hmac hmacsha256 X-Hub-Signature-256 x-hubsignature authorization"
    " Proxy-Authorization"
    " X-Auth oauth_code auth_key jwt Cf-Access-Jwt-Assertion x-amzn-oidc-data x-amzn-oidc-accesstoken session sessionid"
    " PHPSESSID JSESSIONID sid Set-Cookie csrftoken X-XSRF-TOKEN otp totp mfa_code pin code verif-hash refreshToken"
    " DPoP"
)
PLAIN = (
    "monkey keyboard turkey keyword signed_up sign_up design assigned passenger compass passthrough author authority"
    " token_count signature_version session_count tokenizer secretary country_code discount_code state host user-agent"
    " content-type x-github-event x-event-key idempotency-key lookup_key public_key key-id webhook-id svix-id"
    " linear-delivery x-request-id coupon order_id pinned forwarded"
)


@pytest.mark.parametrize("name", SECRET.split())
def test_a_name_with_the_word_of_a_secret_is_one(name):
    assert names_secret(name)
    assert names_secret(name.lower()) or name == "APIkey"


@pytest.mark.parametrize("name", PLAIN.split())
def test_a_name_that_only_looks_like_one_is_none(name):
    assert not names_secret(name)


@pytest.mark.parametrize("name", ["verification_token", "client_secret", "apiKey", "webhookSecret", "user.password"])
def test_in_a_body_what_is_plainly_a_secret_is_one(name):
    assert names_secret(name, in_body=True)


@pytest.mark.parametrize("name", ["session", "session_id", "code", "license_key", "total_tokens", "key", "pin", ""])
def test_in_a_body_what_people_look_for_is_none(name):
    assert not names_secret(name, in_body=True)


def test_a_secret_is_hidden_also_where_it_was_cut():
    token = "kofi-" + "0123456789abcdef" * 6
    assert hidden(f"a {token} b {token[:40]}… c {token[:40]} d", [token]) == f"a … b … c {token[:40]} d"
    payment = "pi_3MtwBwLkdIwHu7ix28a3tqPa"
    assert hidden(f"{payment} {payment}_secret_YrKJUKri", [f"{payment}_secret_YrKJUKri"]) == f"{payment} …"
    assert hidden_in({"x": [token, 1], token: None}, (token,)) == {"x": ["…", 1], "…": None}


def test_addresses_lose_what_their_parameters_keep_secret():
    kept = "https://h.example/a?page=2&access_token=abc&sig=x#f"
    assert without_secret_parameters(kept) == "https://h.example/a?page=2&access_token=…&sig=…#f"
    assert masked({"referer": kept, "x-webhook-key": "abc", "host": "h"}) == {
        "referer": "https://h.example/a?page=2&access_token=…&sig=…#f",
        "x-webhook-key": "…",
        "host": "h",
    }


@pytest.mark.parametrize(
    "url", ["https://u:p@ss@h.example/api", "https://:pw@h.example/api", "https://tok@h.example/api"]
)
def test_a_url_is_shown_without_whoever_stands_in_front_of_its_host(url):
    assert url_without_password(url) == "https://…@h.example/api"


@pytest.mark.parametrize(
    "name", ["id" * 4_000, "tokenkeyid" * 800 + "z", "A" * 8_000, "_" * 8_000, "idkey" * 8, "kofikey" * 5 + "z"]
)
def test_no_name_is_too_long_or_takes_long(name):
    assert names_secret(name) in (True, False)
    without_secret_parameters("?" * 4_000 + "&a" * 4_000 + "=")


@pytest.mark.parametrize(
    "address",
    ["ann@example.com", "ann+x@mail.example.co.uk", "ann%40example.com", "ann\\u0040example.com",
     "ann\ufe6bexample.com", "ann@ex%C3%A4mple.com", "änn@exämple.de",
     '"ann lee"@example.com', "ann\uff20example.com", "ann@exam…", "ann@…"],
)  # fmt: skip
def test_of_an_address_only_the_first_character_is_shown_even_if_it_was_cut_off(address):
    shown = without_addresses(f"to {address}, now")
    assert shown in ("to a…@…, now", "to ä…@…, now")
    assert without_addresses(shown) == shown


@pytest.mark.parametrize("text", ["order.paid@v1.2", "build@2024-01", "@channel", "a @ b.com", "50% @ 3.99", "x@y"])
def test_an_at_sign_alone_makes_no_address(text):
    assert without_addresses(text) == text
