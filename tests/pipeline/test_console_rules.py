"""Rules and *try* over HTTP: what is in force, what an edit would make, and saving it, on both databases."""

from __future__ import annotations

import html
import re
import subprocess
import time

import pytest
from composed import Composed
from console_kit import TOKEN, Visit

from bridge.sandbox.scenarios import Step
from bridge.store import schema

VISITOR = "00000000-0000-4000-8000-00000000000a"
PATIENCE_S = 60
RULES = """\
provider: stripe
goals:
  - goal: bought
    event: checkout.session.completed
    when:
      data.object.payment_status: paid
    metadata: [amount, currency]
  - {goal: large, event: checkout.session.completed, when: {data.object.amount_total: {gt: 1000000}}, enabled: dry}
  - {goal: gone, event: customer.deleted, enabled: false}
tests:
  - name: a sale
    event:
      type: checkout.session.completed
      data: {object: {object: checkout.session, id: cs_1, payment_status: paid, amount_total: 4900, currency: usd}}
    goals: [{goal: bought}]
"""
BROKEN = RULES.replace("metadata:", "metadatta:")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mappings"
    made.mkdir()
    (made / "stripe.yaml").write_text(RULES)
    return made


@pytest.fixture
def console(console_url, clock, folder):
    with Composed(console_url, clock, folder, BRIDGE_ADMIN_TOKEN=TOKEN) as made:
        yield made


def paid(number, status="paid"):
    thing = {
        "object": "checkout.session",
        "id": f"cs_{number}",
        "payment_status": status,
        "amount_total": 4900,
        "currency": "usd",
        "metadata": {"datafast_visitor_id": VISITOR},
    }
    return {"id": f"evt_{number}", "type": "checkout.session.completed", "livemode": True, "data": {"object": thing}}


def tell(console, *bodies):
    for body in bodies:
        at_s = console.clock.now_ms // 1000
        whole = {"object": "event", "created": at_s, **body}
        console.tell([Step(at_s, "stripe", "stripe", body["type"], body["id"], whole)])


def text_of(page):
    """What stands in the editor, as a browser reads it."""
    found = re.search(r"<textarea[^>]*>\n?(.*?)</textarea>", page.text, re.DOTALL)
    return html.unescape(found[1])


def form(page, **changes):
    """The fields that a browser would send, with what a person changed."""
    fields = {
        name: html.unescape(value)
        for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)
    }
    sent = {**fields, "text": text_of(page), **changes}
    return {**sent, "text": sent["text"].replace("\n", "\r\n")}


def send(visit, page, action="check", path="/console/rules/try", headers=None, **changes):
    fields = {**form(page, **changes), "action": action}
    # The client of the tests leaves a file open for what is large and has several parts.
    form_type = "multipart/form-data" if len(fields["text"]) < 400_000 else "application/x-www-form-urlencoded"
    return visit.client.post(path, data=fields, base_url="http://localhost", headers=headers, content_type=form_type)


def plain(page):
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", page.text)).split())


# ----------------------------------------------------------------------------------------------------------- rules


def test_every_rule_is_told_with_its_conditions_and_its_last_goal(console, visit):
    tell(console, paid(1), paid(2))
    page = visit.get("/console/rules")
    told = plain(page)
    assert "data.object.payment_status is paid" in told
    assert "data.object.amount_total is more than 1000000" in told
    assert "dry: kept, not sent" in told
    assert "1 rule is switched off" in told
    row = next(row for row in page.text.split("<tr>") if "<bdi>bought</bdi>" in row)
    assert "/console/events/ev_2" in row
    assert re.search(r'data-label="In 30 days" class="number">2<', row)
    console.clock.advance(31 * 86_400_000)
    seen, until = None, time.monotonic() + PATIENCE_S
    while seen is None and time.monotonic() < until:  # what took long is counted again in the background
        later = Visit(console).get("/console/rules")
        row = next(row for row in later.text.split("<tr>") if "<bdi>bought</bdi>" in row)
        seen = re.search(r'/console/events/ev_2.*data-label="In 30 days" class="number">0<', row, re.DOTALL)
    assert seen


def test_in_a_layer_it_says_whose_a_rule_is(console, visit, folder):
    (folder / "stripe.yaml").write_text(
        "extends: stripe\nuse: [purchase, refund]\ngoals:\n  - {id: refund, when: {data.object.currency: usd}}\n"
        "  - {goal: big, like: purchase}\n"
    )
    take(console)
    page = visit.get("/console/rules")
    rows = [row for row in page.text.split("<tr>") if "data-label" in row]
    tags = {re.search(r"<bdi>([\w-]+)<", row)[1]: re.findall(r'class="tag">(\w+)<', row) for row in rows}
    tags = {name: tags[name] for name in ("purchase", "refund", "big")}
    assert tags == {"purchase": ["shipped"], "refund": ["override"], "big": ["added"]}


def take(console):
    console.bridge.poll_rules()
    console.bridge.poll_rules()


def test_a_refused_edit_is_told_with_its_place_and_a_way_to_correct_it(console, visit, folder):
    (folder / "stripe.yaml").write_text(BROKEN)
    take(console)
    page = visit.get("/console/rules")
    assert 'mappings/stripe.yaml:7:5: unknown key "metadatta"' in plain(page)
    assert 'href="/console/rules/try?file=stripe.yaml">Fix stripe.yaml' in page.text


def test_coverage_is_a_page_and_a_part_of_one(console, visit):
    tell(console, paid(1), {**paid(2), "type": "price.created"})
    whole = visit.get("/console/rules/coverage")
    part = visit.get("/console/rules/coverage", headers={"HX-Request": "true"})
    assert "<html" in whole.text
    assert "<html" not in part.text
    for page in (whole, part):
        assert "2 events of 2 types in the last 30 days: no rule uses 1 type; 1 of 2 rules made no goal." in plain(page)
        assert "price.created" in page.text
        assert "data.object.amount_total is 4900, expected gt 1000000" in plain(page)


def test_coverage_is_that_of_the_rules_in_force(console, visit, folder):
    assert "of 2 rules" in plain(visit.get("/console/rules/coverage"))
    (folder / "stripe.yaml").write_text(RULES.replace("enabled: false", "enabled: true"))
    take(console)
    assert "of 3 rules" in plain(visit.get("/console/rules/coverage"))


# ------------------------------------------------------------------------------------------------------------- try


def test_errors_are_marked_at_their_line_with_the_sentences_of_check(visit):
    page = visit.get("/console/rules/try?file=stripe.yaml")
    assert text_of(page) == RULES
    page = send(visit, page, text=BROKEN)
    assert page.status_code == 200
    assert '<span id="line-7" class="bad">✕ 7</span>' in page.text
    assert 'Line 7 unknown key "metadatta"' in plain(page)
    assert text_of(page) == BROKEN


def test_a_test_that_fails_and_what_is_hardly_meant_are_marked(visit):
    text = RULES.replace("[{goal: bought}]", "[{goal: large}]").replace(
        "[amount, currency]", "{amount: data.object.id}"
    )
    page = send(visit, visit.get("/console/rules/try?file=stripe.yaml"), text=text)
    assert "Line 11 test 'a sale': expected" in plain(page)
    assert re.search(r'class="wait">! 7<', page.text)


def test_an_event_is_tried_by_the_text_and_nothing_is_stored_or_sent(console, visit):
    tell(console, paid(1, "unpaid"))
    before = console.rows(schema.events), console.goals(), console.sent()
    page = visit.get("/console/rules/try?file=stripe.yaml&event=ev_1")
    assert "No goal: no rule matches. The nearest is bought: data.object.payment_status is unpaid" in plain(page)
    page = send(visit, page, text=RULES.replace("payment_status: paid", "payment_status: [paid, unpaid]"))
    told = plain(page)
    assert "1 goal: bought." in told
    assert f"What would be sent Visitor {VISITOR}" in told
    assert "amount 49.00 currency USD" in told
    assert (console.rows(schema.events), console.goals(), console.sent()) == before


def test_the_last_events_are_compared_in_a_request_of_its_own(console, visit):
    tell(console, paid(1), paid(2, "unpaid"))
    text = RULES.replace("payment_status: paid", "payment_status: unpaid")
    page = send(visit, visit.get("/console/rules/try?file=stripe.yaml"), text=text)
    assert 'hx-post="/console/rules/try/backtest"' in page.text
    assert "Goals:" not in plain(page)
    part = send(visit, page, path="/console/rules/try/backtest", headers={"HX-Request": "true"})
    whole = send(visit, page, path="/console/rules/try/backtest")
    assert "<html" not in part.text
    for answer in (part, whole):
        told = plain(answer)
        assert "Goals: 1 lost and 1 gained; 0 the same." in told
        assert "ev_1 checkout.session.completed: data.object.payment_status is paid, expected unpaid" in told
        assert "ev_2 checkout.session.completed: data.object.payment_status is unpaid, expected paid" in told


def test_a_new_rule_is_made_from_an_event_and_matches_it(console, visit):
    tell(console, paid(1, "unpaid"), {**paid(2), "type": "price.created"})
    for event, lines in (
        ("ev_1", ["data.object.payment_status: unpaid", "metadata: [amount, currency]"]),
        ("ev_2", ["event: price.created", "goal: price_created"]),
    ):
        page = visit.get(f"/console/rules/try?event={event}&new=1")
        text = text_of(page)
        assert all(line in text for line in [*lines, "visitor: data.object.metadata.datafast_visitor_id"])
        assert text.endswith(RULES[RULES.index("  - goal: bought") :])
        assert "This is a draft. Press Check to see what it would make." in plain(page)
        page = send(visit, page)
        assert re.search(r"1 goal: (checkout_session_completed|price_created)\.", plain(page))
        assert "No problems" in plain(page)


def test_paths_that_no_event_has_are_told_and_addresses_are_masked(console, visit):
    body = paid(1)
    body["data"]["object"] |= {"customer_email": "ada.lovelace@example.com", "client_secret": "sesame_8F3kd03K2xQ"}
    tell(console, body)
    paths = {"who": "customer_email", "what": "client_secret", "plan": "metadta.plan"}
    metadata = "{" + ", ".join(f"{key}: '{{data.object.{path}}}'" for key, path in paths.items()) + "}"
    text = RULES.replace("[amount, currency]", metadata)
    page = send(visit, visit.get("/console/rules/try?file=stripe.yaml&event=ev_1"), text=text)
    part = send(visit, page, path="/console/rules/try/backtest", headers={"HX-Request": "true"})
    assert "Paths that no event has mappings/stripe.yaml:7:" in plain(part)
    assert "data.object.metadta.plan was never seen in 1 event of checkout.session.completed" in plain(part)
    for told in (plain(page), plain(part)):
        assert "a…@…" in told
        assert "lovelace" not in told
        assert "sesame" not in told


def test_a_layer_is_begun_and_does_not_replace_a_file(visit):
    page = visit.get("/console/rules/try?layer=tally")
    assert text_of(page).startswith("extends: tally")
    assert "extends tally" in plain(send(visit, page))
    assert "already exists" in plain(visit.get("/console/rules/try?layer=stripe"))


@pytest.mark.parametrize("event", ["ev_99", "nonsense", "ev_999999999999999999", "<script>", "\u202e"])
def test_an_event_that_is_not_there_is_said(visit, event):
    page = visit.get("/console/rules/try", query_string={"file": "stripe.yaml", "event": event})
    assert (page.status_code, "No event with this number is stored" in page.text) == (200, True)
    assert "<script>" not in page.text


# ------------------------------------------------------------------------------------------------- taking it along


def test_the_patch_is_one_that_git_applies(visit, folder):
    page = visit.get("/console/rules/try?file=stripe.yaml")
    answer = send(visit, page, "patch", text=RULES.replace("bought", "sold"))
    assert answer.headers["Content-Disposition"] == 'attachment; filename="stripe.yaml.patch"'
    subprocess.run(["git", "init", "-q", folder.parent], check=True)
    subprocess.run(["git", "apply", "-"], cwd=folder.parent, input=answer.data, check=True)
    assert (folder / "stripe.yaml").read_text() == RULES.replace("bought", "sold")
    assert "there is no patch" in plain(send(visit, visit.get("/console/rules/try?file=stripe.yaml"), "patch"))


def test_a_saved_file_is_in_force_when_the_page_says_so(console, visit, folder):
    tell(console, paid(1, "unpaid"))
    page = visit.get("/console/rules/try?file=stripe.yaml&event=ev_1")
    answer = send(visit, page, "save", text=RULES.replace("status: paid\n", "status: [paid, unpaid]\n"))
    assert (answer.status_code, answer.location) == (303, "/console/rules/try?file=stripe.yaml&event=ev_1")
    assert "[paid, unpaid]" in (folder / "stripe.yaml").read_text()
    assert console.bridge.rules.files["stripe.yaml"] == (folder / "stripe.yaml").read_text()
    page = visit.get(answer.location)
    assert "stripe.yaml is saved, and its rules are in force." in plain(page)
    assert "1 goal: bought." in plain(page)
    assert "Open the event to replay it" in plain(page)
    assert "stripe.yaml is saved, and its rules are in force." in plain(visit.get("/console/changes"))


def test_a_new_file_is_saved(visit, folder, console):
    answer = send(visit, visit.get("/console/rules/try?layer=tally"), "save")
    assert answer.status_code == 303
    assert (folder / "tally.yaml").read_text().startswith("extends: tally")
    assert "tally" in console.bridge.rules.sources


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BROKEN, 'stripe.yaml is not saved, because it has a problem: line 7: unknown key "metadatta"'),
        (RULES.replace("[{goal: bought}]", "[{goal: large}]"), "it has a problem: line 11: test 'a sale': expected"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                ("\ta: b", "indented by a tab"),
                ("", "the file is empty"),
                ("a: &a [x]\nb: [*a, *a]\n", "anchors are not allowed"),
                ("a: \ufeffb", "the character U+FEFF is not allowed"),
                ("x" * 530_000, "530,000 bytes, at most 524,288 are allowed"),
            )
        ),
        ("provider: stripe\nsecret: whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=\ngoals: []\n", "holds a secret itself (line 2)"),
    ],
)
def test_what_is_wrong_is_not_saved(console, visit, folder, text, sentence):
    page = send(visit, visit.get("/console/rules/try?file=stripe.yaml"), "save", text=text)
    assert page.status_code == 400
    assert sentence in plain(page)
    assert (folder / "stripe.yaml").read_text() == RULES
    assert "Nothing has been changed yet" in plain(visit.get("/console/changes"))


def test_of_two_people_the_second_sees_both_texts(visit, folder):
    first = visit.get("/console/rules/try?file=stripe.yaml")
    second = visit.get("/console/rules/try?file=stripe.yaml")
    assert send(visit, first, "save", text=f"# first\n{RULES}").status_code == 303
    second = send(visit, second, text=f"# second\n{RULES}")  # a check in between forgets nothing
    page = send(visit, second, "save")
    assert page.status_code == 409
    assert "stripe.yaml has changed on disk since you opened it, so nothing was saved" in plain(page)
    assert "On the disk now # first" in plain(page)
    assert text_of(page) == f"# second\n{RULES}"
    assert (folder / "stripe.yaml").read_text() == f"# first\n{RULES}"
    assert send(visit, page, "save").status_code == 303  # having seen both
    assert (folder / "stripe.yaml").read_text() == f"# second\n{RULES}"


def test_nothing_is_saved_without_the_token_of_the_session(visit, folder):
    page = visit.get("/console/rules/try?file=stripe.yaml")
    for token in ("", "0" * 64):
        answer = send(visit, page, "save", text="# x\n" + RULES, csrf_token=token)
        assert answer.status_code == 403
    assert (folder / "stripe.yaml").read_text() == RULES


@pytest.mark.parametrize(
    "name",
    [
        "../stripe.yaml",
        "x.txt",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("/etc/x.yaml", "a/b.yaml", ".x.yaml", "<script>.yaml")),
    ],
)
def test_no_name_leads_out_of_the_folder(visit, name, folder):
    answer = visit.get("/console/rules/try", query_string={"file": name})
    assert (answer.status_code, "<script>.yaml" in answer.text) == (400, False)
    page = visit.get("/console/rules/try?file=stripe.yaml")
    for action in ("save", "patch", "check"):
        assert send(visit, page, action, file=name).status_code == 400
    assert [path.name for path in folder.parent.rglob("*.yaml")] == ["stripe.yaml"]


def test_a_file_that_holds_a_secret_is_not_shown(visit, folder):
    (folder / "shop.yaml").write_text("provider: custom\nsecret: sesame-open-up\ngoals: []\n")
    page = visit.get("/console/rules/try?file=shop.yaml")
    assert "shop.yaml holds a secret itself (line 2), which the console neither shows nor saves" in plain(page)
    assert "sesame" not in page.text
    assert "<textarea" not in page.text
    page = visit.get("/console/rules/try?file=stripe.yaml")
    part = send(visit, page, path="/console/rules/try/backtest", headers={"HX-Request": "true"}, file="shop.yaml")
    assert "shop.yaml holds a secret itself" in plain(part)
    assert "<html" not in part.text


def test_where_the_disk_does_not_last_there_is_no_save(console_url, clock, folder):
    environ = {"BRIDGE_ADMIN_TOKEN": TOKEN, "DYNO": "web.1", "BRIDGE_ALLOW_EPHEMERAL": "yes"}
    with Composed(console_url, clock, folder, **environ) as made:
        visit = Visit(made, host="localhost")
        page = visit.get("/console/rules/try?file=stripe.yaml")
        assert 'value="save"' not in page.text
        assert "On Heroku a saved file would be gone with the next deploy" in plain(page)
        assert send(visit, page, "save", text="# x\n" + RULES).status_code == 400
    assert (folder / "stripe.yaml").read_text() == RULES


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \x00\n", b"#" * 600_000])
def test_a_file_that_a_page_cannot_hold_is_one_sentence(visit, folder, content):
    (folder / "odd.yaml").write_bytes(content)
    page = visit.get("/console/rules/try?file=odd.yaml")
    assert (page.status_code, "<textarea" in page.text) == (400, False)
    assert "odd.yaml" in plain(page)


def test_line_ends_and_marks_of_a_file_outlive_a_save(visit, folder):
    data = b"\xef\xbb\xbf" + RULES.replace("\n", "\r\n").encode()
    (folder / "stripe.yaml").write_bytes(data)
    page = visit.get("/console/rules/try?file=stripe.yaml")
    assert send(visit, page, "save", text=RULES.replace("large", "huge")).status_code == 303
    assert (folder / "stripe.yaml").read_bytes() == data.replace(b"large", b"huge")


def test_hostile_text_is_shown_and_does_nothing(console, visit):
    text = RULES.replace("bought", '"</textarea><script>alert(1)</script>\u202e"')
    page = send(visit, visit.get("/console/rules/try?file=stripe.yaml"), text=text)
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert text_of(page) == text
    outside = re.sub(r"<textarea.*?</textarea>", "", page.text, flags=re.DOTALL)
    assert "\u202e" not in outside
