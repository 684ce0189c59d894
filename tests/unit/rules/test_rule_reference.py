from __future__ import annotations

import json

from bridge import rules
from bridge.rules.language.filters import FILTERS
from bridge.rules.reading.schema import GoalStanza, MappingFile, TestCaseStanza
from bridge.rules.reading.when import OPERATORS


def test_the_reference_names_every_key_operator_and_filter():
    text = rules.reference()
    for model in (MappingFile, GoalStanza, TestCaseStanza):
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in text
            assert field.description, name
    for name in OPERATORS:
        assert f"| `{name}` |" in text
    for kind in FILTERS.values():
        assert f"| `{kind.usage}` |" in text


def test_the_schema_is_json_and_names_the_same_keys():
    schema = json.loads(json.dumps(rules.schema_json()))
    assert set(schema["properties"]) == set(MappingFile.model_fields)
    assert schema["anyOf"] == [{"required": ["provider", "goals"]}, {"required": ["extends"]}]
    assert schema["additionalProperties"] is False
    of_a_rule = schema["$defs"]["Goal"]["anyOf"]
    names = ["goal event", "goal like", "payment event", "payment like", "id"]
    assert of_a_rule == [{"required": name.split()} for name in names]
