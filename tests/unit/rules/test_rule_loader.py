# ruff: noqa: E501 - tables of cases, one a line
from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rules_kit import HEAD, PRESETS, fault, faults, load

from bridge import rules
from bridge.errors import MappingError
from bridge.model import BodyForm, Destination, Place, TimestampSpec
from bridge.rules.reading.strict_yaml import parse

TWO_LINES = "provider: stripe\ngoals:\n  - goal: dispute\n    event: charge.dispute.created\n"


def test_two_lines_are_a_rule():
    found = load(TWO_LINES)
    (rule,) = found.rules["shop"]
    assert (rule.id, rule.goal, rule.events, rule.enabled, rule.destination) == (
        "dispute",
        "dispute",
        ("charge.dispute.created",),
        True,
        "default",
    )


# ------------------------------------------------------------------------------------------------------- strict YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: no", {"on": "no"}),
        ("a: yes", {"a": "yes"}),
        ("a: 2024-01-01", {"a": "2024-01-01"}),
        ("a: 12:30:00", {"a": "12:30:00"}),
        ("a: 010", {"a": "010"}),
        ("a: 0x10", {"a": "0x10"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: .5", {"a": ".5"}),
        ("a: ~", {"a": "~"}),
        ("a: True", {"a": "True"}),
        ("a: =", {"a": "="}),
        ("a: .inf", {"a": ".inf"}),
        ("a: true", {"a": True}),
        ("a: null", {"a": None}),
        ("a: -5", {"a": -5}),
        ("a: 1.5", {"a": 1.5}),
        ("a: '5'", {"a": "5"}),
        ('a: "true"', {"a": "true"}),
        ("a: customer.*", {"a": "customer.*"}),
        ("5: a", {"5": "a"}),
        ("true: a", {"true": "a"}),
    ],
)
def test_only_true_false_null_and_numbers_are_not_texts(text, value):
    tree, found = parse(text)
    assert not found
    assert tree is not None
    assert tree.plain() == value
    assert isinstance(next(iter(tree.plain().values())), type(next(iter(value.values()))))


def test_a_number_keeps_its_text():
    tree, _ = parse("a: 1.50")
    assert tree is not None
    assert repr(tree.plain()["a"]) == "1.50"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", '2:1: key "a" appears twice (first on line 1)'),
        ("a: &x 1", '1:4: anchors are not allowed; if "&x" begins a string, put it in quotes'),
        ("a: *x", '1:4: aliases are not allowed; if "*x" is a string, put it in quotes'),
        ("<<: {a: 1}", "1:1: merge keys (<<) are not allowed; write the entries out"),
        ("a: !!str 1", '1:4: tags are not allowed; if "!!str" begins a string, put it in quotes'),
        ("a: *", '1:4: a string that begins with "*" is read as an alias; put it in quotes: "*"'),
        ("a: [*, b]", '1:5: a string that begins with "*" is read as an alias; put it in quotes: "*"'),
        ("a: *.created", '1:4: a string that begins with "*" is read as an alias; put it in quotes: "*.created"'),
        (
            "visitor: [data.items[0].id, x]",
            '1:21: a "[" inside an unquoted string within a list or map; put it in quotes: "data.items[0].id"',
        ),
        (
            "when: {data.items[0].id: 5}",
            '1:18: a "[" inside an unquoted string within a list or map; put it in quotes: "data.items[0].id"',
        ),
        (
            "visitor: [notes[name=v].value]",
            '1:16: a "[" inside an unquoted string within a list or map; put it in quotes: "notes[name=v].value"',
        ),
        ("a: [x{y}, z]", '1:6: a "{" inside an unquoted string within a list or map; put it in quotes: "x{y}"'),
        ("a: @b", '1:4: a string cannot begin with "@"; put it in quotes'),
        ("a: b: c", '1:5: a ": " inside an unquoted string; put it in quotes, or check the indentation'),
        ("a:\n\t- b", "2:1: this line is indented by a tab; YAML allows only spaces"),
        ("a: 1\n---\nb: 2", "2:1: a file holds one document; a second one begins here"),
        ("? [a]\n: b", "1:3: a key is a string, not a list or map; if it is meant as a string, put it in quotes"),
        ("", "1:1: the file is empty"),
        ("# nothing\n", "1:1: the file is empty"),
        ("a: \x07", "1:4: the character U+0007 is not allowed in a file"),
        ("a: \ud800", "1:4: the character U+D800 is not allowed in a file"),
        ("a: b\u2028c", "1:5: the character U+2028 is not allowed in a file"),
        ("# b\x85\na: 1", "1:4: the character U+0085 is not allowed in a file"),
        ("a: 1\nb: \ufeff2", "2:4: the character U+FEFF is not allowed in a file"),
        ("a: 1\nb: 'c\nd: 2\n", "2:4: a quote opens here and is never closed"),
        ('a: 1\nb: "c\nd: 2\n', "2:4: a quote opens here and is never closed"),
        ("a: 1\nb: [c,\n  d\n", '2:4: a "[" opens here and is never closed'),
        ("a: 1\nb: {c: 1,\n  d: 2\n", '2:4: a "{" opens here and is never closed'),
        ("[" * 5000, "1:42: the file is nested more than 40 levels deep"),
        ("a: '" + "x" * 524_289, "1:1: the file has 524,293 characters, at most 524,288 are allowed"),
    ],
)
def test_yaml_that_cannot_be_meant_is_refused(text, said):
    _, found = parse(text)
    assert [f"{f.line}:{f.column}: {f.sentence}" for f in found] == [said]


def test_a_line_that_may_hold_a_secret_is_never_quoted():
    _, found = parse("secret: [whsec_top[secret]")
    assert "top" not in found[0].sentence
    assert "put it in quotes" in found[0].sentence


def test_a_billion_laughs_are_one_fault_an_alias():
    _, found = parse("a: &a [x]\nb: &b [*a, *a, *a]\nc: [*b, *b]\n")
    assert len(found) == 7


# ------------------------------------------------------------------------------------------------ the keys of a file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("goals: []", '1:1: the file needs "provider"'),
        ("provider: stripe", '1:1: the file needs "goals"'),
        ("- a", '1:1: a mapping file is a map with the keys "provider" and "goals", or with "extends" as its first line'),
        ("provider: stripe\ngoals:", '2:1: "goals" has no value'),
        ("provider: strip\ngoals: []", '1:11: unknown provider "strip"; did you mean "stripe"?'),
        ("provider: stripe\ngoals: {}", '2:8: "goals" must be a list'),
        ("provider: stripe\ngoals: []\nrules: []", '3:1: unknown key "rules" in the file; write "goals"'),
        ("provider: stripe\ngoals: []\nsecrt: x", '3:1: unknown key "secrt" in the file; did you mean "secret"?'),
        ("provider: custom\ngoals: []", '1:1: provider: custom needs "verify", which says how the sender proves who it is'),
        (
            TWO_LINES + "    metadatta: {a: b}",
            '5:5: unknown key "metadatta" in a goal; did you mean "metadata"?',
        ),
        (TWO_LINES + "    when:", '5:5: "when" has no value'),
        ("provider: stripe\ngoals:\n  - goal: a\n    event:", '4:5: "event" has no value'),
        (TWO_LINES + "    enabled: no", '5:14: "enabled" must be true, false or dry'),
        (TWO_LINES + "    max_age: 7 days", '5:14: "7 days" must be a duration such as 500ms, 5s, 2min, 1h or 3d'),
        (TWO_LINES + "    wait: 0s", '5:11: "0s" must be a duration such as 500ms, 5s, 2min, 1h or 3d'),
        ("provider: stripe\ngoals:\n  - goal: a", '3:5: a goal needs "event"'),
        ("provider: stripe\ngoals:\n  - event: a", '3:5: a goal needs "goal"'),
        ("provider: stripe\ngoals:\n  - goal: 404\n    event: x", '3:11: "goal" must be a string; put it in quotes'),
        ("provider: stripe\ngoals:\n  - goal: a\n    event: 5", '4:12: "event" must be a string or a list of strings; put it in quotes'),
        ("provider: stripe\ngoals:\n  - goal: a\n    event: [b, 5]", '4:16: an entry of "event" must be a string; put it in quotes'),
        (
            "provider: stripe\ngoals:\n  - goal: {event}\n    id: x\n    event: a",
            '3:11: "goal" must be a string; a template begins with "{", so put it in quotes',
        ),
        (
            "provider: stripe\ngoals:\n  - goal: a\n    event: b\n    metadata: [x]",
            '5:16: "x" is not the name of a value; this file and its preset name no values',
        ),
        ("provider: stripe\ngoals: [x]", '2:9: an entry of "goals" must be a map'),
        ("provider: stripe\nbody: xml\ngoals: []", '2:7: "body" must be json or form'),
        ("provider: stripe\nmaps: {a: {b: []}}\ngoals: []", '2:15: "b" must be a string, a number, true or false'),
        ("provider: stripe\nmaps: {a: {b: '${C}'}}\ngoals: []", "2:15: ${C} is not read here; ${NAME} is read in secret, require, public_url and datafast only"),
        (
            "provider: stripe\nverify: {preset: github, secret: x}\ngoals: []",
            '2:26: unknown key "secret" in verify: "secret" is a key of the file itself',
        ),
        ("provider: stripe\nverify: githb\ngoals: []", '2:9: unknown preset "githb"; did you mean "github"?'),
        ("provider: stripe\nvisitor: [a..b]\ngoals: []", '2:11: path "a..b" cannot be read from ".b" onwards (a key with such a character is written in double quotes)'),
        ("provider: stripe\nlinks: {Order: a}\ngoals: []", '2:9: the kind of a link is a word such as subscription, order or customer, not "Order"'),
        ("provider: stripe\nsecret: ${A-B}\ngoals: []", "2:9: a variable is written ${NAME}, with letters, digits and _"),
        ("provider: stripe\npublic_url: shop\ngoals: []", '2:13: "public_url" is a URL such as https://example.com/webhooks/square'),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_its_place(text, said):
    assert fault(text) == said


@pytest.mark.parametrize(
    ("verify", "said"),
    [
        ("{type: hmac-sha256}", 'type hmac-sha256 needs "signature", which says where the signature or token is'),
        ("{type: hmac-sha25, signature: {in: 'header:X'}}", 'unknown type "hmac-sha25"; did you mean "hmac-sha256"?'),
        ("{type: token, signature: {in: X-Token}}", '"X-Token" is not a valid place; write header:Name, query:name, body:a.b or form:name'),
        ("{type: token, key: b64, signature: {in: 'query:t'}}", 'unknown key "b64"'),
        ("{signature: {in: 'query:t'}}", 'verify needs "type"'),
        ("{type: hmac-sha256, signature: {prefix: 'v1='}}", 'signature needs "in"'),
        ("{type: hmac-sha256, signature: {in: []}}", 'signature needs "in"'),
        ("{type: hmac-sha256, signature: {in: 'header:X'}, timestamp: {tolerance: 9}}", 'timestamp needs "in"'),
        ("{type: hmac-sha256, signature: {in: 'header:X'}, signed: v1}", '"signed" names nothing of the request'),
        ("{type: sha256, signature: {in: 'header:X'}}", '"signed" must hold {secret}: without it anyone could sign'),
        ("{type: hmac-sha256, key: pem, signature: {in: 'header:X'}}", 'takes the key text or whsec or base64 or hex, not "pem"'),
        ("{type: ed25519, key: text, signature: {in: 'header:X'}}", 'takes the key hex or whpk or base64 or pem or der, not "text"'),
        ("{type: hmac-sha256, signature: {in: 'header:X'}, signed: '{timestamp}.{body}'}", '"signed" names {timestamp}, but verify does not say where the timestamp is'),
        ("{type: hmac-sha256, signature: {in: 'header:X'}, signed: '{bdy}'}", '"signed" names {bdy}; did you mean "body"?'),
        ("{type: token, signature: {in: 'query:t', encoding: b64}}", '"encoding" must be hex or base64'),
        ("{type: token, signature: {in: 'query:t'}, timestamp: {in: 'header:T', tolerance: 0}}", '"tolerance" must be 1 or more'),
    ],
)  # fmt: skip
def test_a_scheme_that_cannot_work_is_refused(verify, said):
    assert said in fault(f"provider: custom\nverify: {verify}\ngoals: []")


@pytest.mark.parametrize(
    ("verify", "changed"),
    [
        ("{timestamp: {tolerance: 600}}", {"timestamp": TimestampSpec((), "t=", 600)}),
        ("{preset: stripe, key: hex}", {"key": ("hex",)}),
        ("{type: hmac-sha512}", {"type": "hmac-sha512"}),
    ],
)
def test_a_preset_is_overridden_key_by_key(verify, changed):
    plain = load(TWO_LINES).sources["shop"].verify
    assert load(f"verify: {verify}\n{TWO_LINES}").sources["shop"].verify == replace(plain, **changed)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{goal: identify, event: a}", "reserved: DataFast uses this name itself"),
        ("{goal: payment, event: a}", "so it would count twice"),
        ("{goal: sale!, event: a}", 'goal name "sale!" contains !'),
        (f"{{goal: {'x' * 65}, event: a}}", "65 characters; DataFast takes at most 64"),
        ('{goal: "sale!_{x}", id: s, event: a}', 'goal name "sale!_" contains !'),
        ('{goal: "sale_{x}", event: a}', 'needs an "id"'),
        (f'{{goal: "{"x" * 60}{{x}}{"y" * 5}", id: s, event: a}}', "65 characters; DataFast takes at most 64"),
        (f"{{goal: a, event: b, metadata: {{a: '{'x' * 250}{{x}}{'y' * 6}'}}}}", "256 characters; DataFast takes at most 255"),
        ('{goal: "{x", id: s, event: a}', "never closed"),
        ("{goal: a, event: b, id: 'x y'}", "may hold only letters"),
        ("{goal: a, event: ''}", 'an event type is empty; "*" means every type'),
        ("{goal: a, event: []}", 'a list without an event type matches nothing; "*" means every type'),
        ("{goal: a, event: b, metadata: {Plan Name: x}}", 'write "plan_name"'),
        ("{goal: a, event: b, metadata: {eventName: x}}", "dropped by DataFast"),
        ("{goal: a, event: b, metadata: {a: x, A: y}}", "are the same"),
        (f"{{goal: a, event: b, metadata: {{a: {'x' * 256}}}}}", "256 characters; DataFast takes at most 255"),
        ("{goal: a, event: b, metadata: {a: ''}}", "never sent"),
        ("{goal: a, event: b, metadata: {a: '{b|uper}'}}", 'did you mean "upper"?'),
        ("{goal: a, event: b, metadata: {a: '${API_KEY}'}}", "secret, require, public_url and datafast only"),
        ("{goal: a, event: '${EVENT}'}", "${EVENT} is not read here"),
        ("{goal: a, event: b, when: {a: {prefix: '${PREFIX}'}}}", "${PREFIX} is not read here"),
        ("{goal: a, event: b, visitor: '${PATH}'}", "${PATH} is not read here"),
        ("{goal: '${GOAL}', event: b}", "${GOAL} is not read here"),
        (f"{{goal: a, event: b, metadata: {{{', '.join(f'k{i}: v' for i in range(11))}}}}}", "11 entries; DataFast takes at most 10"),
        ("{goal: a, event: b, metadata: 'plan'}", "one template of an object"),
        ("{goal: a, event: b, metadata: '{a|upper}'}", "one template of an object"),
        ("{goal: a, event: b, once_per: 'a..b'}", "cannot be read"),
        ("{goal: a, event: b, once_per: '{{x}}'}", "the same for every event"),
        ("{goal: a, event: b, visitor: ['a b']}", "cannot be read"),
        ("{goal: a, event: b, when: {a: {gtt: 1}}}", 'did you mean "gt"?'),
        ("{goal: a, event: b, datafast: shop2}", 'no website is named "shop2"'),
        ("{goal: a, event: b, datafast: test}", "test-mode events"),
        ("{goal: a, event: b, datafast: {name: default, api_key: df_1}}", "DATAFAST_API_KEY"),
        ("{goal: a, event: b, datafast: {name: s, api_key: sk_1}}", "cannot be used: this is a Stripe key;"),
        ("{goal: a, event: b, datafast: {name: s, api_key: dft_1}}", 'needs "website_id"'),
        ("{goal: a, event: b, datafast: {name: s, api_key: dft_1, website_id: dfid_1}}", "24 hex digits"),
    ],
)  # fmt: skip
def test_what_datafast_would_refuse_is_a_fault_of_check(rule, said):
    assert said in fault(f"provider: stripe\ngoals:\n  - {rule}\n")


def test_two_rules_with_the_same_id_are_an_error_never_numbered():
    text = "provider: stripe\ngoals:\n  - {goal: refund, event: a}\n  - {goal: Refund, event: b}\n"
    assert fault(text) == '4:12: id "refund" is taken by the rule on line 3; give each its own "id"'
    assert not faults(text.replace("event: b", "event: b, id: refund-b"))


def test_every_fault_of_every_file_is_told_at_once_in_order():
    files = {
        "b.yaml": "provider: stripe\nsecrt: x\ngoals:\n  - {goal: identify, event: [a, 5]}\n",
        "a.yaml": "a: [b[0]]\n",
        "c.yaml": TWO_LINES,
        "two words.yaml": TWO_LINES,
    }
    with pytest.raises(MappingError) as caught:
        rules.load(files, {}, PRESETS, folder="my/rules/")
    assert [problem.replace("two words", "two_words").split(" ")[0] for problem in caught.value.problems] == [
        "my/rules/a.yaml:1:6:",
        "my/rules/b.yaml:2:1:",
        "my/rules/b.yaml:4:12:",
        "my/rules/b.yaml:4:33:",
        "my/rules/two_words.yaml:1:1:",
    ]
    assert str(caught.value).count("\n") == len(caught.value.problems) - 1


def test_structure_and_meaning_are_told_together_where_both_can_be_judged():
    found = faults(TWO_LINES + "    when: {a: {gtt: 1}}\n    visitor: a..b\n    once_per: '{x'\nvisitor: c..d\n")
    assert [f.partition(": ")[0] for f in found] == [
        "shop.yaml:5:16",
        "shop.yaml:6:14",
        "shop.yaml:7:15",
        "shop.yaml:8:10",
    ]


def test_a_misshapen_value_hides_no_other_fault():
    text = """\
secrt: x
provider: stripe
envelope: {type: a..b, tst: c}
links: [{kind: order}, {kind: Order, path: 5}]
goals:
  - just a text
  - goal: identify
    event: [a, 5]
    metadatta: {a: b}
    metadata: {Plan Name: x, a: [1]}
  - event: b
    when: {x: {gtt: 1}}
  - {goal: ok, event: c, enabled: no, max_age: never}
tests:
  - {name: x}
  - {name: y, event: {}, goals: [{gaol: z}], only: nobody}
"""
    places = [fault.removeprefix("shop.yaml:").partition(": ")[0] for fault in faults(text)]
    assert places == [
        "1:1", "3:18", "3:24", "4:9", "4:31", "4:44", "6:5", "7:11", "8:16", "9:5", "10:16", "10:33",
        "11:5", "12:16", "13:35", "13:48", "15:5", "16:34", "16:35", "16:52",
    ]  # fmt: skip


def test_a_folder_without_a_mapping_file_is_refused():
    with pytest.raises(MappingError, match="there is no mapping file"):
        rules.load({}, {}, PRESETS)


def test_two_files_of_one_source_are_refused():
    with pytest.raises(MappingError, match=r"a\.yaml is the same source"):
        rules.load({"a.yaml": TWO_LINES, "a.yml": TWO_LINES}, {}, PRESETS)


# ----------------------------------------------------------------------------------------------------------- sources


def test_a_file_may_be_called_by_a_number():
    found = load(TWO_LINES, {"2ND_SHOP_WEBHOOK_SECRET": "whsec_abc"}, name="2nd-shop.yaml")
    assert found.sources["2nd-shop"].secrets == ("whsec_abc",)


def test_a_file_has_the_defaults_of_its_provider():
    source = load(TWO_LINES, {"SHOP_WEBHOOK_SECRET": "whsec_abc"}).sources["shop"]
    assert source.name == "shop"
    assert source.provider == "stripe"
    assert source.verify.type == "hmac-sha256"
    assert source.verify.signature.places == (Place("header", "Stripe-Signature"),)
    assert source.verify.timestamp is not None
    assert source.verify.timestamp.places == ()
    assert source.verify.timestamp.prefix == "t="
    assert [path.text for path in source.visitor] == PRESETS["stripe"]["visitor"]
    assert [path.text for path in source.envelope.type] == ["type"]
    assert source.envelope.test_is is False
    assert [(link.kind, link.events) for link in source.links] == [
        ("session", ("checkout.session.*",)),
        ("customer", ("*",)),
    ]
    assert source.links_named_by_provider
    assert source.id_is_signed
    assert source.secrets == ("whsec_abc",)
    assert source.secret_names == ("SHOP_WEBHOOK_SECRET",)
    assert source.secret_error is None
    assert source.destination == "default"


def test_what_the_file_says_wins_over_the_preset():
    source = load(
        textwrap.dedent("""\
        provider: stripe
        visitor: data.mine
        envelope: {type: kind, test: sandbox}
        body: {json_field: data}
        each: body.events
        verify: {timestamp: {in: "header:T", tolerance: 60}}
        links: {order: [data.order, data.old_order]}
        goals: []
        """)
    ).sources["shop"]
    assert [path.text for path in source.visitor] == ["data.mine"]
    assert [path.text for path in source.envelope.type] == ["kind"]
    assert [path.text for path in source.envelope.id] == ["id"]
    assert source.envelope.test_is is True
    assert (source.body, source.body_field) == (BodyForm.JSON_FIELD, "data")
    assert source.each is not None
    assert source.verify.signature.prefix == "v1="
    assert source.verify.timestamp is not None
    assert (source.verify.timestamp.tolerance_s, source.verify.timestamp.prefix) == (60, "t=")
    assert [link.kind for link in source.links] == ["session", "customer", "order"]
    assert len(source.links[-1].paths) == 2


def test_a_custom_sender_is_said_in_full():
    source = load(
        textwrap.dedent("""\
        provider: custom
        secret: ${MY_SECRET}
        verify:
          type: hmac-sha256
          signature: {in: ["header:X-Sig", "query:sig"], split: ",", prefix: "v1=", encoding: base64}
          timestamp: {in: "header:X-Time"}
          id: header:X-Id
          signed: "{id}.{timestamp}.{header:X-Env}.{body}"
        links:
          - {event: "order.*", path: id, kind: order}
        goals: []
        """)
    ).sources["shop"]
    assert source.verify.signature.places == (Place("header", "X-Sig"), Place("query", "sig"))
    assert source.verify.signature.encoding == "base64"
    assert source.verify.id == (Place("header", "X-Id"),)
    assert not source.links_named_by_provider
    assert source.links[0].events == ("order.*",)


@pytest.mark.parametrize("verify", ["github", "{preset: github}"])
def test_the_scheme_of_a_preset_can_be_borrowed(verify):
    source = load(f"provider: custom\nverify: {verify}\ngoals: []").sources["shop"]
    assert source.verify.signature.places == (Place("header", "X-Hub-Signature-256"),)
    assert source.envelope.type == ()


def test_basic_needs_no_place():
    assert load("provider: custom\nverify: {type: basic}\ngoals: []").sources["shop"].verify.type == "basic"


# ----------------------------------------------------------------------------------------------------------- secrets


def test_the_default_variable_is_the_stem_in_capitals():
    found = load(TWO_LINES, {"MY_SHOP_2_WEBHOOK_SECRET": "s"}, name="my-shop-2.yaml")
    assert found.sources["my-shop-2"].secrets == ("s",)


def test_a_list_of_secrets_is_for_rotation():
    text = 'provider: stripe\nsecret: ["${NEW}", "${OLD}"]\ngoals: []'
    source = load(text, {"NEW": "whsec_new", "OLD": "whsec_old,whsec_older"}).sources["shop"]
    assert source.secrets == ("whsec_new", "whsec_old", "whsec_older")
    assert source.secret_names == ("NEW", "OLD")
    assert load(text, {"OLD": "whsec_old"}).sources["shop"].secret_error is None


def test_a_secret_in_the_file_works_and_is_warned_of():
    found = load("provider: stripe\nsecret: whsec_abc\ngoals: []")
    assert found.sources["shop"].secrets == ("whsec_abc",)
    assert "mappings/shop.yaml:2:9: a secret is written in the file itself" in found.warnings[0]


def test_no_secret_is_shown_anywhere():
    found = load(TWO_LINES, {"SHOP_WEBHOOK_SECRET": "whsec_topsecret"})
    assert "topsecret" not in repr(found)


def test_what_looks_like_another_key_of_stripe_is_warned_of():
    assert "API key" in load(TWO_LINES, {"SHOP_WEBHOOK_SECRET": "sk_live_1"}).warnings[0]


def test_a_requirement_without_its_variable_switches_the_source_off():
    text = 'provider: query-token\nrequire: {seller_id: "${SELLER}", kind: [sale, 2]}\ngoals: []'
    source = load(text, {"SHOP_WEBHOOK_SECRET": "s"}).sources["shop"]
    assert source.secrets == ()
    assert "SELLER is not set" in (source.secret_error or "")
    source = load(text, {"SHOP_WEBHOOK_SECRET": "s", "SELLER": "abc"}).sources["shop"]
    assert source.secrets == ("s",)
    assert [(r.path.text, r.expected) for r in source.require] == [("seller_id", ("abc",)), ("kind", ("sale", "2"))]


def test_a_sender_that_signs_its_url_wants_it():
    text = (
        "provider: custom\nverify: {type: hmac-sha256, signature: {in: 'header:X'}, signed: '{url}{body}'}\ngoals: []\n"
    )
    assert any('set "public_url"' in warning for warning in load(text).warnings)
    found = load(text + "public_url: ${BASE}/webhooks/shop\n", {"BASE": "https://example.com"})
    assert found.sources["shop"].public_url == "https://example.com/webhooks/shop"


# ------------------------------------------------------------------------------------------------------ destinations


def test_a_file_and_a_rule_may_send_to_another_website():
    text = textwrap.dedent("""\
    provider: stripe
    datafast: {name: shop2, api_key: "${SHOP2_KEY}"}
    goals:
      - {goal: a, event: x}
      - {goal: b, event: x, datafast: default}
      - {goal: c, event: x, datafast: {name: shop3, api_key: "${SHOP3_KEY}", website_id: 665f0b3c4d2e1a0012345678}}
    """)
    found = load(text, {"SHOP2_KEY": "df_2", "SHOP3_KEY": "dft_3"})
    assert [rule.destination for rule in found.rules["shop"]] == ["shop2", "default", "shop3"]
    assert found.sources["shop"].destination == "shop2"
    assert found.destinations == {
        "shop2": Destination("shop2", "df_2"),
        "shop3": Destination("shop3", "dft_3", "665f0b3c4d2e1a0012345678"),
    }


def test_a_website_of_another_file_can_be_named():
    files = {
        "a.yaml": 'provider: stripe\ndatafast: {name: shop2, api_key: "${K}"}\ngoals: []',
        "b.yaml": "provider: stripe\ndatafast: shop2\ngoals: []",
    }
    found = rules.load(files, {"K": "df_1"}, PRESETS)
    assert found.sources["b"].destination == "shop2"


def test_a_website_without_its_key_waits_and_is_warned_of():
    found = load('provider: stripe\ndatafast: {name: shop2, api_key: "${K}"}\ngoals: []')
    assert found.destinations == {"shop2": Destination("shop2", None)}
    assert any('K is not set: goals for the website "shop2" wait' in warning for warning in found.warnings)


# ---------------------------------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("provider", "event", "meant"),
    [
        ("lemonsqueezy", "subscription_canceled", "subscription_cancelled"),
        ("lemonsqueezy", "order_create", "order_created"),
        ("stripe", "customer.subscription.cancelled", "customer.subscription.deleted"),
        ("stripe", "charge.refund", "charge.refunded"),
        ("stripe", "checkout.session.complete", "checkout.session.completed"),
        ("lemonsqueezy", "subscription_payment_success", None),
        ("lemonsqueezy", "subscription_*", None),
        ("lemonsqueezy", "something_new", None),
        ("github", "pushh", None),
    ],
)
def test_a_near_miss_of_an_event_name_is_warned_of(provider, event, meant):
    found = load(f"provider: {provider}\ngoals:\n  - {{goal: a, event: {event}}}", {"SHOP_WEBHOOK_SECRET": "s"})
    said = [warning for warning in found.warnings if "did you mean" in warning]
    assert bool(said) == (meant is not None)
    if meant is not None:
        assert f'"{event}"; did you mean "{meant}"?' in said[0]
        assert said[0].startswith("mappings/shop.yaml:3:22: ")


def test_a_source_without_a_visitor_is_warned_of():
    found = load("provider: github\ngoals:\n  - {goal: a, event: b}")
    assert any("nothing says where the visitor id is" in warning for warning in found.warnings)


@pytest.mark.parametrize("said", ["{echo: challenge}", "null", "anything"])
def test_the_old_key_challenge_is_accepted_and_names_the_new_one(said):
    found = load(f"provider: github\nchallenge: {said}\ngoals:\n  - {{goal: a, event: b}}")
    warned = [warning for warning in found.warnings if "handshake" in warning]
    assert warned == (
        []
        if said == "null"
        else ['mappings/shop.yaml:2:1: "challenge" does nothing: remove it; handshakes are in "handshake"']
    )


def test_a_source_whose_events_have_no_type_is_warned_of():
    text = "provider: custom\nverify: {type: basic}\nvisitor: v\ngoals:\n  - {goal: a, event: b}"
    said = "nothing says where the type of an event is"
    assert any(said in warning for warning in load(text).warnings)
    assert not any(said in warning for warning in load(text.replace("event: b", 'event: "*"')).warnings)
    assert not any(said in warning for warning in load(text + "\nenvelope: {type: kind}").warnings)


@pytest.mark.parametrize(
    ("verify", "event_id", "signed"),
    [
        ("type: hmac-sha256", "header.x-id", False),
        ("type: hmac-sha256", "[id, query.id]", False),
        ("type: hmac-sha256", "id", True),
        ("type: hmac-sha256, id: 'header:X-Id', signed: '{id}.{body}'", "header.x-id", True),
        ("type: hmac-sha256, id: 'header:X-Id'", "header.x-id", False),
        ("type: hmac-sha256, signed: '{header:X-Id}.{body}'", "header.x-id", True),
        ("type: hmac-sha256, signed: '{url}{body}'", "query.id", True),
        ("type: hmac-sha256, id: 'header:X-Id'", None, False),
        ("type: hmac-sha256, id: 'body:id'", None, True),
        ("type: token", "header.x-id", True),
    ],
)
def test_an_id_outside_the_signature_is_known_to_be(verify, event_id, signed):
    envelope = f"envelope: {{id: {event_id}}}\n" if event_id else ""
    stanza = f"verify: {{signature: {{in: 'header:S'}}, {verify}}}\n"
    assert load(f"provider: custom\n{stanza}{envelope}goals: []").sources["shop"].id_is_signed is signed


# -------------------------------------------------------------------------------------------------------- the set


def test_the_hash_names_the_files_and_their_texts():
    one = rules.load({"a.yaml": TWO_LINES}, {}, PRESETS)
    same = rules.load({"a.yaml": TWO_LINES}, {"A_WEBHOOK_SECRET": "s"}, PRESETS)
    other_name = rules.load({"b.yaml": TWO_LINES}, {}, PRESETS)
    other_text = rules.load({"a.yaml": TWO_LINES + "\n"}, {}, PRESETS)
    assert one.hash == same.hash
    assert len({one.hash, other_name.hash, other_text.hash}) == 3
    assert one.files == {"a.yaml": TWO_LINES}


def test_only_the_mapping_files_of_the_folder_itself_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("\ufeff" + TWO_LINES, "utf-8")
    (tmp_path / "b.yml").write_text(TWO_LINES, "utf-8")
    (tmp_path / "notes.txt").write_text("x", "utf-8")
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "c.yaml").write_text("x", "utf-8")
    assert rules.read_files(tmp_path) == {"a.yaml": TWO_LINES, "b.yml": TWO_LINES}


def test_a_file_that_is_no_text_and_a_folder_that_is_not_there_are_told(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"a: b\nc: \xff\n")
    (tmp_path / "b.yaml").write_text("provider: strip\ngoals: []", "utf-8")
    with pytest.raises(MappingError) as caught:
        rules.load(rules.read_files(tmp_path), {}, PRESETS)
    assert caught.value.problems == (
        "mappings/a.yaml:2:4: the file is not UTF-8 text",
        'mappings/b.yaml:1:11: unknown provider "strip"; did you mean "stripe"?',
    )
    with pytest.raises(MappingError, match="cannot be read"):
        rules.read_files(tmp_path / "nowhere")


# -------------------------------------------------------------------------------------------------------- properties

WORDS = st.sampled_from(
    ["provider", "goals", "goal", "event", "when", "stripe", "a", "- ", "\n", "  ", ": ", "{", "}", "[", "]", "*", "&a",
     "any", "not", "gt", "5", "true", "null", "'", '"', "metadata", "verify", "links", "tests", "maps", ",", "|", "#",
     "once_per", "datafast", "envelope", "visitor", "{x}", "a.b", "[0]", "secret", "${A}", "<<", "!!x", "%", "---"]
)  # fmt: skip


@given(st.text(max_size=200) | st.lists(WORDS, max_size=40).map("".join))
@example("goals: [{goal: x, event: y, when: {not: {not: {not: []}}}}]\nprovider: stripe")
@example("? {a: b}\n: c")
@example('"\\UFFFFFFFF"')
@example("%YAML 9.9\n--- a")
@example("a: !<%zz> b")
def test_loading_raises_nothing_but_a_mapping_error(text):
    for found in faults(text):
        assert found.startswith("shop.yaml:")
        assert "\n" not in found


YAMLISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*rules.schema_json()["properties"], *"abc", "goal", "event", "in"]), inner)
    ),
    max_leaves=12,
)


@given(YAMLISH, st.sampled_from(list(rules.schema_json()["properties"])), YAMLISH)
def test_whatever_shape_a_key_has_only_mapping_errors_come(whole, key, value):
    import json

    for data in (whole, {"provider": "stripe", "goals": [{"goal": "a", "event": "b"}], key: value}):
        faults(json.dumps(data))  # raises nothing else


def test_head_of_the_kit_is_a_sound_file():
    assert not faults(HEAD + "  - {goal: a, event: b}\n")
