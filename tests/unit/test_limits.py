from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import limits


@pytest.mark.parametrize(
    ("text", "name"),
    [("purchase", "purchase"), (" Big Sale ", "big_sale"), ("a:b-c_1", "a:b-c_1"), ("x" * 64, "x" * 64)],
)
def test_a_goal_name_is_stored_as_datafast_stores_it(text, name):
    assert limits.goal_name(text) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a name"),
        ("x" * 65, "65 characters; DataFast takes at most 64"),
        ("sale!", "only a-z"),
        ("größe", "contains"),
        ("identify", "reserved"),
        ("Payment", "twice"),
        ("free trial", "reserved"),
        ("subscription_renewed", "reserved"),
    ],
)
def test_a_goal_name_that_datafast_would_refuse_is_refused(text, words):
    with pytest.raises(ValueError, match="goal") as caught:
        limits.goal_name(text)
    assert words in str(caught.value)


def test_every_reserved_name_has_its_reason():
    assert set(limits.RESERVED) == {
        "identify", "payment", "free_trial", "trial_started",
        "subscription_started", "subscription_renewed", "subscription_ended",
    }  # fmt: skip
    assert all(limits.RESERVED.values())


def as_f44b843(text):
    """The name that the previous release made of this, if it accepted it."""
    name = re.sub(r"\s", "_", text.strip().lower())
    short = limits.cut(name, 64)
    return short if re.fullmatch(r"[a-z0-9_:-]+", short) and short not in limits.RESERVED else None


LETTERS = st.text(st.sampled_from("aZ09_:- .\té"), max_size=80)


@given(st.one_of(st.text(max_size=80), LETTERS))
@example("x" * 63 + "_.")
def test_a_name_that_the_previous_release_accepted_keeps_its_exact_result(text):
    accepted = as_f44b843(text)
    if accepted is not None:
        assert limits.fit_goal_name(text)[0] == accepted


@given(st.one_of(st.text(max_size=80), LETTERS))
def test_whatever_a_name_is_made_of_it_is_one_or_refused_with_a_sentence(text):
    try:
        name, _ = limits.fit_goal_name(text)
    except ValueError:
        assert not re.search(r"[a-z0-9]", text) or text.strip("!. ").lower() in limits.RESERVED
    else:
        assert re.fullmatch(r"[a-z0-9_:-]{1,64}", name)
        assert as_f44b843(text) or name.strip("_") == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("user.signup", "user_signup"),
        ("order/created", "order_created"),
        ("käufer", "kaufer"),
        ("Crème & Co", "creme_co"),
        ("Straße", "strasse"),
        ("ŁÓDŹ", "lodz"),
        ("  ...a..b...  ", "a_b"),
        ("user  Signup", "user__signup"),  # as it was
        ("a" * 63 + ".b", "a" * 63),
    ],
)
def test_a_name_made_at_run_time_is_folded(text, name):
    assert limits.fit_goal_name(text)[0] == name


@pytest.mark.parametrize("text", ["日本", "...", "", " ", "🎉", "\ud83d", "payment", "Payment!", "free.trial"])
def test_what_cannot_become_a_name_is_refused(text):
    with pytest.raises(ValueError, match=r"goal name|a goal needs a name"):
        limits.fit_goal_name(text)


def test_a_long_name_made_at_run_time_is_cut():
    assert limits.fit_goal_name("x" * 70) == ("x" * 64, ("the goal's name was cut to 64 characters",))


@pytest.mark.parametrize(
    ("text", "value"),
    [  # measured on the official SDK
        ("R&D <b>Kit</b>", "RD bKit/b"),
        ("O'Brien", "OBrien"),
        ("https://x.com/?conversion_id=5&a=1", "https://x.com/?c5a=1"),
        ("JavaScript:alert(1)", "alert(1)"),
        ("  padded  ", "padded"),
        ("x" * 300, "x" * 255),
        ("x" * 254 + "<y", "x" * 254),
        ("😀" * 200, "😀" * 127),
        ("nul\x00", "nul\ufffd"),
        ("\ud800", "\ufffd"),
        ("a\nb", "a\nb"),
    ],
)
def test_a_value_is_what_datafast_would_keep(text, value):
    assert limits.clean_value(text) == value


@given(st.text(max_size=400))
def test_a_cleaned_value_is_one_that_datafast_takes(text):
    value = limits.clean_value(text)
    assert limits.length(value) <= 255
    assert not re.search(r"[<>'\"&]", value)
    assert value == value.strip()
    value.encode()


@given(st.lists(st.sampled_from(["java", "script:", "on", "x=", "<", "&", " ", "é", "😀"]), max_size=20).map("".join))
@example("javaonx=script:x")
@example("😀" * 128)
def test_what_datafast_cleans_once_more_stays_as_it_is(text):
    value = limits.clean_value(text)
    assert limits.clean_value(value) == value
    assert len(value.encode("utf-16-le")) <= 2 * limits.VALUE_MAX


def test_metadata_is_the_first_ten_entries_in_the_order_of_the_rule():
    fitted, notes = limits.fit_metadata([(f"k{i}", "v") for i in range(12)])
    assert list(fitted) == [f"k{i}" for i in range(10)]
    assert notes == ("k10, k11 left out: DataFast takes 10 entries",)


def test_metadata_keys_are_made_to_fit():
    fitted, notes = limits.fit_metadata(
        [("Plan Name", "a"), ("plan name", "b"), ("eventName", "c"), ("Größe", "d"), ("", "e"), ("x" * 80, "f")]
    )
    assert fitted == {"plan_name": "a", "event_name": "c", "gr__e": "d", "x" * 64: "f"}
    assert notes == (
        "plan name was left out: another entry became the key plan_name",
        "an entry without a key was left out",
    )


def test_what_is_changed_in_a_value_is_said():
    fitted, notes = limits.fit_metadata([("a", "x" * 256), ("b", "R&D"), ("c", "<>"), ("d", "")])
    assert fitted == {"a": "x" * 255, "b": "RD"}
    assert notes == (
        "a was cut to 255 characters",
        "b lost characters that DataFast removes (< > ' \" & and scripts)",
        "c was left out: DataFast keeps nothing of its value",
    )


@pytest.mark.parametrize("key", ["plan", "Plan", "from_plan", "a-b", "x" * 64])
def test_a_key_that_datafast_takes_is_accepted(key):
    limits.check_metadata_key(key)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("Plan Name", 'write "plan_name"'),
        ("eventName", 'write "event_name"'),
        ("x" * 65, "65 characters"),
        ("", "empty"),
    ],
)
def test_a_key_that_datafast_would_refuse_is_refused(key, words):
    with pytest.raises(ValueError, match="metadata key") as caught:
        limits.check_metadata_key(key)
    assert words in str(caught.value)


@given(st.lists(st.tuples(st.text(max_size=80), st.text(max_size=300)), max_size=15))
def test_whatever_comes_fits(pairs):
    fitted, _ = limits.fit_metadata(pairs)
    assert len(fitted) <= 10
    for key, value in fitted.items():
        assert re.fullmatch(r"[a-z0-9_-]{1,64}", key)
        assert key != "eventname"
        assert 0 < limits.length(value) <= 255
