"""One table of settings: the only source for the process, `--help`, the docs and the tests.

`load` reads an environment and returns frozen `Settings`, or raises `SettingsError`, which lists all problems together.
Each is one sentence that names the setting, the value (secrets masked) and what is allowed. `load` reads no file and no
`os.environ`; `read_environment` does, and only the composition root calls it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from bridge.errors import SettingsError, os_reason
from bridge.settings import database_url, hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MS: Final = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d{1,9})(ms|s|min|h|d)", re.ASCII)
_FOREVER: Final = "36500d"
ALL_INTERFACES: Final = "0.0.0.0"  # noqa: S104 - a platform's router needs every interface
LOCALHOST: Final = "127.0.0.1"
KEY_SETTINGS: Final = {"default": "DATAFAST_API_KEY", "test": "DATAFAST_TEST_API_KEY"}  # of these destinations
CONSOLE_TOKEN_MIN: Final = 16  # characters of an admin token that opens the console
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def duration_ms(text: str) -> int:
    """`500ms`, `5s`, `2min`, `1h`, `3d` -> milliseconds; ValueError (a sentence's end) for zero and anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError("a duration such as 500ms, 5s, 2min, 1h or 3d")
    return int(match[1]) * MS[match[2]]


def duration_text(ms: int) -> str:
    """The shortest exact way to write a duration: 90000 -> `90s`."""
    for unit in ("d", "h", "min", "s"):
        if ms and ms % MS[unit] == 0:
            return f"{ms // MS[unit]}{unit}"
    return f"{ms}ms"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The pauses after the first, second, … failed attempt. The last one repeats until `total_ms` after the first."""

    steps_ms: tuple[int, ...]
    total_ms: int = 72 * MS["h"]

    def pause_ms(self, failures: int) -> int:
        """The pause after this many failures (1, 2, …), without jitter."""
        return self.steps_ms[min(max(failures, 1), len(self.steps_ms)) - 1]

    def __str__(self) -> str:
        return ",".join(map(duration_text, self.steps_ms)) + "..." + duration_text(self.total_ms)


def _schedule(text: str) -> Schedule:
    steps, dots, total = text.partition("...")
    try:
        return Schedule(
            tuple(map(_at_most(_FOREVER), steps.split(","))),
            _at_most(_FOREVER)(total) if dots else 72 * MS["h"],
        )
    except ValueError:
        raise ValueError("durations separated by commas, such as 5s,30s,2min or 5s,1h...72h") from None


def _pair(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError("two durations such as 30s,60s (delay before the first read-back, and before the second)")
    return _at_most("1d")(parts[0]), _at_most("1d")(parts[1])


def _whole(least: int, most: int, allowed: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(allowed)
        return int(text)

    return parse


def _up_to(most: int) -> Callable[[str], int]:
    """Parse a count with an upper limit, beyond which the bridge would fail later for lack of resources."""
    return _whole(1, most, f"a whole number above zero, at most {most}")


def _at_most(longest: str) -> Callable[[str], int]:
    """Parse a duration with an upper limit that sockets, clocks and calendars can handle."""

    def parse(text: str) -> int:
        if (found := duration_ms(text)) > duration_ms(longest):
            raise ValueError(f"a duration of at most {longest}")
        return found

    return parse


def _share(text: str) -> float:
    """Parse a share of the whole; `off` becomes 0."""
    if text == "off":
        return 0.0
    if not re.fullmatch(r"0?\.\d{1,4}|1(\.0{1,4})?", text, re.ASCII) or float(text) == 0:
        raise ValueError("a share above 0 and at most 1, such as 0.5, or off")
    return float(text)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text

    return parse


class WrongKind(ValueError):
    """The value is of a different known kind; the message says which."""


class WrongPart(ValueError):
    """A part of the value is wrong; the message names that part, and quotes nothing else of the value."""


def _key(form: str, allowed: str, others: Mapping[str, str]) -> Callable[[str], str]:
    """Check a key by its prefix only; WrongKind says what it is instead."""

    def parse(text: str) -> str:
        for prefix, sentence in others.items():
            if text.startswith(prefix):
                raise WrongKind(sentence)
        if not re.fullmatch(form, text):
            raise ValueError(allowed)
        return text

    return parse


api_key: Final = _key(
    r"dft?_[!-~]+",
    "a DataFast website key (df_…) or account token (dft_…)",
    {
        "dfid_": "this is the tracking id of the script tag; an API key begins with df_ (website settings, API)",
        "eyJ": "this is the token of a shared dashboard link; an API key begins with df_",
        "sk_": "this is a Stripe key; a DataFast API key begins with df_",
        "rk_": "this is a Stripe key; a DataFast API key begins with df_",
        "we_": "this is the id of a Stripe webhook endpoint; a DataFast API key begins with df_",
    },
)
_stripe_key: Final = _key(  # which also shows the mode
    r"[rs]k_(live|test)_[!-~]+",
    "a restricted key of Stripe (rk_live_…, or rk_test_… for test mode)",
    {
        "pk_": "this is a publishable key, which may read nothing; create a restricted key (rk_live_…)",
        "whsec_": "this is the signing secret of a webhook endpoint; it belongs in STRIPE_WEBHOOK_SECRET",
        "we_": "this is the id of a Stripe webhook endpoint; create a restricted key (rk_live_…)",
        "acct_": "this is the id of a Stripe account; create a restricted key (rk_live_…)",
        "sk_org_": "this is the key of an organization; create a restricted key of the account (rk_live_…)",
        "df": "this is a DataFast key; it belongs in DATAFAST_API_KEY",
    },
)


def _api_url(text: str) -> str:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - raises for an invalid port
    except ValueError:
        raise ValueError("a URL such as https://datafa.st/api/v1") from None
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError("a URL such as https://datafa.st/api/v1")
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        raise ValueError("https (plain http only on this machine, such as http://127.0.0.1:8100/api/v1)")
    return text.rstrip("/")


def _database_url(text: str) -> str:
    try:
        return database_url.canonical(text)
    except ValueError as error:
        raise WrongPart(str(error)) from None


def _alert_urls(text: str) -> tuple[str, ...]:
    """Check Apprise URLs by their shape only; apprise itself knows the services and whether a URL is valid."""
    urls = tuple(text.split())
    for number, url in enumerate(urls, 1):
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", url):
            raise WrongPart(
                f"target {number} of {len(urls)} is not an apprise URL: it must begin with a service and ://, such as"
                " slack://… or mailto://…, and a space in it must be written %20"
            )
    return urls


def _flag(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `default` is written as a user would write it; None means unset."""

    name: str
    default: str | None
    help: str
    parse: Callable[[str], Any]
    secret: bool
    group: str
    is_path: bool

    @property
    def field(self) -> str:
        return self.name.lower()


def _setting(
    default: str | None,
    help_: str,
    parse: Callable[[str], Any] = str,
    *,
    secret: bool = False,
    shown: bool = True,
    group: str = "everyday",
    is_path: bool = False,
) -> Any:
    """A field of `Settings` with its row of the table. shown: whether a `repr` includes it; never for a secret."""
    row = {"default": default, "help": help_, "parse": parse, "secret": secret, "group": group, "is_path": is_path}
    return field(repr=shown and not secret, metadata=row)


_advanced: Final = partial(_setting, group="advanced")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `load` returns. Each field has its setting's name in lower case; durations are in milliseconds.

    problems: what is wrong without keeping the bridge from starting. environ: the whole environment, for the `${NAME}`
    of mapping files.
    """

    datafast_api_key: str | None = _setting(
        None, "DataFast website key (df_…) or account token (dft_…); goals wait until it is set", api_key, secret=True
    )
    datafast_website_id: str | None = _setting(None, "the website's id (24 hex digits); needed with a dft_… token")
    datafast_test_api_key: str | None = _setting(
        None, "key of a second website for test-mode events", api_key, secret=True
    )
    datafast_api_url: str = _setting(
        "https://datafa.st/api/v1",
        "base URL of DataFast; https, except on loopback",
        _api_url,
        shown=False,  # it may hold a password
    )
    database_url: str = _setting(
        "sqlite:///bridge.db",
        "the database: SQLite (three slashes, then the file) or PostgreSQL (only libpq's own options)",
        _database_url,
        secret=True,
    )
    bridge_mappings: str = _setting("mappings", "folder of mapping files (not its sub-folders)", is_path=True)
    stripe_api_key: str | None = _setting(
        None,
        "restricted Stripe key (rk_live_…), to look up customers from before the bridge; unset: no lookups",
        _stripe_key,
        secret=True,
    )
    bridge_worker: str = _setting(
        "inline", "inline: a worker thread in every web process; off: run `worker` processes", _one_of("inline", "off")
    )
    bridge_admin_token: str | None = _setting(
        None,
        "token for the console (16 characters or more), /metrics, POST /links/<source> and the details of /status",
        secret=True,
    )
    bridge_links_token: str | None = _setting(None, "token for POST /links/<source> only", secret=True)
    bridge_retention_days: int = _setting(
        "30",
        "days to keep bodies and attempts; 0: until their goals are final",
        _whole(0, 99_999, "a number of days, 0 or more"),
    )
    bridge_visitor_id: str = _setting(
        "uuid4", "format of a visitor id: uuid4, or any (cookieless sites)", _one_of("uuid4", "any")
    )
    bridge_log_format: str = _setting(
        "auto", "auto: console on a terminal, json otherwise", _one_of("auto", "console", "json")
    )
    bridge_allow_ephemeral: bool = _setting(
        None, "1: allow SQLite on a host that wipes its disks, because the file is on a persistent volume", _flag
    )
    bridge_alerts: tuple[str, ...] = _setting(
        None,
        "apprise URLs, separated by spaces, for messages when a problem begins or ends, and about goals with `notify`",
        _alert_urls,
        secret=True,
    )
    port: int = _setting("8000", "port of the web process", _whole(0, 65_535, "a port number from 0 to 65535"))
    bridge_host: str = _setting(
        LOCALHOST, "address of the web process; if unset where a platform sets PORT, 0.0.0.0 (all interfaces)"
    )
    bridge_processes: int = _setting("1", "web processes", _up_to(256))
    bridge_threads: int = _setting("32", "maximum number of threads for pages, per web process", _up_to(1_024))
    bridge_rate_per_minute: int = _advanced("58", "requests per minute for each DataFast token", _up_to(1_000_000))
    bridge_concurrency: int = _advanced("2", "requests to DataFast in flight, per process", _up_to(256))
    bridge_retry_schedule: Schedule = _advanced(  # noqa: RUF009 - a field, and frozen
        "5s,30s,2min,10min,30min,1h,2h,4h,6h...72h", "delays after failed attempts", _schedule
    )
    bridge_unknown_visitor_schedule: Schedule = _advanced(  # noqa: RUF009 - a field, and frozen
        "30s,2min,10min,1h", "delays while DataFast does not know the visitor yet", _schedule
    )
    bridge_readback: tuple[int, int] = _advanced(
        "30s,60s", "delay before the first read-back, and before the second", _pair
    )
    bridge_unconfirmed: str = _advanced(
        "resend", "what to do if nobody can tell whether a goal arrived: resend, or hold", _one_of("resend", "hold")
    )
    bridge_lease: int = _advanced("60s", "how long a claim lasts (at least twice the deadline)", _at_most("1d"))
    bridge_deadline: int = _advanced("10s", "time limit for one request to DataFast", _at_most("1h"))
    bridge_request_deadline: int = _advanced("10s", "time limit for one inbound request", _at_most("1h"))
    bridge_park: int = _advanced("96h", "how long a goal waits for its visitor", _at_most(_FOREVER))
    bridge_weak_after: int = _advanced(
        "2min", "how long a goal waits before its customer's visitor counts", _at_most(_FOREVER)
    )
    bridge_max_age: int = _advanced(
        "7d", "goals older than this are not sent, because DataFast would date them today", _at_most(_FOREVER)
    )
    bridge_customer_visitor: str = _advanced(
        "latest", "which visitor of a customer counts: latest, or first", _one_of("latest", "first")
    )
    bridge_match_user: str = _advanced(
        "on", "find visitors by your app's user ids, across sources", _one_of("on", "off")
    )
    bridge_match_email: str = _advanced(
        "off", "also find visitors by the hash of an e-mail address (docs/privacy.md)", _one_of("on", "off")
    )
    bridge_attribution_alarm: float = _advanced(
        "0.5",
        "alarm when fewer than this share of a source's last purchases, sign-ups and so on have a visitor; or off",
        _share,
    )
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)


TABLE: Final = tuple(Setting(row.name.upper(), **row.metadata) for row in fields(Settings) if row.metadata)


def mask(value: str) -> str:
    """The form in which a secret may be shown: only its kind and length."""
    kind = re.match(r"(df|dft|dfid|sk|rk|pk|we|acct|whsec)_", value)
    return f"{kind[0] if kind else ''}… ({len(value)} characters)"


_SECRETS: Final = re.compile(r"whsec_|[srp]k_|dft?_|pdl_|polar_")
_HOLDS_MORE: Final = re.compile(r"[@?#]|%40|//[^/]*:[^/]*[^\d/]")  # more than a host's address: a password, a token
_SHOWN_MAX: Final = 60


def _shown(text: str, *, secret: bool) -> str:
    """A wrong value as a message shows it: masked if it is a secret, or looks like one in the wrong place."""
    if secret or _HOLDS_MORE.search(text) or _SECRETS.search(text):
        return mask(text)
    return repr(text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…")


def _require_plain(setting: Setting, text: str) -> None:
    """Raise WrongPart for control characters and for bytes that are not UTF-8: they cannot be sent or encoded."""
    if not setting.is_path and any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise WrongPart("it holds a control character, or bytes that are not UTF-8: write it again")


def load(environ: Mapping[str, str]) -> Settings:
    """Read every setting from an environment. Raises one SettingsError that lists all problems."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for setting in TABLE:
        text = environ.get(setting.name, "").strip() or setting.default
        values[setting.field] = None
        try:
            _require_plain(setting, text or "")
            values[setting.field] = None if text is None else setting.parse(text)
        except WrongKind as error:
            problems.append(f"{setting.name} is {mask(text or '')}: {error}")
        except WrongPart as error:
            problems.append(f"{setting.name}: {error}")
        except ValueError as error:
            problems.append(f"{setting.name} is {_shown(text or '', secret=setting.secret)}, but must be {error}")
    if environ.get("PORT", "").strip() and not environ.get("BRIDGE_HOST", "").strip():
        values["bridge_host"] = ALL_INTERFACES
    values["bridge_allow_ephemeral"] = bool(values["bridge_allow_ephemeral"])
    values["bridge_alerts"] = values["bridge_alerts"] or ()
    problems += _combinations(environ, values)
    if problems:
        raise SettingsError(problems)
    return Settings(
        **values, problems=tuple(_short_token(values)), warnings=tuple(_warnings(values)), environ=dict(environ)
    )


def _short_token(values: Mapping[str, Any]) -> Iterator[str]:
    """Report a short token. It does not stop the start: it gave access to `/status` before the console existed."""
    token = values["bridge_admin_token"]
    if token and len(token) < CONSOLE_TOKEN_MIN:
        yield (
            f"BRIDGE_ADMIN_TOKEN has fewer than {CONSOLE_TOKEN_MIN} characters, so the console is off: set a long"
            " random token, such as `openssl rand -hex 32` prints"
        )


def _combinations(environ: Mapping[str, str], values: Mapping[str, Any]) -> list[str]:
    """The problems that concern two settings together."""
    problems = []
    key, website = values["datafast_api_key"], values["datafast_website_id"]
    if key and key.startswith("dft_") and not website:
        problems.append(
            "DATAFAST_API_KEY is an account token (dft_…), which needs DATAFAST_WEBSITE_ID: 24 hex digits, in the"
            " website's settings"
        )
    if website and not re.fullmatch(r"[0-9a-fA-F]{24}", website):
        problems.append(
            f"DATAFAST_WEBSITE_ID is {_shown(website, secret=False)}, but must be 24 hex digits (not the dfid_… of the"
            " script tag)"
        )
    lease, deadline = values["bridge_lease"], values["bridge_deadline"]
    if lease and deadline and lease < 2 * deadline:
        problems.append(
            f"BRIDGE_LEASE is {duration_text(lease)}, but must be at least twice BRIDGE_DEADLINE"
            f" ({duration_text(deadline)})"
        )
    host = hosts.host_of(environ)
    if host is not None and not values["bridge_allow_ephemeral"]:
        problems += _wiped(values["database_url"] or "", host, environ)
    return problems


def _wiped(url: str, host: hosts.Host, environ: Mapping[str, str]) -> Iterator[str]:
    file = database_url.sqlite_file(url)
    if url.startswith("sqlite") and not hosts.lasts(None if file is None else PurePosixPath(file), host, environ):
        yield (
            f"DATABASE_URL is a file, but {host.name} wipes the disk on every deploy and restart:"
            f" {host.instead}, or set BRIDGE_ALLOW_EPHEMERAL=1 if the file is on a persistent volume"
        )


def _warnings(values: Mapping[str, Any]) -> list[str]:
    warnings = []
    if not values["datafast_api_key"]:
        warnings.append("DATAFAST_API_KEY is not set: goals wait until it is set")
    if values["bridge_rate_per_minute"] > 60 and urlsplit(values["datafast_api_url"]).hostname == "datafa.st":
        warnings.append("BRIDGE_RATE_PER_MINUTE is above 60, which is what DataFast allows a token")
    if (values["stripe_api_key"] or "").startswith("sk_"):
        warnings.append(
            "STRIPE_API_KEY is a secret key, which may do everything: a restricted key that may read is enough"
        )
    return warnings


def read_environment(environ: Mapping[str, str], folder: Path | None = None) -> dict[str, str]:
    """The environment, completed from `.env`, which overrides nothing and is not read on a dyno (`DYNO` is set)."""
    if environ.get("DYNO"):
        return dict(environ)
    from dotenv import dotenv_values  # noqa: PLC0415 - only where a file may exist

    file = (folder or Path()) / ".env"
    try:
        from_file = dotenv_values(file) if file.is_file() else {}
    except OSError as error:
        raise SettingsError([f".env cannot be read ({os_reason(error)}): fix it, or remove it"]) from None
    except UnicodeError:
        raise SettingsError([".env is not UTF-8: save it as UTF-8, or remove it"]) from None
    found = {name: value for name, value in from_file.items() if value is not None}
    if found.get("PORT") and not environ.get("PORT"):
        found.setdefault("BRIDGE_HOST", LOCALHOST)  # a port set in .env is not a platform's
    return {**found, **environ}
