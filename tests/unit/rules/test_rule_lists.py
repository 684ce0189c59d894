"""Paths that read all elements of a list, conditions on them, filters of lists, and two times compared."""

from __future__ import annotations

import sys

import pytest
from rules_kit import evaluate, fault, faults

from bridge.model import Document, ExactFloat
from bridge.rules.language.filters import Scope
from bridge.rules.language.paths import compile_path
from bridge.rules.language.templates import compile_template

BODY = {
    "refunds": [{"amount": "20.00", "kind": "tax"}, {"amount": None}, {"kind": "net"}, {"amount": ExactFloat("30.0")}],
    "items": [
        {"sku": "a", "qty": 1, "taxes": [{"rate": 5}, {"rate": 7}]},
        {"sku": "b", "qty": 3, "taxes": []},
        {"sku": {"id": "c"}, "qty": 2, "taxes": [{"rate": 9}], "tags": ["x"]},
    ],
    "empty": [],
    "one": {"amount": 5},
    "starred": {"*": {"amount": 4}},
    "texts": '[{"amount": 1}, {"amount": 2}]',
    "numbers": [3, "1.50", 2],
    "mixed": [3, "x"],
    "letters": ["a", "b", "c", "d", "e"],
    "tax": 2,
    "name": "abcdef",
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("refunds.*.amount", ["20.00", 30.0]),  # what is not there is left out
        ("items.*.sku", ["a", "b", "c"]),  # an object reads as its id
        ("items.*.taxes.*.rate", [5, 7, 9]),
        ("items.*.tags[0]", ["x"]),
        ("items.*[sku=b].qty", [3]),
        ("refunds.*[kind=tax].amount", ["20.00"]),
        ("refunds.*[kind=tax][amount=20.00].kind", ["tax"]),
        ("refunds.*[kind=none].amount", []),
        ("numbers.*", [3, "1.50", 2]),
        ("empty.*.amount", []),
        ("one.*.amount", None),
        ("nothing.*.amount", None),
        ("tax.*", None),
        ('starred."*".amount', 4),  # a field that is called *
        ("starred.*.amount", [4]),
        ("texts.*.amount", [1, 2]),
        ("root.numbers.*", [3, "1.50", 2]),
    ],
)
def test_a_star_reads_every_element_of_a_list(path, values):
    found = compile_path(path).read(Document(BODY, root=BODY))
    assert (found or None if values is None else found) == values


def test_whole_gives_the_elements_themselves():
    assert compile_path("items.*.sku").whole(Document(BODY)) == ["a", "b", {"id": "c"}]


def render(template):
    return compile_template(template).render(Scope(Document(BODY)))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{refunds.*.amount|sum}", "50.00"),
        ("{numbers|sum}", "6.50"),
        ("{numbers.*|sum}", "6.50"),
        ("{empty|sum}", "0"),
        ("{nothing.*.x|sum}", None),
        ("{mixed|sum}", None),
        ("{tax|sum}", "2"),
        ("{refunds.*.amount|count}", "2"),
        ("{refunds|count}", "4"),
        ("{empty|count}", "0"),
        ("{nothing|count}", None),
        ("{numbers|min}", "1.50"),
        ("{numbers|max}", "3"),
        ("{empty|min}", None),
        ("{mixed|max}", None),
        ("{items.*.sku|first}", "a"),
        ("{items.*.sku|last}", "c"),
        ("{empty|first}", None),
        ("{items.*.sku|join}", "a, b, c"),
        ("{items.*.sku|join:/}", "a/b/c"),
        ('{items.*.sku|join:" + "}', "a + b + c"),
        ("{empty|join}", None),
        ("{items|join}", None),
        ("{items.*.sku}", None),  # a list has no text of its own
        ("{numbers|sum|plus:tax}", "8.5"),
        ("{tax|plus:nothing}", "2"),
        ("{name|plus:tax}", None),
        ("{tax|plus:name}", None),
        ("{name|max:3}", "abc"),
        ("{name|max}", None),
        ("{tax|minus:nothing}", "2"),
    ],
)
def test_filters_of_lists(template, text):
    assert render(template) == text


def test_max_with_a_colon_needs_its_number():
    with pytest.raises(ValueError, match='filter "max" needs a number after its colon'):
        compile_template("{name|max:}")


def holds(when):
    found = evaluate("  - {goal: g, event: t, when: " + when + "}", {"type": "t", **BODY})
    assert [trace.result for trace in found.traces] != ["failed"]
    return bool(found.planned)


@pytest.mark.parametrize(
    ("when", "holding"),
    [
        ('{"items.*.sku": b}', True),
        ('{"items.*.sku": [x, c]}', True),
        ('{"items.*.sku": x}', False),
        ('{"items.*.qty": {gt: 2}}', True),
        ('{"items.*.qty": {gt: 3}}', False),
        ('{"items.*.qty": {gt: 1, lt: 3}}', True),  # one of them, both
        ('{"items.*.qty": {gt: 1, lt: 2}}', False),  # 3 and 1 are not one element
        ('{"items.*.sku": {not: x}}', True),  # none of them is x
        ('{"items.*.sku": {not: a}}', False),
        ('{"items.*.sku": {not_in: [x, b]}}', False),
        ('{"items.*.sku": {not_in: [x, y]}}', True),
        ('{"items.*.qty": {gt: 2, not: 1}}', False),
        ('{"items.*.qty": {gt: 2, not: 9}}', True),
        ('{"items.*.qty": {not: {not: 3}}}', True),
        ('{"items.*.qty": {any: [{gt: 9}, {not: 9}]}}', True),
        ('{"items.*.tags": {exists: true}}', True),
        ('{"items.*.tags": {exists: false}}', False),
        ('{"items.*.nothing": {exists: false}}', True),
        ('{"items.*.nothing": null}', True),
        ('{"empty.*": {exists: false}}', True),
        ('{"nothing.*.x": {not: 1}}', True),
        ('{"nothing.*.x": 1}', False),
        ('{"items.*.sku": {prefix: b}}', True),
        ('{"items.*.tags": {contains: x}}', True),
        ('{"items.*.qty": {path: tax}}', True),
        ('{"items.*.qty": {gt: {path: tax}}}', True),
        ('{"items.*.qty": {not: {path: tax}}}', False),
        ('{not: {"items.*.qty": 3}}', False),
        ('{not: {"items.*.qty": 4}}', True),
        # a map that one element must satisfy as a whole
        ('{"items.*": {sku: b, qty: 3}}', True),
        ('{"items.*": {sku: a, qty: 3}}', False),
        ('{"items.*": {sku: a, qty: {not: 3}}}', True),
        ('{"items.*": {sku: b, any: [{qty: 9}, {qty: 3}]}}', True),
        ('{"items.*": {sku: b, not: {qty: 3}}}', False),
        ('{"items.*": {not: {sku: b, qty: 3}}}', False),  # no element is both
        ('{"items.*": {not: {sku: b, qty: 4}}}', True),
        ('{"items.*": {any: [{sku: x}, {qty: 2}]}}', True),
        ('{"items.*": {"taxes.*.rate": 9, sku: c}}', True),
        ('{"items.*": {"taxes.*.rate": 9, sku: a}}', False),
        ('{"items.*": {sku: c, qty: {path: body.qty}}}', True),
        ('{"empty.*": {sku: a}}', False),
        ('{"numbers.*": {sku: a}}', False),
    ],
)
def test_conditions_on_the_elements_of_a_list(when, holding):
    assert holds(when) is holding


@pytest.mark.parametrize(
    ("when", "path", "actual", "expected"),
    [
        ('{"items.*.qty": {gt: 3}}', "items.*.qty", "1, 3, 2", "gt 3"),
        ('{"nothing.*.x": a}', "nothing.*.x", "missing", "a"),
        ('{"letters.*": z}', "letters.*", "a, b, c and 2 more", "z"),
        (
            '{"items.*": {sku: a, qty: 3}}',
            "items.*",
            "a list of 3",
            "a list with an element whose sku is a and qty is 3",
        ),
        ('{"items.*": {not: {sku: a}}}', "items.*", "a list of 3", "a list with no element whose sku is a"),
    ],
)
def test_a_failure_says_what_was_there(when, path, actual, expected):
    (trace,) = evaluate("  - {goal: g, event: t, when: " + when + "}", {"type": "t", **BODY}).traces
    assert (trace.path, trace.actual, trace.expected) == (path, actual, expected)


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (
            '{"items.*": {root.x: 1}}',
            'the conditions of an element read only the element, so "root.x" is not allowed there',
        ),
        ('{"items.*": {value.x: 1}}', '"value.x" is not allowed there'),
        ('{"items.*": {a: {path: header.x}}}', '"header.x" is not allowed there'),
        ('{a: {path: "items.*.x"}}', '"items.*.x" reads a list, but a value is compared with one value'),
        ('{"data.object.items.*.x": {changed: true}}', '"changed" looks into data.previous_attributes'),
        ("{a: {within: 14d}}", '"within" needs "after"'),
        ("{a: {after: b, within: soon}}", '"soon" must be'),
        ("{a: {after: '', within: 1d}}", "a path is empty"),
        ("{a: {after: 14d}}", '"after" takes the path of the earlier time'),
        ("{a: {after: 14}}", '"after" takes the path of the earlier time'),
        ("{a: {after: null}}", '"after" takes the path of the earlier time'),
        ("{a: {after: {path: b}}}", '"after" takes the path of the earlier time'),
        ('{"items.*": {kind: x, gt: 3}}', '"gt" is an operator among paths'),
        ('{"items.*": {not: {kind: x, exists: true}}}', '"exists" is an operator among paths'),
    ],
)
def test_what_cannot_be_asked_of_a_list_is_told(when, said):
    text = "provider: stripe\ngoals:\n  - {goal: g, event: t, when: " + when + "}\n"
    assert said in fault(text)


@pytest.mark.parametrize("name", ["plus", "minus", "money"])
def test_what_a_filter_reckons_with_is_no_list(name):
    text = f"provider: stripe\ngoals:\n  - {{goal: g, event: t, metadata: {{x: '{{a|{name}:items.*.tax}}'}}}}\n"
    assert f'filter "{name}" needs one value, but "items.*.tax" reads a list' in fault(text)


@pytest.mark.parametrize("where", ["visitor: value.mine", "links: {customer: value.mine}", "visitor: was.value.mine"])
def test_a_value_is_not_where_ids_are_looked_for(where):
    text = f"provider: stripe\n{where}\nvalues: {{mine: '{{x}}'}}\ngoals:\n  - {{goal: g, event: t}}\n"
    assert 'value.mine" cannot be read here: ids are found before values are computed' in fault(text)


def test_a_field_of_the_body_that_is_called_value_may_hold_an_id():
    assert not faults("provider: stripe\nvisitor: [value.mine]\ngoals:\n  - {goal: g, event: t}\n")


def test_a_star_where_only_one_value_can_be_is_told():
    text = "provider: stripe\ngoals:\n  - {goal: g, event: t, when: {'items[tags.*=1].x': 1}}\n"
    assert 'path "items[tags.*=1].x": within brackets there is one value, so no "*"' in fault(text)


def test_a_value_that_is_wrong_is_told_once():
    told = fault("provider: stripe\nvalues: {a: 1.50}\ngoals:\n  - {goal: g, event: t, metadata: [a]}\n")
    assert told.endswith('"a" must be a template, or a list of {event, value}')


def test_a_wrong_name_of_a_value_is_told_once():
    assert fault("provider: stripe\nvalues: {a: '{b}'}\ngoals:\n  - {goal: g, event: t, metadata: [a, 3]}\n") == (
        '4:39: an entry of "metadata" must be a string; put it in quotes'
    )


TIMES = {
    "signed_up": "2026-05-01T10:00:00Z",
    "trial": 1_777_629_600,  # the same moment
    "bought": "2026-05-10T10:00:00+00:00",
    "late": 1_778_839_200_001,  # 14 days and a millisecond later
    "odd": "yesterday",
}


@pytest.mark.parametrize(
    ("when", "holding"),
    [
        ("{bought: {after: signed_up}}", True),
        ("{bought: {after: trial, within: 14d}}", True),
        ("{bought: {after: trial, within: 8d}}", False),
        ("{signed_up: {after: bought}}", False),
        ("{signed_up: {after: trial, within: 1s}}", True),  # the same moment counts
        ("{late: {after: trial, within: 14d}}", False),
        ("{odd: {after: trial}}", False),
        ("{bought: {after: nothing}}", False),
        ("{bought: {after: trial, prefix: '2026'}}", True),
        ("{bought: {not: {after: trial}}}", False),
    ],
)
def test_two_times_are_compared(when, holding):
    found = evaluate("  - {goal: g, event: t, when: " + when + "}", {"type": "t", **TIMES})
    assert bool(found.planned) is holding


def test_a_time_that_is_too_late_says_so():
    text = "  - {goal: g, event: t, when: {bought: {after: trial, within: 8d}}}"
    (trace,) = evaluate(text, {"type": "t", **TIMES}).traces
    assert trace.expected == "within 8d after the value at trial"


@pytest.mark.parametrize(
    "when",
    [
        '{"items.*.amount": {gt: {path: "items[name=x].amount"}}}',
        '{"items.*": {amount: {gt: 5}, "tags.*": x}}',
        '{"items.*.tags.*": {not_in: [a, b]}}',
        '{"items.*[name=x].amount": {exists: true}}',
    ],
)
def test_a_list_of_twice_the_elements_takes_twice_the_steps(when):
    """Counted, not timed; a quadratic reading would take four times the steps."""
    text = (
        "  - {goal: g, event: t, when: " + when + ', metadata: {s: "{items.*.amount|sum}", j: "{items.*.amount|join}"}}'
    )

    def steps(count):
        body = {"type": "t", "items": [{"amount": n % 5, "tags": ["y"]} for n in range(count)]}
        return counted(lambda: evaluate(text, body))

    steps(1)  # what is made for the first time
    few, many, more = steps(1), steps(1_001), steps(2_001)
    assert many - few > 1_000
    assert more - few < 2.5 * (many - few)


def counted(work):
    """How many lines of Python run, and how many calls are made."""
    steps = [0]

    def step(*_):
        steps[0] += 1
        return step

    sys.settrace(step)
    sys.setprofile(step)
    try:
        work()
    finally:
        sys.settrace(None)
        sys.setprofile(None)
    return steps[0]
