"""The reference of the rule language, generated from the tables that the code itself reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from bridge import limits
from bridge.rules.language.filters import FILTERS
from bridge.rules.reading import schema as keys
from bridge.rules.reading.when import OPERATORS

_TABLES: Final[tuple[tuple[str, type[keys.Strict]], ...]] = (
    ("Keys of a mapping file", keys.MappingFile),
    ("Keys of a rule (an entry of `goals`)", keys.GoalStanza),
    ("`payment`", keys.PaymentStanza),
    ("Keys of a test (an entry of `tests`)", keys.TestCaseStanza),
    ("Keys of an expected goal (an entry of a test's `goals`)", keys.ExpectedGoalStanza),
    ("`envelope`", keys.EnvelopeStanza),
    ("`verify`", keys.Verify),
    ("`verify.signature`", keys.Signature),
    ("`verify.timestamp`", keys.Timestamp),
    ("An entry of `links`", keys.LinkStanza),
    ("`handshake`", keys.HandshakeStanza),
    ("An entry of `handover`", keys.HandoverStanza),
    ("An entry of a value", keys.Chosen),
    ("`datafast`", keys.DestinationStanza),
)
_PATHS: Final = (
    ("`data.object.id`", "a field below a field of the body"),
    ("`items[0].id`, `items[-1].id`", "the first or the last element of a list"),
    ("`notes[name=visitor].value`", "the first element whose field has this value; the field may be a dotted path"),
    ('`data."a.b".c`', "a key with a dot, a space or similar"),
    ("`items.*.price`", "a list of this field of every element that has it (quoted in YAML, because of the `*`)"),
    ("`items.*[kind=tax].amount`", "the same, of the elements whose field has this value"),
    ("`value.plan`", "the value of this name in `values` of the file or of the preset"),
    ("`was.data.object.status`", "any path, in the event as it was before the change"),
    ("`header.x-topic`, `query.token`", "a header (in upper or lower case), a parameter of the URL"),
    ("`envelope.type`", "`type`, `id`, `time` (milliseconds), `test`, `account`, whatever the provider calls them"),
    ("`key.subscription`", "an id that the bridge recognised: `key.` and the kind of a link"),
    ("`root.account`", "the whole body, if `each` makes every element an event"),
    ("`body.header.x`", "a field of the body that has the same name as one of these roots"),
)


def schema_json() -> dict[str, Any]:
    """The JSON Schema of a mapping file, for editors."""
    published = json.dumps(keys.MappingFile.model_json_schema(by_alias=True)).replace("Stanza", "")  # our class names
    schema = json.loads(published)
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["extends"]}]  # a layer inherits the rest
    goal = schema["$defs"]["Goal"]
    del goal["required"]
    new_rules = [[name, more] for name in ("goal", "payment") for more in ("event", "like")]
    goal["anyOf"] = [{"required": required} for required in (*new_rules, ["id"])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A mapping file of the bridge",
    }


def reference() -> str:
    """The reference as Markdown: keys, paths, operators, filters, limits."""
    parts = ["# Reference of the rule language", "", "Written by the code itself; do not edit.", ""]
    for title, model in _TABLES:
        parts += [f"## {title}", "", *_table(("key", "meaning"), _fields(model)), ""]
    parts += ["## Paths", "", *_table(("path", "reads"), _PATHS), ""]
    parts += ["## Operators of conditions", "", *_table(("operator", "holds for"), _code(OPERATORS.items())), ""]
    parts += ["## Filters of templates", "", "If a filter cannot take a value, the result is missing.", ""]
    parts += [*_table(("filter", "gives"), _code((kind.usage, kind.does) for kind in FILTERS.values())), ""]
    parts += ["## Limits of DataFast", "", *_limits(), ""]
    return "\n".join(parts)


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _fields(model: type[keys.Strict]) -> Iterable[tuple[str, str]]:
    for name, field in model.model_fields.items():
        needed = "**needed**; " if field.is_required() else ""
        yield f"`{field.alias or name}`", needed + (field.description or "")


def _code(rows: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((f"`{name}`", meaning) for name, meaning in rows)


def _limits() -> list[str]:
    return [
        f"- a goal's name: {limits.NAME_MAX} characters of `a-z 0-9 _ - :`; capitals become lower case, spaces `_`",
        "- a name made from a template is folded: `user.signup` becomes user_signup, `Käufer` kaufer",
        f"- metadata: {limits.KEYS_MAX} entries; keys of {limits.KEY_MAX} characters `a-z 0-9 _ -`",
        f"- a metadata value: {limits.VALUE_MAX} characters, without `< > ' \" &` and scripts",
        "- a payment: an amount of zero or more, a currency of three letters, a `transaction_id` that counts once",
        *(f"- `{name}` cannot be a goal's name: {reason}" for name, reason in limits.RESERVED.items()),
    ]
