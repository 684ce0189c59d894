"""Whatever the settings are, a command ends with 0, 1 or 2 and sentences: no traceback, and no secret in them."""

# ruff: noqa: E501 - tables of cases, one a line
from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge import settings
from bridge.cli import main
from bridge.errors import SettingsError
from bridge.settings import database_file

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "q7Kz9ZpW4"  # in every secret
VISITOR = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
MAPPING = "provider: stripe\ngoals:\n  - {goal: refund, event: charge.refunded}\n"
PLAIN = st.sampled_from(
    ["", "  ", "x", "0", "-1", "1", "999999999", "99999999999999999999", "1e9", "nan", "true", "٣", "é", "a b", "\x1b[31m",
     "\x01", "\u200b", "\udcff", "x" * 5_000, "500ms", "999999999d", "1d", "5s,1h...3d", "30s,60s"]
)  # fmt: skip
ODD = PLAIN | st.sampled_from(["whsec_" + TOKEN, "df_" + TOKEN, f"https://u:{TOKEN}@h"])
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)
URLS = st.sampled_from(
    [
        "sqlite:///new.db", "sqlite:///ready.db", "sqlite://", "sqlite://x.db", "sqlite:///no/such/x.db", "sqlite:///folder",
        "sqlite:///text", "sqlite:////dev/full", "sqlite:///" + "x" * 300, "sqlite:///x.db?mode=ro", "sqlite:///x.db?timeout=x",
        "sqlite:///file:y.db?uri=true", "sqlite:///\x1b.db", "sqlite:///é.db", "sqlite:///text/x.db", "sqlite:///%00",
        f"postgresql://u:{TOKEN}@127.0.0.1:1/db", f"postgres://u:{TOKEN}@127.0.0.1:1/db?schema=public&pgbouncer=true",
        f"postgress://u:{TOKEN}@h/db", f"postgresql://u:{TOKEN}@h:x/db", f"postgresql://u:a@{TOKEN}@127.0.0.1:1/db",
        f"postgresql://u:{TOKEN}@127.0.0.1:1/db?connect_timeout=x", f"postgresql://u:{TOKEN}@[::1/db", "mysql://h/d",
        f'"postgresql://u:{TOKEN}@h/d"', f"postgresql://u:{TOKEN}%00@h/d", f"postgresql://u:{TOKEN}@127.0.0.1:1/" + "d" * 3_000,
    ]
)  # fmt: skip
OWN = {
    "DATABASE_URL": URLS,
    "DATAFAST_API_KEY": st.sampled_from(["df_" + TOKEN, "dft_" + TOKEN, "df_" + TOKEN + "é", "sk_live_" + TOKEN, "eyJ" + TOKEN]),
    "DATAFAST_API_URL": st.sampled_from(
        ["http://127.0.0.1:9/api/v1", "http://127.0.0.1:99999", "http://[::1", f"ftp://u:{TOKEN}@h", "https://", "http://datafa.st"]
    ),
    "DATAFAST_WEBSITE_ID": st.sampled_from(["a" * 24, "dfid_x", "df_" + TOKEN]),
    "STRIPE_API_KEY": st.sampled_from(["whsec_" + TOKEN, "pk_live_" + TOKEN, "rk_live_\x01" + TOKEN]),
    "BRIDGE_MAPPINGS": st.sampled_from(["good", "none", "text", "empty", "broken", "folder", "x" * 300, "\udcff", "/dev/null", "\x1b"]),
    "BRIDGE_ADMIN_TOKEN": st.sampled_from([TOKEN, f"{TOKEN}\n\x01", f"é{TOKEN}"]),
    "STRIPE_WEBHOOK_SECRET": st.sampled_from([f"whsec_{TOKEN}", f'"whsec_{TOKEN}"', f"a{TOKEN},b{TOKEN}", f"{TOKEN}\udcff", f"${{{TOKEN}}}"]),
    "STRIPE_WEBHOOK_SECRET_OLD": st.sampled_from([f"whsec_{TOKEN}", f"'{TOKEN}'"]),
    "DYNO": st.just("web.1"),
    "COLUMNS": st.sampled_from(["0", "-1", "1", "x", "99999999999999999999"]),
    "HEROKU_APP_DEFAULT_DOMAIN_NAME": st.sampled_from(["x\x1b[2J", "é", "\udcff"]),
}  # fmt: skip
SHOWN = {"BRIDGE_MAPPINGS", "BRIDGE_HOST", "HEROKU_APP_DEFAULT_DOMAIN_NAME"}  # as they are: names of places
NAMES = sorted({*(setting.name for setting in settings.TABLE), *OWN})


def values(name: str) -> st.SearchStrategy[str]:
    """What a setting may hold: what it is for, what it is not, and anything at all."""
    odd = (PLAIN if name in SHOWN else ODD) | TEXT
    return OWN[name] | odd if name in OWN else odd


ENVIRON = st.dictionaries(st.sampled_from(NAMES), st.none(), max_size=5).flatmap(
    lambda names: st.fixed_dictionaries({name: values(name) for name in names})
)
LINES = (
    ("check",), ("check", "--json"), ("check", "good/stripe.yaml"), ("migrate",), ("doctor",), ("doctor", "--visitor", VISITOR),
    ("why", "cus_1"), ("events",), ("events", "show", "ev_1"), ("events", "replay", "--state", "quarantined", "--yes"), ("goals",),
    ("goals", "retry", "goal_1"), ("links", "show", "sub_1"), ("links", "add", "stripe", "customer", "cus_1", VISITOR), ("relearn",),
    ("forget", "--customer", "cus_1", "--yes"), ("sources",), ("sources", "--json"), ("explain", "event.json"), ("simulate", "--list"),
    ("simulate", "stripe-purchase", "--to", "http://127.0.0.1:9"), ("sandbox", "--option", "x"), ("serve", "--help"), ("--help",),
    ("serve",), ("worker",),
)  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a bit of everything that a path may lead to."""
    for name in (*NAMES, "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for folder in ("good", "empty", "broken", "folder"):
        (tmp_path / folder).mkdir()
    (tmp_path / "good" / "stripe.yaml").write_text(MAPPING)
    (tmp_path / "broken" / "stripe.yaml").write_bytes(b"provider: \xff\n\tgoals")
    (tmp_path / "text").write_text("this is no database, and longer than the head of one would be\n" * 40)
    (tmp_path / "event.json").write_text('{"type": "charge.refunded", "id": "evt_1"}')
    monkeypatch.setenv("DATABASE_URL", "sqlite:///ready.db")
    assert main(["migrate"]) == 0
    monkeypatch.delenv("DATABASE_URL")
    return tmp_path


def run(line: tuple[str, ...], environ: dict[str, str]) -> tuple[int, str]:
    """The exit code, and all that was written."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name, value in environ.items():
            patch.setenv(name, value)
        code = main(list(line))
    return code, (out.buffer.getvalue() + err.buffer.getvalue()).decode()


def starts(environ: dict[str, str]) -> bool:
    """Whether `serve` and `worker` would go on for ever."""
    try:
        return database_file.unusable(settings.load(environ).database_url) is None
    except SettingsError:
        return False


@pytest.mark.long
@hypothesis_settings(
    max_examples=hypothesis_settings.default.max_examples * 2, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(environ=ENVIRON, line=st.sampled_from(LINES))
def test_a_command_ends_with_sentences_whatever_the_settings_are(
    place: Path, environ: dict[str, Any], line: tuple[str, ...]
):
    if line in (("serve",), ("worker",)) and starts(environ):
        line = ("check",)
    environ = {"BRIDGE_MAPPINGS": "good", **environ}
    code, told = run(line, environ)
    assert code in (0, 1, 2), (line, told)
    assert "Traceback" not in told
    assert "error of the bridge itself" not in told, told
    assert "Warning" not in told, told
    assert TOKEN not in told
    assert "\x1b[2J" not in told
    assert list((place / "empty").iterdir()) == []


NEED = (
    ("check",), ("serve",), ("worker",), ("migrate",), ("doctor",), ("why", "cus_1"), ("events",), ("goals",), ("relearn",),
    ("links", "show", "sub_1"), ("links", "add", "stripe", "customer", "cus_1", VISITOR), ("forget", "--customer", "cus_1", "--yes"),
)  # fmt: skip
WRONG = {
    f"postgresql://u:{TOKEN}@127.0.0.1:1/db?no_such=1": 'the option "no_such"',
    f"postgres://u:{TOKEN}@127.0.0.1:1/db?sslmode=requir": "sslmode",
    f"postgress://u:{TOKEN}@127.0.0.1:1/db": "did you mean postgres",
    f"postgresql://u:{TOKEN}@127.0.0.1:x/db": "its port",
    "sqlite://x.db": "write three slashes",
    "sqlite:///x.db?mode=rwc": 'the option "mode"',
    "sqlite:///folder": "folder is a folder: name a file in it",
    "sqlite:///no/such/x.db": "the folder no/such does not exist: create it",
    "sqlite:///text": "not a SQLite database",
}


@pytest.mark.parametrize("url", WRONG, ids=lambda url: url.replace(TOKEN, "…"))
@pytest.mark.usefixtures("place")
def test_a_wrong_database_url_is_the_same_sentence_of_every_command_that_needs_it(url):
    for line in NEED:
        if url == "sqlite:///text" and line == ("check",):
            continue  # it opens no file
        code, told = run(line, {"BRIDGE_MAPPINGS": "good", "DATABASE_URL": url})
        assert code == 1, line
        assert WRONG[url] in told, line
        assert "DATABASE_URL" in told
        assert TOKEN not in told


@pytest.mark.usefixtures("place")
def test_explain_and_sources_answer_without_the_database_and_explain_says_what_is_wrong():
    environ = {"BRIDGE_MAPPINGS": "good", "DATABASE_URL": "sqlite://x.db"}
    code, told = run(("explain", "event.json"), environ)
    assert (code, "warning: DATABASE_URL: a SQLite file has no host: write three slashes" in told) == (0, True)
    assert run(("sources",), environ)[0] == 0
