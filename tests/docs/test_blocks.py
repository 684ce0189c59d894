"""What the pages show is true: rule files load and pass their tests, commands exist, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex

import click
import pytest
from docs_kit import PAGES, ROOT, blocks

from bridge import mapping_tests, rules, settings, sources
from bridge.cli.catalogue import Catalogue
from docs import generate

YAML = blocks("yaml")
CONSOLE = blocks("console")


def is_whole(block):
    return block.text.startswith(("provider:", "extends:"))


def loaded(block):
    """A whole mapping file, or a list of rules of Stripe's."""
    text = block.text if is_whole(block) else f"provider: stripe\ngoals:\n{block.text}"
    extended = re.match(r"extends: (\S+)", text)
    stem = extended[1] if extended else "lemonsqueezy" if "provider: lemonsqueezy" in text else "stripe"
    return rules.load({f"{stem}.yaml": text}, {}, sources.presets())


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_rule_file_of_the_docs_loads_and_its_tests_pass(block):
    results = mapping_tests.run_tests(loaded(block), settings.load({}), 1_790_000_000_000)
    assert [f"{result.name}: {result.message}" for result in results if not result.ok] == []
    if is_whole(block) and not block.page.startswith("docs/recipes/"):  # there, a sample says it
        assert results, "an example says what comes of it"


def test_the_guide_shows_every_key_that_a_rule_may_have():
    guide = (ROOT / "docs/rules.md").read_text().split("## Reference")[0]
    properties = rules.schema_json()["$defs"]["Goal"]["properties"]
    assert [key for key in properties if not re.search(rf"\b{key}\b", guide)] == []


def commands_of(block):
    """The `python -m bridge …` of a console block, as words; comments and what stands for a value taken off."""
    for line in block.text.splitlines():
        if line.startswith("$ "):
            words = shlex.split(line[2:].replace("<your own cookie datafast_visitor_id>", "ID"), comments=True)
            for start in (i for i, word in enumerate(words) if word.endswith("python")):
                if words[start + 1 : start + 3] == ["-m", "bridge"]:
                    yield words[start + 3 :]


def parse(words):
    """As click would, without running anything. click.UsageError for a wrong line."""
    command: click.Command = Catalogue()
    words = [word for word in words if word != "--json"]
    while isinstance(command, click.Group):
        context = click.Context(command)
        name = words[0] if words and not words[0].startswith("-") else getattr(command, "default", None) or "--help"
        below = command.get_command(context, name)
        if below is None:
            raise click.UsageError(f"there is no {name}")
        words = words[1:] if words and words[0] == name else words
        command = below
    command.make_context(command.name, list(words), resilient_parsing=False)


LINES = [(str(block), words) for block in CONSOLE for words in commands_of(block)]


@pytest.mark.parametrize(("where", "words"), LINES, ids=[f"{where} {words[0]}" for where, words in LINES])
def test_a_command_of_the_docs_exists_with_these_options(where, words):
    parse(words)


@pytest.mark.parametrize("words", [["chekc"], ["goals", "--stat", "held"], ["events", "replay", "--nope"]])
def test_a_command_that_does_not_exist_would_be_noticed(words):
    with pytest.raises(click.UsageError):
        parse(words)


def test_commands_between_backticks_exist_too():
    quoted = re.compile(r"`python -m bridge ([a-z]+(?: [a-z]+)?)[^`]*`")
    known = set(generate.every_command())
    found = [match for page in PAGES for match in quoted.findall(page.read_text())]
    assert found
    assert [name for name in found if name not in known and name.split()[0] not in known] == []


def test_every_make_target_of_the_docs_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = {name for page in PAGES for name in re.findall(r"(?:^\$ |`)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert {"demo", "test"} <= said
    assert said <= targets


def test_links_and_named_files_exist():
    lost = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        lost += [
            f"{page.relative_to(ROOT)}: {target}"
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
            if not target.startswith(("https://", "http://")) and not (page.parent / target).exists()
        ]
        if page.name in ("README.md", "CONTRIBUTING.md"):
            named = re.findall(r"`((?:bridge|mappings|tests|docs)/[\w./-]*|\w+\.(?:toml|md))`", text)
            lost += [f"{page.name}: {name}" for name in named if not (ROOT / name).exists()]
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_finished_and_of_no_one_machine(page):
    text = page.read_text()
    assert re.findall(r"\b(?:TODO|FIXME|TBD|XXX)\b|lorem ipsum", text, re.IGNORECASE) == []
    assert re.findall(r"(?:^|[\s`(\"'=])(/(?:home|Users|root|work|tmp)/[^\s`)]*)", text) == []
    assert text.startswith("# ")
    assert text.endswith("\n")


def test_the_schema_for_editors_knows_the_keys_of_the_shipped_files():
    schema = json.loads((ROOT / "docs/mapping.schema.json").read_text())
    assert {"provider", "secret", "visitor", "goals", "tests"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
