"""What must be seen by nobody: secrets in requests, bodies and settings, and a person who was forgotten.

Real events of three kinds of senders go into a real database; then commands are typed, some of them on a terminal.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import unicodedata
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote_plus, urlencode

import pytest
from cases_kit import one_in
from running import ALICE, BOB, KEY, STRIPE_SECRET, checkout, environment, event, eventually

from bridge import app, receive, settings, store
from bridge.cli import main, printing
from bridge.model import Request
from bridge.sandbox import sign
from bridge.sandbox.options import Options
from bridge.sandbox.server import start
from bridge.store.operator import queries

ROOT = Path(__file__).parents[2]
TOKEN = "kofi/Token+of 44 signs: never shown äöü, really"
SHARED = "the-shared-secret-of-the-shop"
SLACKISH = "xoxb-a-token-that-only-its-name-gives-away"
IN_HEADER = "what-no-header-may-tell"
MAIL = "ann@example.com"
WILD = "\x1b[31mred\x07 \u202ebidi\u2066 \x9b1m\x7f\u200f\u061c\ud83d"

MAPPINGS = {
    "stripe.yaml": (ROOT / "mappings" / "stripe.yaml").read_text(encoding="utf-8"),
    "kofi.yaml": """\
provider: kofi
visitor: [from_name]
goals:
  - goal: tip
    event: Donation
    when: {verification_token: nobody}
  - goal: told
    event: Donation
    once_per: message_id
    metadata: {all: "{verification_token} {message}"}
    description: "by {verification_token}"
""",
    "shop.yaml": """\
provider: custom
verify: {type: token, signature: {in: "header:x-shop"}}
secret: ${SHOP_WEBHOOK_SECRET}
envelope: {type: type, id: id}
require: {auth_word: "${SHOP_WORD}"}
visitor: [visitor]
goals:
  - goal: bought
    event: sale
    when: {auth_word: nobody}
  - goal: routed
    event: sale
    when: {header.x-partner-key: "partner-7-key", query.plan: pro}
    metadata: {w: "{auth_word}", t: "{slack.token}"}
""",
}  # fmt: skip


def arrive(bridge, source, body, headers, query=""):
    path = f"/webhooks/{source}"
    url = f"http://h.example{path}{'?' + query if query else ''}"
    request = Request("POST", url, path, query, headers, body)
    receive.receive(bridge, source, lambda: request).ack.result(10)


def stripe(bridge, told):
    body = json.dumps(told).encode()
    signed = sign.stripe(body, STRIPE_SECRET, int(time.time()))
    arrive(bridge, "stripe", body, {name.lower(): value for name, value in signed.items()})


def kofi_body():
    told = {"verification_token": TOKEN, "message_id": "tip-1", "type": "Donation", "message": WILD, "from_name": BOB}
    return urlencode({"data": json.dumps(told)}).encode()


@pytest.fixture(scope="module")
def happened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("happened")
    (folder / "mappings").mkdir()
    for name, text in MAPPINGS.items():
        (folder / "mappings" / name).write_text(text, encoding="utf-8")
    url = f"sqlite:///{folder / 'bridge.db'}"
    with start(Options(keys=(KEY,), known="any", rate_per_minute=0)) as sandbox:
        environ = environment(
            sandbox,
            url,
            folder / "mappings",
            KOFI_WEBHOOK_SECRET=TOKEN,
            SHOP_WEBHOOK_SECRET=SHARED,
            SHOP_WORD="open-sesame-1",
        )
        store.migrate(url)
        bridge = app.build(settings.load(environ), worker=True)
        arrive(bridge, "kofi", kofi_body(), {"content-type": "application/x-www-form-urlencoded"})
        sale = {"type": "sale", "id": "s1", "visitor": BOB, "auth_word": "open-sesame-1", "slack": {"token": SLACKISH}}
        headers = {
            "x-shop": SHARED,
            "x-partner-key": "partner-7-key",
            "x-webhook-key": IN_HEADER,
            "x-amz-security-token": IN_HEADER,
            "cf-access-jwt-assertion": IN_HEADER,
            "referer": f"https://h.example/?plan=pro&api_key={IN_HEADER}",
            "x-kind": "plain",
        }
        arrive(
            bridge,
            "shop",
            json.dumps(sale).encode(),
            headers,
            f"plan=pro&access_token={IN_HEADER}&client_secret={IN_HEADER}",
        )
        stripe(bridge, checkout(1, customer_details={"email": MAIL}))
        refund = {"id": "ch_live_77", "object": "charge", "payment_intent": "pi_1", "customer": "cus_1", "amount": 4900}
        refund |= {"amount_refunded": 4900, "refunded": True, "currency": "usd"}
        stripe(bridge, event("charge.refunded", refund, "evt_refund"))
        stripe(bridge, checkout(2, BOB))
        bridge.start()
        eventually(lambda: _routed(bridge.store) == 5 and len(sandbox.world.goals()) >= 5)
        bridge.stop()
    return folder, environ


def _routed(opened):
    with opened.read() as conn:
        return sum(line.state == "routed" for line in queries.list_events(conn, queries.EventFilter()))


@pytest.fixture
def typed(happened, tmp_path, monkeypatch, capfdbinary):
    """Type a command: (exit code, what stdout and stderr got). terminal: in a process of its own, on a terminal."""
    folder, environ = happened
    shutil.copy(folder / "bridge.db", tmp_path / "bridge.db")
    environ = {**environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'bridge.db'}"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*words, stdin=b"", terminal=False):
        if terminal:
            return on_a_terminal(words, tmp_path, environ)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        printing.source_of.cache_clear()
        code = main(list(words))
        told = capfdbinary.readouterr()
        return code, told.out + told.err

    run.database = tmp_path / "bridge.db"
    run.folder = tmp_path
    return run


def on_a_terminal(words, folder, environ):
    given = {**environ, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "COLUMNS": "1000", "PYTHONUTF8": "1"}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bridge", *words]
    with subprocess.Popen(
        command, cwd=folder, env=given, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        pieces = []
        with suppress(OSError):  # so Linux says that a terminal has ended
            while piece := os.read(ours, 65_536):
                pieces.append(piece)
        os.close(ours)
    return process.returncode, b"".join(pieces)


SECRETS = (TOKEN, SHARED, SLACKISH, IN_HEADER, "open-sesame-1", "partner-7-key")


def secrets_in(said: bytes):
    """Which secrets stand there, in whatever spelling."""
    found = set()
    for secret in SECRETS:
        spelled = json.dumps(secret)[1:-1]
        forms = {secret, spelled, json.dumps(spelled)[1:-1], quote_plus(secret), quote_plus(spelled), secret[:24]}
        found |= {secret for form in forms if form.encode() in said}
    return found


COMMANDS = [
    ("events",), ("events", "show", "ev_1"), ("events", "show", "ev_2"), ("why", "ev_1"), ("why", "ev_2"),
    ("why", "tip-1"), ("goals",), ("goals", "show", "goal_1"), ("goals", "show", "goal_2"), ("why", BOB),
]  # fmt: skip


@pytest.mark.parametrize("words", one_in(2, COMMANDS), ids=" ".join)
def test_no_secret_is_in_any_answer(typed, words):
    for more in ((), ("--json",)):
        code, said = typed(*words, *more)
        assert code == 0
        assert secrets_in(said) == set()
        assert not more or json.loads(said)


def test_the_token_of_a_sender_is_masked_in_the_body_too_and_the_rest_is_as_it_came(typed):
    code, said = typed("events", "show", "ev_1", "--body")
    assert code == 0
    assert secrets_in(said) == set()
    assert said == kofi_body().replace(quote_plus(json.dumps(TOKEN)[1:-1]).encode(), b"***")
    code, told = typed("explain", "-", "--source", "kofi", stdin=said)
    assert (code, b"Goal told" in told) == (0, True)


def test_explain_masks_what_stands_in_a_body(typed):
    request = (
        b"POST /webhooks/kofi HTTP/1.1\r\nHost: h\r\nX-Webhook-Key: " + IN_HEADER.encode() + b"\r\n\r\n" + kofi_body()
    )
    for more in ((), ("--json",)):
        code, said = typed("explain", "-", *more, stdin=request)
        assert code == 0
        assert b"is valid" in said
        assert secrets_in(said) == set()


def test_what_is_stored_holds_no_secret_beside_the_body_and_what_rules_read_is_there(typed):
    with closing(sqlite3.connect(typed.database)) as conn:
        rows = conn.execute("SELECT headers, query, trace FROM events").fetchall()
        goals = [name for (name,) in conn.execute("SELECT name FROM goals WHERE source = 'shop'")]
    assert goals == ["routed"]  # by a header called like a key, and a parameter
    headers, query, _ = rows[1]
    assert json.loads(headers) == {
        "x-partner-key": "partner-7-key",
        "referer": "https://h.example/?plan=pro&api_key=…",
        "x-kind": "plain",
    }
    assert json.loads(query) == {"plan": "pro"}
    assert not secrets_in(repr([row[2] for row in rows]).encode()) & {TOKEN, SLACKISH, IN_HEADER}


# ------------------------------------------------------------------------------------------------------- terminals


def moves_something(said: bytes, *, ours: bool):
    """Control and bidi characters; ours: the colours that we paint ourselves."""
    text = said.decode()
    if ours:
        text = re.sub("\x1b\\[[0-9;]*m", "", text)
    text = text.replace("\r\n", "\n").replace("\n", "")
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.mark.parametrize(
    "words",
    [
        ("why", "ev_1"),
        pytest.param(("goals", "show", "goal_1"), marks=pytest.mark.long),
        ("events", "show", "ev_1", "--body"),
        pytest.param(("why", f"ev{WILD[:9]}"), marks=pytest.mark.long),
    ],
    ids=str,
)
@pytest.mark.parametrize("as_json", [False, pytest.param(True, marks=pytest.mark.long)])
def test_nothing_from_outside_moves_a_terminal(typed, words, as_json):
    _, said = typed(*words, *(["--json"] if as_json else []), terminal=True)
    assert moves_something(said, ours=not as_json) == set()
    assert len(said) > 40


@pytest.mark.long
def test_json_holds_the_same_data_on_a_terminal_and_in_a_pipe(typed):
    piped, shown = (
        typed("goals", "show", "goal_1", "--json")[1],
        typed("goals", "show", "goal_1", "--json", terminal=True)[1],
    )
    told = json.loads(piped)
    assert json.loads(shown) == told
    assert "\x1b[31mred" in told["goal"]["metadata"]["all"]


@pytest.mark.long
def test_a_file_name_moves_no_terminal(typed):
    name = "a\x1b[2Jb\u202e.json"
    (typed.folder / name).write_bytes(b"{")
    for words in ((name, "--source", "kofi"), (f"{name}.none",)):
        _, said = typed("explain", *words, terminal=True)
        assert moves_something(said, ours=True) == set()


# --------------------------------------------------------------------------------------------------------- explain


def test_explain_reads_no_more_than_a_body_can_be(typed):
    (typed.folder / "large").write_bytes(b"{" + b" " * 1_048_576)
    os.mkfifo(typed.folder / "fifo")
    writer = subprocess.Popen(["sh", "-c", "yes > fifo"], cwd=typed.folder, stderr=subprocess.DEVNULL)
    try:
        for name in ("large", "/dev/zero", "fifo", "-"):
            code, said = typed("explain", name, "--source", "kofi", stdin=b"x" * 3_000_000)
            assert code == 2
            assert (
                said.decode().splitlines()[0]
                == f"{name}: it is longer than 1 MiB, which no webhook may be (it would be answered 413)"
            )
            assert len(said.splitlines()) == 1
    finally:
        writer.kill()
        writer.wait()


def test_a_body_of_the_limit_is_read(typed):
    body = b'{"id": "s9", "type": "sale"' + b" " * (1_048_576 - 28) + b"}"
    code, _ = typed("explain", "-", "--source", "shop", stdin=body)
    assert (len(body), code) == (1_048_576, 0)
    request = b"POST /webhooks/shop HTTP/1.1\r\nX-Pad: " + b"x" * 60_000 + b"\r\n\r\n" + body
    assert typed("explain", "-", stdin=request)[0] == 0


# ------------------------------------------------------------------------------------------------------------ URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:hunter2-pw@127.0.0.1:1/api",
        pytest.param("https://h.example/?token=hunter2-pw", marks=pytest.mark.long),
        pytest.param("https://ann:hunter2-pw@h.example:99999/", marks=pytest.mark.long),
        pytest.param("ann:hunter2-pw@h.example", marks=pytest.mark.long),
        pytest.param("https://ann:hunter2-pw%40h.example/", marks=pytest.mark.long),
    ],
)
def test_a_password_in_the_address_of_the_api_is_shown_nowhere(typed, url, monkeypatch):
    monkeypatch.setenv("DATAFAST_API_URL", url)
    body = json.dumps({"type": "sale", "id": "s1", "auth_word": "x"}).encode()
    for words in (("check",), ("doctor",), ("explain", "-", "--source", "shop"), ("goals",)):
        for more in ((), ("--json",)):
            _, said = typed(*words, *more, stdin=body)
            assert b"hunter2" not in said
            assert b"Traceback" not in said


def test_the_settings_do_not_show_it_either():
    assert "hunter2" not in repr(settings.load({"DATAFAST_API_URL": "https://ann:hunter2-pw@127.0.0.1:1/api"}))


# ------------------------------------------------------------------------------------------------------- forgotten


def everything(database):
    """All that a database holds, as text; and the bytes of its files."""
    with closing(sqlite3.connect(database)) as conn:
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = "\n".join(repr(row) for table in tables for row in conn.execute(f"SELECT * FROM {table}"))
    files = b"".join(file.read_bytes() for file in sorted(database.parent.glob(f"{database.name}*")))
    return rows, files


@pytest.mark.parametrize(
    "whom",
    [
        pytest.param(("--customer", "cus_1"), marks=pytest.mark.long),
        ("--email", MAIL),
        pytest.param(("--visitor", ALICE), marks=pytest.mark.long),
    ],
    ids=str,
)
def test_after_forget_nothing_is_left_and_why_says_so(typed, whom):
    before, _ = everything(typed.database)
    personal = (ALICE, "cus_1", "pi_1", "cs_live_1", "ch_live_77", MAIL)
    assert [name for name in personal if name in before] == list(personal)
    delivered = next(g for g in json.loads(typed("goals", "--json")[1]) if g["visitor"] == ALICE)
    assert typed("forget", *whom, "--yes")[0] == 0
    rows, files = everything(typed.database)
    assert [line for name in personal for line in rows.splitlines() if name in line] == []
    assert [name for name in personal if name.encode() in files] == []
    assert BOB in rows
    for name in personal:
        assert typed("why", name)[0] == 1
        assert re.search(b"(Nothing is known of|Nobody is known by)", typed("why", name)[1])
    day = time.strftime("%Y-%m-%d", time.gmtime())
    event_id = delivered["event_id"]
    _, told = typed("why", f"ev_{event_id}")
    assert f"Body, trace and personal keys were forgotten at a person's request on {day}".encode() in told
    _, told = typed("why", f"goal_{delivered['id']}")
    assert f"visitor, metadata and personal keys were forgotten at a person's request on {day}".encode() in told
    assert b"BRIDGE_RETENTION_DAYS" not in told.split(b"Attempts")[0]
    assert b"forgotten at a person's request" in typed("events", "show", f"ev_{event_id}", "--body")[1]
    code, told = typed("goals", "retry", f"goal_{delivered['id']}", "--yes")
    assert code == 1
    assert b"has no visitor" in told


def test_a_log_line_moves_no_terminal_either(tmp_path):
    line = f"from bridge import logs; logs.configure('console'); logs.get('x').info('seen', type={WILD!r}, plain='ä b')"
    command = [sys.executable, "-c", line]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60, check=True
    )
    assert moves_something(done.stderr, ours=True) == set()
    assert "ä b" in done.stderr.decode()
    assert "\\x1b[31mred" in done.stderr.decode()
