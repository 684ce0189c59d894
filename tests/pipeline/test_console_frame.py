"""The console's door: who comes in, what a form must carry, when a session ends, and what every answer says."""

from __future__ import annotations

import re

import pytest
from cases_kit import one_in
from composed import Composed
from console_kit import TOKEN, Visit
from werkzeug.test import create_environ

from bridge.model import OutcomeKind
from bridge.server import DEFERRED
from bridge.store import schema
from bridge.web.console.rendering import dated, tone

PAGES = ("/console/", "/console/activity", "/console/events/ev_1", "/console/nothing")


@pytest.mark.parametrize("token", ["", "fifteen-letters"])
def test_it_is_off_until_there_is_a_long_token(console_url, clock, token):
    with Composed(console_url, clock, BRIDGE_ADMIN_TOKEN=token) as console:
        for path in ("/", *PAGES, "/console/sign-in", "/console/static/x/console.css"):
            answer = console.client.get(path)
            assert answer.status_code == 404
            assert "Set BRIDGE_ADMIN_TOKEN to a token of at least 16 characters" in answer.text
        for method in ("POST", "PUT", "OPTIONS"):
            assert console.client.open("/console/sign-in", method=method).status_code == 404


def test_the_root_leads_there(still_console):
    assert still_console.client.get("/").location == "/console/"


@pytest.mark.parametrize("path", PAGES)
def test_without_a_session_there_is_only_the_way_to_sign_in(still_console, path):
    answer = still_console.client.get(f"{path}?a=b")
    assert (answer.status_code, answer.location) == (303, f"/console/sign-in?next={path}?a%3Db")
    refused = still_console.client.post(path, data={"csrf_token": "x"})
    assert refused.status_code in (401, 405)
    assert still_console.client.get(path, headers={"HX-Request": "true"}).headers["HX-Redirect"] == "/console/sign-in"


def test_whoever_asks_for_the_head_of_a_page_is_sent_there_too(still_console):
    answer = still_console.client.head("/console/activity")
    assert (answer.status_code, answer.location) == (303, "/console/sign-in?next=/console/activity")


@pytest.mark.parametrize("number", one_in(3, ["9" * 5_000, "9" * 19, "-1", "1e3", "\u0663", "%00", ""]))
@pytest.mark.parametrize("path", ["home/live?after=", "changes?before=", "people/forget?person=x&after="])
def test_no_number_in_an_address_is_an_error_of_ours(looker, path, number):
    assert looker.get(f"/console/{path}{number}").status_code in (200, 400)


@pytest.mark.parametrize(
    "name", one_in(2, ["%00", "ev_%00", "ev_0", f"ev_{'9' * 20}", "a%2Fb", "%ED%A0%80", "%E2%80%AE"])
)
@pytest.mark.parametrize("kind", ["events", "goals", "people", "sources"])
def test_what_no_id_can_be_is_nowhere(looker, kind, name):
    assert looker.get(f"/console/{kind}/{name}").status_code == 404


def test_signing_in_leads_to_the_page_that_was_wanted(console):
    visit = Visit(console, signed_in=False)
    answer = visit.sign_in(next="/console/activity?kind=goals")
    assert answer.location == "/console/sign-in?kept=1&next=/console/activity?kind%3Dgoals"
    assert visit.get(answer.location).location == "/console/activity?kind=goals"
    assert visit.get("/console/").status_code == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "/console/../../x\n",
        "/\\evil.example",
        "/console/\\x",
        "/webhooks/stripe",
        "",
        "/console/sign-out",
    ],
)
def test_signing_in_never_leads_elsewhere(still_console, elsewhere):
    visit = Visit(still_console, signed_in=False)
    visit.sign_in(next=elsewhere)
    assert visit.get(f"/console/sign-in?next={elsewhere}".replace("\n", "%0A")).location == "/console/"


def test_the_cookie_is_kept_from_scripts_and_other_sites(console):
    for host, secure in (
        ("localhost:8000", False),
        ("127.0.0.1", False),
        ("[::1]:80", False),
        ("bridge.example", True),
        ("127.0.0.1.evil.example", True),
    ):
        visit = Visit(console, signed_in=False, host=host)
        (cookie,) = [one for one in visit.sign_in().headers.getlist("Set-Cookie") if one.startswith("bridge_session=")]
        assert ("Secure" in cookie) == secure
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/console"))
        assert not re.search("Expires|Max-Age|Domain", cookie)


def test_a_proxys_header_decides_nothing(console):
    visit = Visit(console, signed_in=False, host="localhost")
    answer = visit.sign_in(headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "bridge.example"})
    assert "Secure" not in " ".join(answer.headers.getlist("Set-Cookie"))


def test_a_wrong_token_opens_nothing_and_is_counted(console):
    visit = Visit(console, signed_in=False)
    for token in ("wrong", TOKEN[:-1], TOKEN + "x", "", "\u202e" * 20):
        answer = visit.sign_in(token)
        assert answer.status_code == 401
        assert "not the admin token" in answer.text
        assert "bridge_session" not in " ".join(answer.headers.getlist("Set-Cookie"))
    fields = {"token": "wrong", "csrf_token": visit.form_token()}
    for _ in range(30):  # at once: a try is forgiven a second later
        last = visit.post("/console/sign-in", **fields)
    assert last.status_code == 429
    assert visit.sign_in().status_code == 303  # who knows it never waits for those who guess


def test_the_answer_to_a_wrong_token_waits_in_the_server_and_in_no_thread(console):
    visit = Visit(console, signed_in=False)
    fields = {"token": "wrong", "csrf_token": visit.form_token()}
    cookie = visit.client.get_cookie("bridge_sign_in", path="/console")
    waits = []
    for _ in range(8):
        headers = {"Cookie": f"{cookie.key}={cookie.value}"}
        environ = create_environ("/console/sign-in", method="POST", data=fields, headers=headers)
        environ[DEFERRED] = None  # as the bridge's own server says that it can delay an answer
        started = []
        visit.client.application(environ, lambda status, _headers, started=started: started.append(status))
        deferred = environ[DEFERRED]
        waits.append(None if deferred is None else deferred.within_s)
        assert started == ([] if deferred else ["401 UNAUTHORIZED"])
    assert waits[:5] == [None] * 5
    assert all(seconds > 0 for seconds in waits[5:])


def test_a_form_of_another_browser_signs_nobody_in(console):
    victim, attacker = Visit(console, signed_in=False), Visit(console, signed_in=False)
    attacker.get("/console/sign-in")
    victim.get("/console/sign-in")
    assert victim.post("/console/sign-in", token=TOKEN, csrf_token=attacker.form_token()).status_code == 403
    assert victim.post("/console/sign-in", token=TOKEN, csrf_token="").status_code == 403
    assert (
        Visit(console, signed_in=False)
        .post("/console/sign-in", token=TOKEN, csrf_token=victim.form_token())
        .status_code
        == 403
    )


def test_a_change_needs_the_token_of_its_own_session(console, visit):
    other = Visit(console)
    for token in ("", "x", other.csrf(), "\ud7ff", visit.csrf()[:-1]):
        answer = visit.post("/console/sign-out", csrf_token=token)
        assert (answer.status_code, "does not belong to your session" in answer.text) == (403, True)
        assert '<a class="button" href="/console/">Home</a>' in answer.text
    assert visit.get("/console/").status_code == 200
    assert visit.get(f"/console/sign-out?csrf_token={visit.csrf()}").status_code == 404
    assert visit.get("/console/").status_code == 200


def test_a_session_ends_with_sign_out_whoever_kept_the_cookie(console, visit):
    thief = Visit(console, signed_in=False)
    thief.client.set_cookie("bridge_session", visit.cookie(), path="/console")
    assert thief.get("/console/").status_code == 200
    assert visit.post("/console/sign-out", csrf_token=visit.csrf()).location == "/console/sign-in"
    assert thief.get("/console/").status_code == 303


def test_a_session_ends_with_the_token_and_is_good_in_every_process(console_url, clock, console, visit):
    with Composed(console_url, clock, BRIDGE_ADMIN_TOKEN=TOKEN) as other:
        there = Visit(other, signed_in=False)
        there.client.set_cookie("bridge_session", visit.cookie(), path="/console")
        assert there.get("/console/").status_code == 200
        assert there.post("/console/sign-out", csrf_token="x").status_code == 403
        assert there.csrf() == visit.csrf()
    with Composed(console_url, clock, BRIDGE_ADMIN_TOKEN=TOKEN + "-another") as other:
        there = Visit(other, signed_in=False)
        there.client.set_cookie("bridge_session", visit.cookie(), path="/console")
        assert there.get("/console/").status_code == 303


def test_a_session_ends_after_a_week_without_a_visit_and_after_thirty_days(console, visit, clock):
    day = 86_400_000
    for _ in range(4):
        clock.advance(6 * day)
        assert visit.get("/console/").status_code == 200
    clock.advance(5 * day)
    assert visit.get("/console/").status_code == 200
    clock.advance(1.5 * day)
    assert visit.get("/console/").status_code == 303
    visit = Visit(console)
    clock.advance(8 * day)
    assert visit.get("/console/").status_code == 303


def test_neither_the_cookie_nor_the_token_is_in_the_database(console, visit):
    with console.bridge.store.read() as conn:
        rows = conn.execute(schema.sessions.select()).all()
    assert len(rows) == 1
    assert not any(secret in str(value) for value in rows[0] for secret in (TOKEN, visit.cookie(), visit.csrf()))


def test_a_browser_that_drops_the_cookie_is_told_why(still_console):
    answer = Visit(still_console, signed_in=False).get("/console/sign-in?kept=1")
    assert answer.status_code == 400
    assert "did not keep the session&#39;s cookie" in answer.text


def test_a_link_in_a_message_works_though_the_cookie_is_kept_back(console, visit):
    answer = console.client.get("/console/activity?q=1", headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.headers["Refresh"]) == (200, "0")


@pytest.mark.parametrize("path", ["/console/", "/console/sign-in", "/console/nothing"])
def test_every_answer_forbids_what_no_page_needs(looker, path):
    answer = looker.get(path, headers={"Accept-Encoding": "gzip"})
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"


def test_an_address_without_a_page_is_a_page(looker):
    answer = looker.get("/console/nothing")
    assert (answer.status_code, "No page of the console has this address" in answer.text) == (404, True)


def test_a_form_that_is_too_large_is_a_page(looker):
    answer = looker.change("/console/rules/try", text="x" * 2_000_000)
    assert (answer.status_code, "<h1>This is too large</h1>" in answer.text) == (413, True)


def test_an_error_of_our_own_is_a_page_that_quotes_nothing(console, visit, capfd):
    def broken():
        raise ValueError("the-body-of-somebody")

    console.client.application.view_functions["console.people"] = broken
    answer = visit.get("/console/people")
    told = capfd.readouterr()
    assert (answer.status_code, "Something went wrong" in answer.text) == (503, True)
    assert "the-body-of-somebody" not in answer.text + told.out + told.err
    assert "request.failed" in told.out + told.err


def test_files_are_named_by_their_content_and_checked_by_browsers(looker):
    page = looker.get("/console/").text
    found = re.findall(r'(?:src|href)="(/console/static/[^"]+)"(?: integrity="([^"]+)")?', page)
    assert len({path for path, _ in found}) == 4
    packed = 0
    for path, integrity in found:
        answer = looker.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert integrity.startswith("sha384-") or path.endswith(".svg")
        packed += len(answer.data)
    assert packed + len(page) < 40_000
    assert looker.get("/console/static/0123456789abcdef/console.css").status_code == 404
    assert looker.get("/console/static/0123456789abcdef/session.py").status_code == 404


def test_no_template_takes_megabytes_to_be_compiled(console):
    """Python's compiler needs 80 bytes for each character that Jinja writes, and the process keeps them."""
    jinja = console.client.application.jinja_env
    for name in jinja.list_templates():
        written = jinja.compile(jinja.loader.get_source(jinja, name)[0], name, raw=True)
        assert len(written) <= 20_000, f"{name} is too long: move a part of it to a fragment"


@pytest.mark.parametrize("address", ["/console/", "/console/activity", "/console/sources", "/console/nothing"])
def test_a_notice_is_told_once_also_by_a_page_that_reads_while_it_is_made(console, visit, address):
    with console.bridge.store.write() as conn:
        conn.execute(schema.sessions.update().values(notice="4 goals are sent again."))
    assert visit.get(address).text.count("4 goals are sent again.") == 1
    assert "4 goals are sent again." not in visit.get(address).text


@pytest.mark.parametrize("kind", OutcomeKind)
def test_every_outcome_of_a_delivery_has_a_colour(kind):
    assert tone(kind.value) != "mute"


def test_a_time_in_a_sentence_is_a_time_of_the_page():
    said = "delivered 2026-11-29 04:52:25 UTC, then 2026-99-29 04:52:25 UTC <b>"
    first, moment, rest = dated(said)
    assert (first, moment) == (("delivered ", None), ("2026-11-29 04:52:25 UTC", 1_795_927_945_000))
    assert rest == (", then 2026-99-29 04:52:25 UTC <b>", None)
