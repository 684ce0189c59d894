"""What a variable of `secret:` holds: one secret, several of the provider's own form, or evidently none."""

# ruff: noqa: E501 - tables of cases, one a line
from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge import loading, sources
from bridge.errors import SignatureError
from bridge.model import Request

NAME = "SHOP_WEBHOOK_SECRET"
OLD = f"{NAME}_OLD"
PHRASE = "correct battery staple"


def load(provider: str, value: str | None = None, *, entries: str = "", **more: str):
    given_ = more if value is None else {NAME: value, **more}
    secret = f"secret: {entries}\n" if entries else ""
    file = f"provider: {provider}\n{secret}goals: []\n"
    return loading.load({"shop.yaml": file}, given_, sources.presets())


def read(provider: str, value: str | None = None, **more: str):
    return load(provider, value, **more).sources["shop"]


def verifies(source, key: str) -> bool:
    """Whether a body that is signed with this key is authentic for a Lemon Squeezy source."""
    body = b'{"meta": {"event_name": "order_created"}}'
    signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    try:
        sources.verify(
            source, Request("POST", "/webhooks/shop", "/webhooks/shop", "", {"x-signature": signature}, body), 1.8e9
        )
    except SignatureError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ one, or several


@pytest.mark.parametrize(
    ("provider", "value", "usable"),
    [
        ("stripe", "whsec_a", ("whsec_a",)),
        ("stripe", " whsec_a \n", ("whsec_a",)),
        ("stripe", "whsec_a,whsec_b", ("whsec_a", "whsec_b")),
        ("stripe", "whsec_a whsec_b\n", ("whsec_a", "whsec_b")),
        ("stripe", "whsec_a, whsec_a", ("whsec_a",)),
        ("stripe", "whsec_a,", ("whsec_a",)),
        ("stripe", "whsec_a,changeme", ("whsec_a",)),
        ("stripe", "changeme, whsec_a whsec_b", ("whsec_a", "whsec_b")),
        ("stripe", "secret", ("secret",)),
        ("clerk", "whsec_a whsec_b", ("whsec_a", "whsec_b")),
        ("supabase-auth", "v1,whsec_a", ("whsec_a",)),
        ("supabase-auth", "v1,whsec_a, v1,whsec_b", ("whsec_a", "whsec_b")),
        ("paddle", "pdl_ntfset_a,pdl_ntfset_b", ("pdl_ntfset_a", "pdl_ntfset_b")),
        ("polar", "polar_whs_a,whsec_b", ("polar_whs_a", "whsec_b")),
        ("whop", "ws_a ws_b", ("ws_a", "ws_b")),
        ("revolut", "wsk_a,wsk_b", ("wsk_a", "wsk_b")),
        ("lemonsqueezy", PHRASE, (PHRASE,)),
        ("lemonsqueezy", "whsec_aa whsec_bb", ("whsec_aa whsec_bb",)),
        ("lemonsqueezy", "a,b,c", ("a,b,c",)),
        ("lemonsqueezy", "x", ("x",)),
        ("lemonsqueezy", "$ecret-of-mine", ("$ecret-of-mine",)),
        ("chargebee", "user:pass word", ("user:pass word",)),
        ("github", "It's a Secret to Everybody", ("It's a Secret to Everybody",)),
    ],
)
def test_a_value_is_one_secret_unless_every_piece_has_the_providers_form(provider, value, usable):
    found = load(provider, value)
    assert found.sources["shop"].secrets == usable
    assert found.sources["shop"].secret_error is None
    assert found.problems == ()


def test_a_pem_key_is_one_secret_though_it_holds_white_space():
    key = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZI, zj0C\n-----END PUBLIC KEY-----"
    assert read("github", key).secrets == (key,)


def test_the_form_of_a_custom_file_is_that_of_its_key_or_of_the_preset_that_it_names():
    custom = 'custom\nverify: {type: hmac-sha256, key: KEY, signature: {in: "header:x"}}'
    both = ("whsec_aa", "whsec_bb")
    assert read(custom.replace("KEY", "whsec"), "whsec_aa whsec_bb").secrets == both
    assert read(custom.replace("KEY", "text"), "whsec_aa whsec_bb").secrets == ("whsec_aa whsec_bb",)
    assert read("custom\nverify: stripe", "whsec_aa whsec_bb").secrets == both


def test_the_whole_pass_phrase_verifies_and_no_word_of_it():
    source = read("lemonsqueezy", PHRASE)
    assert verifies(source, PHRASE)
    assert not any(verifies(source, word) for word in PHRASE.split())


@given(st.lists(st.text("abcdefghijklmnop", min_size=6, max_size=12), min_size=2, max_size=4, unique=True))
def test_no_word_of_any_pass_phrase_verifies(words):
    phrase = " ".join(words)
    assume(not any(len(set(word)) == 1 for word in words))
    assert [key for key in (*words, phrase) if verifies(read("lemonsqueezy", phrase), key)] == [phrase]


def test_the_variable_with_old_behind_it_is_a_second_secret():
    source = read("lemonsqueezy", PHRASE, **{OLD: "the one before"})
    assert source.secrets == (PHRASE, "the one before")
    assert source.secret_names == (NAME, OLD)
    assert verifies(source, "the one before")
    assert read("stripe", "whsec_a", **{OLD: "whsec_b,whsec_c"}).secrets == ("whsec_a", "whsec_b", "whsec_c")
    assert read("lemonsqueezy", PHRASE, **{OLD: " "}).secret_names == (NAME,)


def test_every_variable_of_a_file_has_an_old_one():
    entries = '["${ONE}", "${USER}:${PASS}"]'
    found = load("chargebee", entries=entries, ONE="a:b", ONE_OLD="c:d", USER="me", PASS="pass", PASS_OLD="word")
    assert found.sources["shop"].secrets == ("a:b", "c:d", "me:pass", "me:word")


# ------------------------------------------------------------------------------------------------ evidently no secret


NO_SECRET = {
    "quotes": ['"whsec_abcdef"', "'whsec_abcdef'", "“whsec_abcdef”", "`whsec_abcdef`", '"whsec_abcdef', '\\"whsec_abcdef\\"',
               '"whsec_abcdef","whsec_ghijkl"', '"whsec_abcdef" "whsec_ghijkl"'],
    "the name of a variable as well": [f"{NAME}=whsec_abcdef", f"export {NAME}=whsec_abcdef", f'{NAME}="whsec_abcdef"',
                                       f"{NAME}: whsec_abcdef", "STRIPE_SECRET=whsec_abcdef"],
    "the name of a variable instead": ["$STRIPE_SECRET", "${STRIPE_SECRET}", "{{ stripe_secret }}", "${{ secrets.STRIPE }}",
                                       "$(STRIPE_SECRET)", "%STRIPE_SECRET%", NAME, "whsec_${REST}"],
    "a word that stands for no value": ["undefined", "null", "None", "NULL", "nil", "[object Object]", "whsec_undefined"],
    "one character, repeated": ["aaaaaa", "0000", "********", "••••••••", "whsec_0000000000", "whsec_••••••", "xxx", "whsec_xxxx", "..."],
    "nothing visible": ["\u200b", "\ufeff\u200d", "\u2060", "\x01\x02", "\u3164"],
    "can be secrets of this provider": ["whsec_abcdef # live", "whsec_abcdef sk_live_abcdef"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "reason"),
    [pytest.param(value, why, id=repr(value)) for why, values in NO_SECRET.items() for value in values],
)
def test_what_is_evidently_no_secret_is_a_problem_and_verifies_nothing(value, reason):
    found = load("stripe", value)
    source = found.sources["shop"]
    assert source.secrets == ()
    [problem] = found.problems
    assert problem.startswith(f"mappings/shop.yaml:1:1: {NAME} h")
    assert reason in problem
    assert "POST /webhooks/shop answers 503" in source.secret_error
    assert not any(NAME in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "value", ['"correct battery"', f"{NAME}=correct", f"{NAME}: correct", "$LEMON", "none", "------"]
)
def test_the_same_holds_where_the_owner_chose_the_secret(value):
    assert read("lemonsqueezy", value).secrets == ()
    assert len(load("lemonsqueezy", value).problems) == 1


@pytest.mark.parametrize("value", [None, "", "  ", "\n"])
def test_unset_or_empty_stays_a_warning(value):
    found = load("stripe", value)
    assert found.sources["shop"].secrets == ()
    assert found.problems == ()
    assert any(f"{NAME} is not set, so nothing can be verified" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "value",
    ["changeme", "CHANGE_ME", "your_secret", "your secret here", "whsec_", "v1,whsec_", "xxxyyy", "whsec_your_secret",
     "whsec_…", "<...>", "<the secret>", "changeme, your_secret", " , ", "whsec_,whsec_"],
)  # fmt: skip
def test_a_placeholder_stays_a_warning_and_verifies_nothing(value):
    """It was one in the release before, and whoever fills in one source after the other has to pass `check`."""
    found = load("stripe", value)
    assert (found.sources["shop"].secrets, found.problems) == ((), ())
    sentence = f"{NAME} holds a placeholder: put the secret itself there; so nothing can be verified"
    assert any(sentence in warning for warning in found.warnings)
    assert "POST /webhooks/shop answers 503" in found.sources["shop"].secret_error


def test_a_placeholder_beside_a_good_secret_is_a_warning_too():
    found = load("stripe", "whsec_a", **{OLD: "changeme"})
    assert (found.sources["shop"].secrets, found.problems) == (("whsec_a",), ())
    assert any(f"{OLD} holds a placeholder" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("provider", "value"),
    [
        ("lemonsqueezy", "newsecret,oldsecret"),
        ("lemonsqueezy", "whsec_aa,whsec_bb"),
        ("github", "newsecret, oldsecret andmore"),
        ("polar", "polar_whs_a,typed-secret"),
    ],
)
def test_a_value_that_was_cut_at_a_comma_is_refused_with_what_to_do(provider, value):
    found = load(provider, value)
    assert found.sources["shop"].secrets == ()
    [problem] = found.problems
    assert f"{NAME} holds a comma and is one secret now" in problem
    assert f"put the old one into {OLD}" in problem


def test_a_comma_that_belongs_to_the_secret_is_meant_when_both_variables_hold_it():
    found = load("lemonsqueezy", "correct,battery", **{OLD: "correct,battery"})
    assert (found.sources["shop"].secrets, found.problems) == (("correct,battery",), ())


def test_a_good_secret_works_beside_one_that_is_none_which_stays_a_problem():
    found = load("stripe", "whsec_a", **{OLD: '"whsec_b"'})
    assert (found.sources["shop"].secrets, found.sources["shop"].secret_error) == (("whsec_a",), None)
    assert found.problems == (f"mappings/shop.yaml:1:1: {OLD} has quotes around its value: remove them",)


def test_two_sources_of_one_secret_are_a_warning_that_names_both():
    files = dict.fromkeys(("one.yaml", "two.yaml", "three.yaml"), "provider: stripe\ngoals: []\n")
    given_ = {
        "ONE_WEBHOOK_SECRET": "whsec_q7,whsec_r8",
        "TWO_WEBHOOK_SECRET": "whsec_r8",
        "THREE_WEBHOOK_SECRET": "whsec_s9",
    }
    warnings = [one for one in loading.load(files, given_, sources.presets()).warnings if "same secret" in one]
    assert len(warnings) == 1
    assert warnings[0].startswith("mappings/one.yaml:1:1: one and two have the same secret")
    assert "r8" not in warnings[0]


# ------------------------------------------------------------------------------------------------ nothing is shown


PARTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
KNOWN = st.sampled_from(["whsec_", '"', "'", " ", ",", "=", f"{NAME}=", "${", "}", "{{", "}}", "changeme", "v1,"])
TOKEN = "q7Kz9ZpW4"


@given(
    st.sampled_from(
        ["stripe", "lemonsqueezy", "github", "polar", "chargebee", "discord", "sendgrid", "custom\nverify: stripe"]
    ),
    st.lists(st.one_of(PARTS, KNOWN), max_size=4),
    st.lists(st.one_of(PARTS, KNOWN), max_size=4),
)
def test_no_part_of_a_secret_is_in_any_sentence_or_repr(provider, before, behind):
    value = "".join([*before, TOKEN, *behind])
    found = load(provider, value, **{OLD: value[::-1] + TOKEN})
    told = repr(found) + repr([*found.warnings, *found.problems]) + repr(found.sources["shop"].secret_error)
    assert TOKEN not in told
