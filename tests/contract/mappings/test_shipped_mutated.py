"""Whatever an editor does to a shipped file, `check` answers with lines to jump to, never with a traceback."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import loading, mapping_tests, sources
from bridge.errors import MappingError
from bridge.settings import load

ROOT = Path(__file__).parents[3]
FILES = {path.name: path.read_text("utf-8") for path in sorted((ROOT / "mappings").rglob("*.yaml"))}
PIECES = [
    "", "[",
    "]", "{", "}", "*", "&a ", "<<: ", '"', "'", ": ", "- ", "\t", "null", "true", "5", "\n", "  ", "#", "${X}",
    "${", "goals:", "when:", "{a|b}", "\u2028", "\x85", "\ufeff", "\0", "é", "any:", "not:", "[0]", "%", "!t", "---\n",
    "? ", "{path: x}", "changed", "\r", "😀",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 2, 5, 20, 80]), st.sampled_from(PIECES)), min_size=1, max_size=4
)
PLACE = re.compile(r"mappings/[\w.-]+:(\d+):(\d+): \S.*")


@given(st.sampled_from(sorted(FILES)), EDITS)
@settings(max_examples=60, deadline=None)
def test_an_edited_file_is_right_or_has_faults_with_their_places(name, edits):
    text = FILES[name]
    for at, cut, piece in edits:
        start = int(at * len(text))
        text = text[:start] + piece + text[start + cut :]
    try:
        found = loading.load({name: text}, {"STRIPE_WEBHOOK_SECRET": "whsec_x"}, sources.presets())
    except MappingError as error:
        lines = re.split("\r\n|\r|\n", text)
        for problem in error.problems:
            place = PLACE.fullmatch(problem)
            assert place, problem
            assert int(place[1]) <= len(lines) + 1, problem
            assert int(place[2]) <= len([*lines, "", ""][int(place[1]) - 1]) + 2, problem
    else:
        assert all(
            isinstance(result.ok, bool) for result in mapping_tests.run_tests(found, load({}), 1_790_000_000_000)
        )
