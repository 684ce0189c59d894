"""The scripts of docs/recipes hand the visitor over, and hand nothing over where there is none."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import psycopg
import pytest
from docs_kit import ROOT, blocks
from sources_kit import request

from bridge import rules, sources

VISITOR = "00000000-0000-4000-8000-000000000001"
SCRIPTS = blocks("js", "jsx", pages=sorted((ROOT / "docs/recipes").glob("*.md")))
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"


PAGES = sorted((ROOT / "docs/recipes").glob("*.md"))
AROUND = """
create schema auth;
create table auth.users (id uuid, email text, raw_user_meta_data jsonb);
create table public.profiles (id uuid, email text);
"""
SIGN_UP = f"""
create trigger made after insert on auth.users for each row execute function public.handle_new_user();
insert into auth.users values ('{VISITOR}', 'a@example.com', '{{"datafast_visitor_id": "{VISITOR}"}}');
insert into auth.users values (null, null, '{{}}');
"""


def test_the_trigger_of_supabase_copies_the_visitor(postgres_url):
    (block,) = blocks("sql", pages=PAGES)
    with psycopg.connect(postgres_url.replace("+psycopg", "", 1)) as conn:
        for statements in (AROUND, block.text, SIGN_UP):
            conn.execute(statements)
        rows = conn.execute("select datafast_visitor_id from public.profiles order by email").fetchall()
    assert rows == [(VISITOR,), (None,)]


def test_the_code_for_php_is_whole():
    (block,) = blocks("php", pages=PAGES)
    if shutil.which("php") is not None:
        done = subprocess.run(["php", "-l"], input=f"<?php\n{block.text}", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    bare = re.sub(r"'(?:[^'\\\\]|\\\\.)*'", "s", block.text)
    assert not {"'", '"'} & set(bare), "a string that does not end"
    brackets = re.sub(r"[^()\[\]{}]", "", bare)
    while (peeled := re.sub(r"\(\)|\[\]|\{\}", "", brackets)) != brackets:
        brackets = peeled
    assert brackets == ""
    ends = [line.strip()[-1] for line in bare.splitlines() if line.strip()]
    assert set(ends) <= set(";{}"), "a statement that does not end"


@pytest.fixture(scope="module")
def told():
    """What each script told the tools, with a cookie and without."""
    given = {"codes": [block.text for block in SCRIPTS], "visitors": [VISITOR, ""]}
    if shutil.which("node") is None:  # then at least the text is what it should be
        return {str(block): (block.text.replace("datafast_visitor_id", VISITOR), "") for block in SCRIPTS}
    done = subprocess.run(
        ["node", ROOT / "tests/docs/stand_in.mjs"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    return {str(block): (results[2 * n], results[2 * n + 1]) for n, block in enumerate(SCRIPTS)}


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_a_script_hands_the_visitor_over_once(block, told):
    handed, bare = told[str(block)]
    assert '["threw"' not in handed + bare
    assert VISITOR in handed
    assert "undefined" not in handed
    clicks = re.findall(r'\["click","([^"]*)"\]', handed)
    assert clicks[1:] == [click.replace(VISITOR, "somebody") for click in clicks[:1]], "a value that is there stays"


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_without_a_cookie_it_hands_over_nothing(block, told):
    _, bare = told[str(block)]
    assert re.findall(r"datafast_?visitor|dfv_|undefined|null", bare, re.IGNORECASE) == []


FOR_SERVERS = {"@clerk/nextjs", "@workos-inc/authkit-nextjs"}  # beside files of one's own and Next.js itself


@pytest.mark.parametrize("block", [one for one in SCRIPTS if "next/headers" in one.text], ids=str)
def test_what_the_server_renders_imports_no_library_that_runs_only_in_a_browser(block):
    imported = re.findall(r'^import .* from "([^"]+)"', block.text, re.MULTILINE)
    assert [one for one in imported if not one.startswith(("./", "next/")) and one not in FOR_SERVERS] == []


def test_a_recipe_for_a_browser_and_one_for_next_js_is_on_each_page_or_it_has_a_server_of_its_own():
    pages = {block.page.rpartition("/")[2] for block in SCRIPTS}
    recipes = {page.name for page in (ROOT / "docs/recipes").glob("*.md")} - {"README.md"}
    assert recipes - pages == {"woocommerce.md"}


@pytest.mark.parametrize("page", ["better-auth", "nextauth"])
def test_the_bridge_believes_what_our_sender_signs(page, told):
    if shutil.which("node") is None:
        return
    (sender,) = (block for block in SCRIPTS if block.page.endswith(f"/{page}.md") and "createHmac" in block.text)
    ((_, url, call),) = [each for each in json.loads(told[str(sender)][0]) if each[0] == "fetch"]
    assert url.endswith("/webhooks/generic")
    rule_set = rules.load({"generic.yaml": "extends: generic\n"}, {"GENERIC_WEBHOOK_SECRET": SECRET}, sources.presets())
    source = rule_set.sources["generic"]
    sent = request(call["body"].encode(), call["headers"])
    sources.verify(source, sent, int(call["headers"]["webhook-timestamp"]))
    assert sources.read(source, sent).envelope.type == "signup"
