"""Each page of docs/recipes, followed: its mapping is right, and its sample makes its goal for the visitor."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

import pytest
from docs_kit import ROOT, table
from running import environment, eventually
from sources_kit import secret_for

from bridge import rules, sources
from bridge.cli import main
from bridge.globs import compile_glob
from bridge.snippet import TOOLS
from bridge.workbench.setting_up import setup

VISITOR = "00000000-0000-4000-8000-000000000001"
USER = "user_29w83sxmDNGwOuEthce5gg56FcC"  # of the sample of Clerk
FOLDER = ROOT / "docs/recipes"
PARTS = ["Hand over the visitor", "Mapping", "Events to select", "Try it", "What does not work"]


@dataclass(frozen=True)
class Recipe:
    """What a page says: the mapping file, the command, and the goal that must come of it."""

    page: str
    text: str
    source: str
    layer: str
    words: list[str]
    goal: str

    def part(self, heading: str) -> str:
        return self.text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def read(path):
    text = path.read_text("utf-8")
    command = re.search(r"^\$ python -m bridge (simulate .*)$", text, re.MULTILINE)[1]
    layer = re.search(r"`mappings/([\w-]+)\.yaml`.*?```yaml\n(.*?)```", text, re.DOTALL)
    goal = re.search(r"The sample makes the goal `(\w+)`\.", text)[1]
    return Recipe(path.stem, text, layer[1], layer[2], shlex.split(command), goal)


RECIPES = [read(path) for path in sorted(FOLDER.glob("*.md")) if path.name != "README.md"]
LAYERS = {f"{recipe.source}.yaml": recipe.layer for recipe in RECIPES}
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.page)


@pytest.fixture(scope="module")
def secrets():
    rule_set = rules.load(LAYERS, {}, sources.presets())
    assert (rule_set.suspicions, rule_set.problems) == ((), ())
    found = {name: secret_for(source.verify) for name, source in rule_set.sources.items()}
    return rule_set, {f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET": secret for name, secret in found.items()}


def test_there_are_at_least_twenty_and_the_list_names_each_with_the_goals_of_its_mapping():
    assert len(RECIPES) >= 20
    rows = [row for row in table((FOLDER / "README.md").read_text()) if row[0].startswith("[")]
    listed = {re.search(r"\(([\w-]+)\.md\)", row[0])[1]: re.findall(r"`(\w+)`", row[2]) for row in rows}
    assert listed == {recipe.page: re.findall(r"\w+", _used(recipe)) for recipe in RECIPES}


def _used(recipe):
    used = re.search(r"^use: \[(.*)\]$", recipe.layer, re.MULTILINE)
    return used[1] if used else recipe.goal


@each_recipe
def test_a_page_has_all_its_parts_and_a_mapping_of_few_lines(recipe):
    assert re.findall(r"^## (.+)$", recipe.text, re.MULTILINE) == PARTS
    assert len(recipe.layer.splitlines()) <= 6
    assert recipe.words[recipe.words.index("--source") + 1] == recipe.source
    assert (ROOT / recipe.words[recipe.words.index("--file") + 1]).is_file()


@each_recipe
def test_a_page_begins_with_the_snippet_if_it_knows_the_tool(recipe):
    line = f"`python -m bridge snippet --for {recipe.page}`"
    assert (line in recipe.part("Hand over the visitor")) is (recipe.page in TOOLS)


@each_recipe
def test_a_page_names_the_events_that_its_goals_need(recipe, secrets):
    rule_set, _ = secrets
    wanted = setup(rule_set, recipe.source, "https://example.com").goal_events
    told = recipe.part("Events to select")
    assert [event for event in wanted if event != "*" and f"`{event}`" not in told] == []


TELLING_WHOSE = [
    ("auth0", "user.updated"),
    ("calcom", "BOOKING_RESCHEDULED"),
    ("clerk", "user.updated"),
    ("supabase", "UPDATE"),
    ("workos", "user.updated"),
]


@pytest.mark.parametrize(("page", "event"), TELLING_WHOSE)
def test_sources_prints_the_events_that_a_page_selects_for_the_visitor_alone(page, event, secrets):
    rule_set, _ = secrets
    (recipe,) = (one for one in RECIPES if one.page == page)
    assert f"`{event}`" in recipe.part("Events to select")
    links = setup(rule_set, recipe.source, "https://example.com").link_events
    assert any(compile_glob(link).matches(event) for link in links)


@pytest.mark.long
@pytest.mark.timeout(600)  # a command per page, on a loaded machine
def test_the_samples_make_their_goals(machine, secrets, monkeypatch, capsys):
    rule_set, keys = secrets
    mappings = machine.folder / "own"
    mappings.mkdir()
    for name, layer in LAYERS.items():
        (mappings / name).write_text(layer)
    datafast = machine.datafast()
    database = f"sqlite:///{machine.folder / 'bridge.db'}"
    environ = environment(datafast, database, mappings, BRIDGE_WEAK_AFTER="1s", **keys)
    checked = machine.bridge("check", "--strict", environ=environ)
    assert checked.ended() == 0, checked.log
    web = machine.web(environ)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    for recipe in RECIPES:
        assert main([*recipe.words, "--to", web.url]) == 0, (recipe.page, capsys.readouterr())
    # a later sale that names the user of Clerk's sign-up, and no visitor
    later = {
        "id": "evt_2",
        "data.object.id": "cs_live_2",
        "data.object.customer": "cus_2",
        "data.object.subscription": "sub_2",
    }
    changes = [f"--set={path}={value}" for path, value in {**later, "data.object.client_reference_id": USER}.items()]
    (stripe,) = (recipe for recipe in RECIPES if recipe.page == "stripe")
    assert main([*stripe.words, *changes, "--to", web.url]) == 0
    expected = sorted([*((recipe.goal, VISITOR) for recipe in RECIPES), ("purchase", VISITOR)])
    eventually(lambda: len(datafast.goals()) >= len(expected), what="all goals")
    assert sorted(datafast.seen()) == expected
    assert len(rule_set.sources) >= 20
