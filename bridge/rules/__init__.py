"""The rule language: mapping files → a compiled set; an event and its source's rules → planned goals with a trace.

- `read_files`, `read_file`, `load`: files to a RuleSet, or every problem at once
- `copy_of`: how a copy of a shipped file differs
- `table`, `evaluate`: rules and an event to goals; they never raise
- `for_type`: the rules that an event's type selects
- `schema_json`, `reference`: for editors and the docs

Pure: no web, no SQL, no clock, no environment.
"""

from bridge.rules.engine import describe, evaluate, for_type, table
from bridge.rules.language.paths import compile_path
from bridge.rules.reading.folder import SHIPPED, hash_of, own, read_file, read_files
from bridge.rules.reading.layers import copy_of
from bridge.rules.reading.loader import load
from bridge.rules.reference import reference, schema_json
from bridge.rules.ruleset import Evaluation, NearMiss, Rule, RuleSet, RuleTrace

__all__ = [
    "SHIPPED", "Evaluation", "NearMiss", "Rule", "RuleSet", "RuleTrace", "compile_path", "copy_of", "describe",
    "evaluate", "for_type", "hash_of", "load", "own", "read_file", "read_files", "reference", "schema_json", "table",
]  # fmt: skip
