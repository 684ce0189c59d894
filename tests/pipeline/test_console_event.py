"""The page of one event: the twelve things that a person asks about it, and what can be done there."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import html
import json
import re
import time

import pytest
from composed import Composed
from console_kit import TOKEN, Visit
from running import ALICE, STRIPE_SECRET, checkout
from sqlalchemy import text as sql
from sqlalchemy import update

from bridge import cli
from bridge.sandbox import scenarios, sign
from bridge.store import schema
from bridge.store.operator import changes, forgetting
from bridge.store.upkeep import retention

DAY, START_S = 86_400_000, 1_790_000_000
SECTIONS = ("when", "signed", "rules", "visitor", "goals", "same", "thread", "actions", "body")
HOSTILE = "<script>alert(1)</script>\u202etxt.exe\x1b[2J"
CUSTOM = """provider: custom
secret: a-secret-for-batches
verify: {type: hmac-sha256, signature: {in: "header:X-Signature"}}
envelope: {type: kind, id: id}
each: items
visitor: [visitor]
goals:
  - {goal: bought, event: sale, metadata: {note: "{note}", email: "{email}"}}
  - {goal: big, event: sale, when: {amount: {gt: 100}, currency: EUR}}
"""


def happened(console, number=1, visitor=None, *, work=True, **fields):
    """A checkout at Stripe, told now; the number of its event."""
    return post(console, checkout(number, visitor, **fields) | {"created": console.clock.now_ms // 1000}, work=work)


def post(console, body, *, age_s=0, work=True):
    """Send bytes, or a document, as Stripe does; the number of the newest event."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed = sign.stripe(body, STRIPE_SECRET, int(time.time()) - age_s)
    assert console.client.post("/webhooks/stripe", data=body, headers=signed).status_code == 200
    if work:
        console.work()
    return max(row.id for row in console.rows(schema.events))


def page(visit, path, code=200):
    answer = visit.get(path if path.startswith("/") else f"/console/events/{path}")
    assert answer.status_code == code, answer.text
    return answer.text


def words(markup):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def section(text, name):
    """What one section says."""
    found = re.search(rf'<section[^>]*aria-labelledby="{name}">(.*?)</section>', text, re.DOTALL)
    return words(found[1])


def changed(console):
    with console.bridge.store.read() as conn:
        return [(one.what, one.about, one.sentence) for one in changes.recent(conn, 10)]


# ------------------------------------------------------------------------------------------------------ what it says


def test_all_that_is_known_in_the_order_in_which_it_is_asked(console):
    shape = scenarios.find("stripe-refund")[0].shapes[-1]
    steps = scenarios.build(f"stripe-refund@{shape}", seed=7, end_s=START_S + 150 * 86_400, spread=True)
    console.tell(steps)
    number, taught = (
        [step.type for step in steps].index(t) + 1 for t in ("charge.refunded", "checkout.session.completed")
    )
    text = page(Visit(console), f"ev_{number}")
    at = [text.index(f'aria-labelledby="{name}"') for name in SECTIONS]
    assert at == sorted(at)
    assert "Sent refund for visitor" in words(text)
    assert re.search(r"\d\d:\d\d:\d\d\.\d{3} UTC Answered with 200: delivered", section(text, "when"))
    assert "hmac-sha256, verified with its secret; its timestamp was" in section(text, "signed")
    assert "refund matched" in section(text, "rules")
    assert f'href="/console/events/ev_{taught}"' in text
    assert "12 days before" in section(text, "visitor")
    assert 'id="goal_2"' in text
    assert "amount 49.00 currency USD" in section(text, "goals")
    assert "sent: delivered (200)" in section(text, "goals")
    assert "It was delivered once." in section(text, "same")
    assert f"ev_{taught} checkout.session.completed" in section(text, "thread")
    for way in (
        f"rules/try?event=ev_{number}",
        f"rules/try?event=ev_{number}&amp;new=1",
        f"people/bind?event=ev_{number}",
    ):
        assert f'href="/console/{way}"' in text
    assert f'href="https://dashboard.stripe.com/events/{steps[number - 1].id}"' in text
    assert '"object": "charge"' in section(text, "body")
    assert "user-agent" in section(text, "body")
    assert STRIPE_SECRET not in text


def test_the_near_miss_comes_first_with_what_was_expected_and_what_is_there(console, visit):
    number = happened(console, payment_status="unpaid")
    rules = section(page(visit, f"ev_{number}"), "rules")
    assert re.search(r"purchase nearest no data\.object\.payment_status paid unpaid", rules)
    assert rules.index("purchase nearest") < rules.index("card_added")
    assert "19 others are for event types other than checkout.session.completed" in rules


def test_an_event_without_a_goal_needed_no_visitor_and_one_given_up_would_be_sent(console, visit):
    unpaid = happened(console, payment_status="unpaid", visitor=ALICE)
    assert "It made no goal, so no visitor was needed." in section(page(visit, f"ev_{unpaid}"), "visitor")
    number = happened(console, 2)
    goals = section(page(visit, f"ev_{number}"), "goals")
    assert "As it will be sent to DataFast" in goals
    assert "visitor not known yet" in goals
    assert visit.change("/console/goals/goal_1/cancel").status_code == 303
    goals = section(page(visit, f"ev_{number}"), "goals")
    assert "As it would be sent to DataFast" in goals
    assert "not known yet" not in goals


def test_it_says_what_why_says(console, visit, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in console.environ.items():
        monkeypatch.setenv(name, value)
    numbers = [happened(console, 1, ALICE), happened(console, 2), happened(console, 3, payment_status="unpaid")]
    numbers += [post(console, b"{broken"), post(console, b'{"object": "v2.core.event", "id": "evt_9", "type": "a.b"}')]
    for number in numbers:
        text = words(page(visit, f"ev_{number}"))
        capsys.readouterr()
        assert cli.main(["--json", "why", f"ev_{number}"]) == 0
        (detail,) = json.loads(capsys.readouterr().out)["events"]
        assert detail["line"]["type"] in text
        assert (detail["line"]["reason"] or "") in text
        for element in (detail["trace"] or {}).get("elements", ()):
            assert all(rule["actual"] in text for rule in element.get("rules", ()) if rule["result"] == "condition")
            assert all(key in text for key in element.get("keys", ()))
        assert cli.main(["why", f"ev_{number}"]) == 0
        (signed,) = re.findall(r"^ *Signature +(.+?)(?:; its timestamp.*)?$", capsys.readouterr().out, re.MULTILINE)
        assert signed == "hmac-sha256, verified with its secret"
        assert signed in text


def test_an_event_that_waits_is_shown_and_looked_at_again(console, visit):
    number = happened(console, work=False)
    text = page(visit, f"ev_{number}")
    assert "Has waited to be routed for" in words(text)
    assert "No rule has been tried yet." in section(text, "rules")
    assert "/replay" not in text
    assert 'hx-trigger="every 3s"' in text
    console.work()
    assert "Routed: a rule matched" in section(page(visit, f"ev_{number}"), "when")


def test_what_could_not_be_read_is_shown_as_text_and_can_be_set_aside(console, visit):
    number = post(console, b'{"type": "x", "mail": "ann@example.com"')
    text = page(visit, f"ev_{number}")
    assert "In quarantine: the body" in words(text)
    assert "It is shown as text" in section(text, "body")
    assert "a…@…" in section(text, "body")
    assert visit.change(f"/console/events/ev_{number}/ignore").status_code == 303
    assert f"ev_{number} is ignored now." in words(page(visit, f"ev_{number}"))
    assert visit.change(f"/console/events/ev_{number}/ignore").status_code == 303
    assert "is not in quarantine" in words(page(visit, f"ev_{number}"))
    assert changed(console) == [("ignore", f"ev_{number}", f"ev_{number} is ignored now.")]


@pytest.mark.parametrize("how", ["retention", "forget"])
def test_what_was_removed_is_said(console, how):
    number = happened(console, 1, ALICE)
    if how == "retention":
        console.clock.advance(60 * DAY)
        console.bridge.store.run(lambda conn: retention.forget_bodies(conn, 30, 10, console.clock.now_ms))
    else:
        with console.bridge.store.read() as conn:
            person = forgetting.find_person(conn, visitor=ALICE)
        console.bridge.store.run(lambda conn: forgetting.remove(conn, person))
    text = page(Visit(console), f"ev_{number}")
    said = "removed after BRIDGE_RETENTION_DAYS" if how == "retention" else "were forgotten"
    assert said in section(text, "rules")
    assert "The body is gone" in section(text, "body")
    assert "you cannot try rules on it" in section(text, "actions")
    assert (ALICE in text) == (how == "retention")
    page(Visit(console), f"ev_{number}/body", 404)


def test_several_events_of_one_delivery(console_url, clock, tmp_path):
    (tmp_path / "batch.yaml").write_text(CUSTOM)
    with Composed(console_url, clock, tmp_path, BRIDGE_ADMIN_TOKEN=TOKEN) as console:
        items = [
            {"kind": "sale", "id": "1", "visitor": ALICE, "note": "n" * 400, "amount": 5, "email": "ann@example.com"},
            {"kind": "sale", "id": "2", "amount": 500, "currency": "USD"},
            {"kind": "other", "id": "3"},
        ]
        body = json.dumps({"items": items}).encode()
        signature = hmac.new(b"a-secret-for-batches", body, hashlib.sha256).hexdigest()
        answer = console.client.post("/webhooks/batch", data=body, headers={"X-Signature": signature})
        assert answer.status_code == 200
        console.work()
        visit = Visit(console)
        text = page(visit, "ev_1")
        rules = section(text, "rules")
        assert re.findall(r"Event (\d) of 3: (\w+)", rules) == [("1", "sale"), ("2", "sale"), ("3", "other")]
        goals = section(text, "goals")
        assert "note was cut to 255 characters" in goals
        assert "email …" in goals
        assert "ann@example.com" not in text
        assert "ann@example.com" in page(visit, "ev_1?show=personal")
        assert signature not in text


# --------------------------------------------------------------------------------------------------------- signature


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        pytest.param({"STRIPE_WEBHOOK_SECRET": STRIPE_SECRET}, "verified with its secret;", marks=pytest.mark.long),
        pytest.param(
            {"STRIPE_WEBHOOK_SECRET": f"whsec_another {STRIPE_SECRET}"},
            "verified with the second of its 2 secrets;",
            marks=pytest.mark.long,
        ),
        (
            {"STRIPE_WEBHOOK_SECRET": "whsec_another", "STRIPE_WEBHOOK_SECRET_OLD": STRIPE_SECRET},
            "verified with the second of its 2 secrets, an old one (the variable ends in _OLD);",
        ),
    ],
)
def test_which_secret_was_right_is_remembered_and_no_secret_is(console_url, clock, secrets, said):
    clock.set(int(time.time() * 1000) + 20_000)  # the database answers later than this machine receives
    with Composed(console_url, clock, BRIDGE_ADMIN_TOKEN=TOKEN, **secrets) as console:
        body = json.dumps(checkout(1, ALICE)).encode()
        signed = sign.stripe(body, STRIPE_SECRET, int(time.time()) - 42)
        assert console.client.post("/webhooks/stripe", data=body, headers=signed).status_code == 200
        text = page(Visit(console), "ev_1")
        (row,) = console.rows(schema.events)
    assert said in section(text, "signed")
    assert re.search("its timestamp was 4[2-9] s", section(text, "signed"))
    when = section(text, "when")
    assert when.index("Signed by its sender") < when.index("Received and verified") < when.index("Stored and acknow")
    kept = " ".join(str(value) for value in row)
    given = signed["Stripe-Signature"].partition("v1=")[2].partition(",")[0]
    assert len(given) == 64
    assert given not in kept + text
    assert STRIPE_SECRET not in kept + text
    remembered = json.loads(row.signature)
    assert set(remembered) <= {"scheme", "secret", "of", "old", "age_ms", "at_ms"}
    assert (remembered["at_ms"] - remembered["age_ms"]) % 1000 == 0  # Stripe signs whole seconds


@pytest.mark.long
def test_of_what_an_earlier_release_stored_it_invents_nothing(console, visit):
    number = happened(console)
    console.bridge.store.run(lambda conn: conn.execute(update(schema.events).values(signature=None)))
    text = page(visit, f"ev_{number}")
    assert "an earlier release received the event" in section(text, "signed")
    assert "Signed by" not in section(text, "when")
    assert "Received, verified and stored" in section(text, "when")


# --------------------------------------------------------------------------------------------------------------- body


def test_hostile_bodies_do_nothing(console, visit):
    names = {"email": f"{HOSTILE}@example.com", "name": HOSTILE}
    number = happened(
        console, HOSTILE, None, metadata={HOSTILE: HOSTILE, "long": "x" * 900_000}, customer_details=names
    )
    for query in ("", "?show=personal", "?find=%3Cscript%3E", "?find=xxxx&show=personal", "?find=%00%E2%80%AE"):
        text = page(visit, f"ev_{number}{query}")
        assert "<script>alert" not in text
        assert not set("\u202e\x1b\x00") & set(text)
        assert len(text) < 200_000
    assert "It is too long to show in full." in section(text, "body")
    answer = visit.get(f"/console/events/ev_{number}/body")
    assert len(answer.data) > 900_000
    assert answer.headers["Content-Disposition"] == f'attachment; filename="ev_{number}.txt"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_is_found_is_marked_and_counted(console, visit):
    number = happened(console, 1, None, metadata={"plan": "Pro", "long": "y" * 30_000 + "needle" + "y" * 30_000})
    assert "<mark>pro</mark>" in page(visit, f"ev_{number}?find=PRO").lower()
    text = page(visit, f"ev_{number}?find=needle")
    assert "<mark>needle</mark>" in text
    assert "1 found" in section(text, "body")
    text = page(visit, f"ev_{number}?find=nowhere")
    assert "The body does not contain “ nowhere ”." in section(text, "body")


def test_what_is_personal_is_masked_until_it_is_asked_for_which_is_logged(console, visit, capsys):
    number = happened(console, 1, None, customer_details={"email": "ann@example.com", "name": "Ann Lee"})
    text = page(visit, f"ev_{number}")
    assert "ann@example.com" not in text
    assert "Ann Lee" not in text
    assert "console.personal_shown" not in capsys.readouterr().out
    text = page(visit, f"ev_{number}?show=personal")
    assert "ann@example.com" in text
    assert "Ann Lee" in text
    assert f"about=ev_{number}" in capsys.readouterr().out.partition("console.personal_shown")[2]


def test_secrets_in_a_body_stay_hidden_even_then(console, visit):
    token = "tok_Jq3vB8xN2mK5pQ7r"
    number = happened(console, 1, None, metadata={"api_token": token})
    assert token not in page(visit, f"ev_{number}?show=personal&find=token")
    assert token.encode() not in visit.get(f"/console/events/ev_{number}/body").data


# ------------------------------------------------------------------------------------------------------- other events


def test_repeated_deliveries_and_the_same_fact(console, visit):
    first = happened(console, 1, ALICE)
    happened(console, 1, ALICE)
    text = page(visit, f"ev_{first}")
    assert "Delivered 1 more time, which changed nothing." in section(text, "same")
    body = checkout(1, ALICE) | {"id": "evt_other", "created": console.clock.now_ms // 1000}
    body["type"] = "checkout.session.async_payment_succeeded"
    second = post(console, body)
    assert f"ev_{first} made goal_1: there is only one per" in section(page(visit, f"ev_{second}"), "same")
    assert f"ev_{second} would have made goal_1, which was there already" in section(page(visit, f"ev_{first}"), "same")


@pytest.mark.parametrize(("state", "colour"), [("delivered", "ok"), ("rejected", "bad"), ("parked", "wait")])
def test_in_the_timeline_of_a_purchase_a_goal_has_the_colour_of_its_state(console, visit, state, colour):
    happened(console, 1, ALICE)
    other = post(console, checkout(1, ALICE) | {"id": "evt_2", "created": console.clock.now_ms // 1000})
    with console.bridge.store.write() as conn:
        conn.execute(update(schema.goals).values(state=state))
    shown = page(visit, f"ev_{other}").partition('aria-labelledby="thread"')[2].partition("</section>")[0]
    assert re.findall(r'<li class="(\w*)">', shown) == [colour, ""]


def test_a_goal_of_a_kind_that_a_later_release_wrote_is_shown_without_a_request(console, visit):
    """Before a release is taken back, it may have written kinds that this one does not know."""
    number = happened(console, 1, ALICE)
    assert "(POST /goals)" in page(visit, f"ev_{number}")
    with console.bridge.store.write() as conn:
        conn.execute(update(schema.goals).values(kind="later", state="pending"))
    console.work()
    text = page(visit, f"ev_{number}")
    assert 'this release of the bridge cannot send a "later"' in section(text, "goals")
    assert "(POST /" not in text


def test_addresses(console, visit):
    happened(console, 1, ALICE)
    found = {path: visit.get(f"/console/{path}").location for path in ("goals/goal_1", "events/evt_1")}
    assert found == {"goals/goal_1": "/console/events/ev_1#goal_1", "events/evt_1": "/console/events/ev_1"}
    for path in ("events/ev_999", f"events/ev_{'9' * 20}", "events/evt_%3Cscript%3E", "events/ev_1/x", "goals/ev_1"):
        page(visit, f"/console/{path}", 404)
    for path in ("goals/goal_999", "goals/goal_1/delete", "goals/goal_999/retry", "events/ev_999/replay"):
        page(visit, f"/console/{path}", 404)


# ------------------------------------------------------------------------------------------------------------ actions


def test_routing_again_is_shown_before_it_is_done(console, visit):
    number = happened(console, 1, payment_status="unpaid")
    text = words(page(visit, f"ev_{number}/replay"))
    assert "Routing 1 event again: 0 new goals." in text
    assert console.rows(schema.events)[0].state == "routed"
    assert visit.post(f"/console/events/ev_{number}/replay").status_code == 403
    answer = visit.change(f"/console/events/ev_{number}/replay")
    assert (answer.status_code, answer.location) == (303, f"/console/events/ev_{number}")
    assert f"ev_{number} will be routed again." in words(page(visit, f"ev_{number}"))
    assert changed(console) == [("replay", f"ev_{number}", f"ev_{number} will be routed again.")]
    assert visit.change(f"/console/events/ev_{number}/replay").status_code == 303
    assert "it waits to be routed already" in words(page(visit, f"ev_{number}"))
    assert len(changed(console)) == 1


def test_a_goal_is_cancelled_and_sent_after_all(console, visit):
    happened(console, 1)
    assert "Cancel goal_1" in section(page(visit, "ev_1"), "actions")
    assert "parked: waits for its visitor" in words(page(visit, "/console/goals/goal_1/cancel"))
    assert visit.get("/console/goals/goal_1/cancel").status_code == 200
    assert console.goals()[0].state == "parked"
    assert visit.change("/console/goals/goal_1/cancel").location == "/console/events/ev_1#goal_1"
    assert console.goals()[0].state == "cancelled"
    text = page(visit, "ev_1")
    assert "goal_1 is cancelled and will never be sent." in words(text)
    assert "Retry goal_1" in section(text, "actions")
    assert visit.change("/console/goals/goal_1/cancel").status_code == 303
    assert "is already final" in words(page(visit, "ev_1"))
    assert visit.change("/console/goals/goal_1/retry").status_code == 303
    assert [what for what, _, _ in changed(console)] == ["retry", "cancel"]


@pytest.fixture
def no_changes(console):
    """The table of changes cannot be found, so that its row cannot be written."""
    for old, new in (("changes", "elsewhere"), ("elsewhere", "changes")):
        with console.bridge.store.write() as conn:
            conn.execute(sql(f"ALTER TABLE {old} RENAME TO {new}"))
        if new == "elsewhere":
            yield


@pytest.mark.parametrize("way", ["console", "command", "list"])
def test_a_change_and_its_row_are_made_together_or_not_at_all(console, visit, request, monkeypatch, capfd, way):
    happened(console, 1)
    request.getfixturevalue("no_changes")
    if way == "command":
        for name, value in console.environ.items():
            monkeypatch.setenv(name, value)
        with contextlib.suppress(SystemExit):
            cli.main(["goals", "cancel", "goal_1"])
        assert "Traceback" not in capfd.readouterr().err
    elif way == "console":
        assert visit.post("/console/goals/goal_1/cancel", csrf_token=csrf_of(visit)).status_code == 503
    else:
        form = {"csrf_token": csrf_of(visit), "kind": "goals", "state": "parked"}
        assert visit.post("/console/activity/cancel", **form).status_code == 503
    assert console.goals()[0].state == "parked"


def csrf_of(visit):
    return re.search(r'name="csrf_token" value="([0-9a-f]+)"', page(visit, "ev_1"))[1]


def test_a_delivered_goal_is_sent_twice_only_by_who_was_asked(console, visit):
    happened(console, 1, ALICE)
    assert visit.change("/console/goals/goal_1/retry").status_code == 303
    assert "was delivered, and was left alone" in words(page(visit, "ev_1"))
    asked = page(visit, "/console/goals/goal_1/retry")
    assert "Send again, so that DataFast counts it twice?" in words(asked)
    assert 'name="again" value="1"' in asked
    assert visit.change("/console/goals/goal_1/retry", again="1").status_code == 303
    console.work()
    assert console.sent() == [("purchase", ALICE)] * 2
    assert changed(console) == [("retry", "goal_1", "goal_1 is sent again, as goal_2.")]
