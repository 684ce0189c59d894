"""The sources of the console: what to enter where, and what came. They say what `sources`, `doctor` and `check` say."""

from __future__ import annotations

import html
import json
import re
import time

import pytest
import requests
from composed import Composed
from console_kit import TOKEN, Visit
from running import ROOT, SECRETS, STRIPE_SECRET, Machine, checkout

from bridge.cli import main
from bridge.sandbox import sign

NOTION = "provider: notion\ngoals: [{goal: page_made, event: page.created}]\n"
PLAIN = """\
provider: custom
verify: {type: hmac-sha256, signature: {in: "header:X-Signature"}}
secret: ["${PLAIN_NEW}", "${PLAIN_MORE}"]
goals: []
"""
SHORT = "fifteen-letters"
PUBLIC = "hooks.example.com"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mappings").mkdir()
    return tmp_path / "mappings"


@pytest.fixture
def compose(console_url, clock, folder):
    """A bridge with these mapping files, whose console is on."""
    made = []

    def start(files, **environ):
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        made.append(Composed(console_url, clock, folder, BRIDGE_ADMIN_TOKEN=TOKEN, **environ))
        return made[-1]

    yield start
    for one in made:
        one.__exit__()


@pytest.fixture
def shop(compose):
    return compose({"stripe": (ROOT / "mappings/stripe.yaml").read_text(), "notion": NOTION})


def look(visit, address, **more):
    answer = visit.get(address, **more)
    assert answer.status_code == 200, answer.text
    return answer.text


def words(page):
    """What a person reads of a page."""
    text = re.sub(r"<(script|style|title)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def url_of(visit, **more):
    return re.search(r'id="url"[^>]* value="([^"]*)"', look(visit, "/console/sources/stripe", **more))[1]


def send(shop, event, secret=STRIPE_SECRET):
    body = json.dumps(event).encode()
    shop.client.post("/webhooks/stripe", data=body, headers=sign.stripe(body, secret, int(time.time())))


def as_commands_see_it(shop, monkeypatch):
    for name, value in shop.environ.items():
        monkeypatch.setenv(name, value)


def test_the_list_says_of_each_source_how_it_is_and_how_much_came(shop):
    for number, secret in ((1, STRIPE_SECRET), (1, STRIPE_SECRET), (2, "whsec_wrong")):
        send(shop, checkout(number), secret)
    shop.bridge.counters.flush(shop.bridge.store)
    told = words(look(Visit(shop), "/console/sources"))
    assert re.search(r"stripe receives \S+ \S+ UTC up to 1 min 1 1 1", told), told
    assert "notion no secret: it answers 503 never not known yet 0 0 0" in told


def test_a_source_that_has_been_silent_for_long_is_said_to_be(shop):
    send(shop, checkout(1))
    shop.clock.advance(3_600_000)
    send(shop, checkout(2))
    shop.clock.advance(5 * 3_600_000)
    visit = Visit(shop)
    assert "stripe silent" in words(look(visit, "/console/sources"))
    page = words(look(visit, "/console/sources/stripe"))
    assert "no genuine event has arrived for 5 h, at least twice as long as ever before" in page
    assert "Usual gap up to 1 hour" in page


def test_the_url_is_that_of_the_page_as_it_was_reached(shop):
    here, there = Visit(shop), Visit(shop, host=PUBLIC)
    assert url_of(here) == "http://localhost/webhooks/stripe"
    assert "works on this machine only" in words(look(here, "/console/sources/stripe"))
    assert url_of(there) == f"https://{PUBLIC}/webhooks/stripe"
    assert "works on this machine only" not in words(look(there, "/console/sources/stripe"))
    forged = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "X-Forwarded-Proto": "http"}
    assert url_of(there, headers=forged) == f"https://{PUBLIC}/webhooks/stripe"


def test_a_host_that_is_none_makes_no_url(shop):
    odd = url_of(Visit(shop), environ_overrides={"HTTP_HOST": 'x"><script>alert(1)</script>'})
    assert odd == "https://YOUR-HOST/webhooks/stripe"


@pytest.mark.parametrize(
    ("domain", "url"),
    [
        ("shop-1234.herokuapp.com", "https://shop-1234.herokuapp.com/webhooks/stripe"),
        ("x\x1b<script>\udcff", f"https://{PUBLIC}/webhooks/stripe"),
    ],
)
def test_heroku_tells_the_address_itself(compose, domain, url):
    shop = compose({"stripe": "provider: stripe\ngoals: []\n"}, HEROKU_APP_DEFAULT_DOMAIN_NAME=domain)
    assert url_of(Visit(shop, host=PUBLIC)) == url


def test_what_is_code_is_shown_as_code(compose):
    text = look(Visit(compose({"tally": "extends: tally\n"})), "/console/sources/tally")
    assert "<code>datafast_visitor_id</code> as a hidden field" in text
    assert "the mapping file's <code>visitor:</code> looks for it" in html.unescape(text)


def test_the_events_are_those_that_the_command_names(shop, monkeypatch, capsys):
    as_commands_see_it(shop, monkeypatch)
    assert main(["sources", "stripe", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    shown = re.findall(r"<li><code>([^<]+)</code></li>", look(Visit(shop), "/console/sources/stripe"))
    assert shown == [*told["goal_events"], *told["link_events"]]
    assert told["link_events"]


def test_secrets_are_named_by_their_settings_and_never_shown(compose):
    given = {
        "STRIPE_WEBHOOK_SECRET_OLD": "whsec_the_old_one",
        "PLAIN_NEW": "the new one",
        "PLAIN_MORE": "undefined",
    }
    visit = Visit(compose({"stripe": "provider: stripe\ngoals: []\n", "plain": PLAIN}, **given))
    stripe, plain = (look(visit, f"/console/sources/{name}") for name in ("stripe", "plain"))
    assert "first STRIPE_WEBHOOK_SECRET set old STRIPE_WEBHOOK_SECRET_OLD set" in words(stripe)
    assert "2 secrets read" in words(stripe)
    told = words(plain)
    assert "first PLAIN_NEW set old PLAIN_NEW_OLD not set second PLAIN_MORE no secret" in told
    assert "PLAIN_MORE holds a word that stands for no value: put the secret itself there" in told
    for secret in (*SECRETS.values(), "whsec_the_old_one", "the new one"):
        assert secret not in stripe + plain, secret


def test_a_secret_that_is_missing_is_named(compose):
    visit = Visit(compose({"plain": PLAIN}))
    told = words(look(visit, "/console/sources/plain"))
    assert "first PLAIN_NEW missing old PLAIN_NEW_OLD not set second PLAIN_MORE missing" in told


def test_a_refusal_is_shown_with_what_doctor_says_of_it(shop, monkeypatch, capsys):
    shop.clock.set(int(time.time()) * 1000)  # the command's
    send(shop, checkout(2), "whsec_wrong")
    shop.bridge.counters.flush(shop.bridge.store)
    page = words(look(Visit(shop), "/console/sources/stripe"))
    as_commands_see_it(shop, monkeypatch)
    main(["doctor", "--json"])
    out = capsys.readouterr().out
    found = json.loads(out[out.index("{") :])["findings"]
    [sentence] = [one["sentence"] for one in found if one["about"] == "refused"]
    before, _, behind = sentence.removeprefix("A source refused requests. ").partition(", ")
    assert before == "Source stripe refused the last request"
    assert before in page
    assert behind.partition(" ago: ")[2] in page
    assert "is the secret the one that the provider's page shows" in page


def test_the_first_message_of_notion_is_on_no_page_and_the_command_that_shows_it_is_named(shop):
    answer = shop.client.post("/webhooks/notion", json={"verification_token": "secret_of_notion_not_to_be_told"})
    assert answer.status_code == 200
    shop.bridge.first_messages.flush(shop.bridge.store)
    visit = Visit(shop)
    page = look(visit, "/console/sources/notion")
    assert "not_to_be_told" not in page + look(visit, "/console/sources")
    assert "run python -m bridge sources notion on a terminal within the hour" in words(page)


def test_the_recipe_is_named_and_its_part_about_the_visitor_is_there(shop):
    visit = Visit(shop)
    page = words(look(visit, "/console/sources/stripe"))
    assert "docs/recipes/stripe.md" in page
    assert "A Payment Link takes the visitor id as `client_reference_id`" in page
    assert "python -m bridge snippet --for stripe" in page
    assert "docs/recipes" not in words(look(visit, "/console/sources/notion"))


def test_a_source_that_there_is_not_is_a_page_that_says_so(shop):
    answer = Visit(shop).get("/console/sources/paddle")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.text


@pytest.mark.long
def test_a_short_token_is_a_problem_of_check_and_doctor_but_not_of_the_start(
    machine: Machine, tmp_path, folder, command, monkeypatch
):
    monkeypatch.chdir(machine.folder)
    (folder / "stripe.yaml").write_text("provider: stripe\ngoals: []\n")
    given = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'bridge.db'}",
        "DATAFAST_API_KEY": "df_key",
        "DATAFAST_API_URL": "http://127.0.0.1:9/",
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
    }
    web = machine.web({**given, "BRIDGE_ADMIN_TOKEN": SHORT})
    closed = web.get("/console/")
    assert (closed.status_code, closed.text.count("\n")) == (404, 1)
    assert "Set BRIDGE_ADMIN_TOKEN to a token of at least 16 characters" in closed.text
    bearer = {"Authorization": f"Bearer {SHORT}"}
    assert "processes" in requests.get(f"{web.url}/status", headers=bearer, timeout=30).json()
    for name in ("check", "doctor"):
        code, told = command(name, **given, BRIDGE_ADMIN_TOKEN=SHORT)
        assert code == 1, told
        assert "BRIDGE_ADMIN_TOKEN has fewer than 16 characters, so the console is off" in " ".join(told.split())
        assert SHORT not in told
    web.stop()
    enough = {**given, "BRIDGE_ADMIN_TOKEN": SHORT + "!"}
    code, told = command("check", **enough)
    assert code == 0, told
    assert machine.web(enough, name="open").get("/console/").status_code == 303
