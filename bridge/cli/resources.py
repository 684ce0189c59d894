"""What commands open before they can work: the environment, the settings, the store, the mapping files.

Read-only commands never create or change a database: if it is missing or older, they say which command to run.
A command that needs only the database does not check the other settings.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bridge import settings as settings_
from bridge.errors import BridgeError, SchemaError, SettingsError, StoreUnavailable, UsageError
from bridge.settings import Settings, database_file, hosts
from bridge.settings import database_url as database_url_
from bridge.text import listing

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.cli.parameters import Point
    from bridge.model import Source
    from bridge.rules import RuleSet
    from bridge.store import Store

CONNECTION_S: Final = 10.0  # how long a command waits for the one connection that it needs
MIGRATE: Final = "python -m bridge migrate"
_FOR_DATABASE: Final = ("DATABASE_URL", "BRIDGE_ALLOW_EPHEMERAL", "BRIDGE_RETENTION_DAYS")


def environ() -> dict[str, str]:
    """The environment, which overrides `.env`."""
    return settings_.read_environment(os.environ)


def settings() -> Settings:
    """All settings; SettingsError names every problem."""
    loaded = settings_.load(environ())
    require_usable(loaded.database_url)
    return loaded


def settings_or_defaults(warn: Callable[[str], None] = lambda _problem: None) -> Settings:
    """The settings, or the defaults if any setting is wrong: for commands that answer another question.

    warn: called with each problem.
    """
    given = environ()
    try:
        return settings_.load(given)
    except SettingsError as error:
        for problem in error.problems:
            warn(problem)
        return settings_.load({})


def database_url() -> str:
    """Only `DATABASE_URL`, whatever else is wrong."""
    kept = {name: value for name, value in environ().items() if name in _FOR_DATABASE or hosts.is_host_variable(name)}
    url = settings_.load(kept).database_url
    require_usable(url)
    return url


def require_usable(url: str) -> None:
    """SettingsError if the file of a SQLite database can never be opened; a server may come back at any time."""
    reason = database_file.unusable(url)
    if reason is not None:
        raise SettingsError([f"DATABASE_URL: {reason}"])


def now_ms() -> int:
    """The time by this machine's clock, to say how long ago something was."""
    return time.time_ns() // 1_000_000


def mappings_folder() -> Path:
    """The folder of mapping files."""
    return Path(environ().get("BRIDGE_MAPPINGS", "").strip() or "mappings")


def load_rules(folder: Path | None = None) -> RuleSet:
    """Compile the mapping files of a folder (by default BRIDGE_MAPPINGS); MappingError names every problem."""
    from bridge import rules

    folder = folder or mappings_folder()
    return compile_rules(rules.read_files(folder), str(folder))


def compile_rules(files: Mapping[str, str], folder: str) -> RuleSet:
    """Compile mapping files (name -> text). folder: the folder that messages name."""
    from bridge import loading, sources

    return loading.load(files, environ(), sources.presets(), folder=folder)


def source(rule_set: RuleSet, name: str) -> Source:
    """The source of this name; UsageError unless it has a mapping file."""
    if name not in rule_set.sources:
        raise UsageError(f"There is no source {name!r}; there are {listing(sorted(rule_set.sources))}.")
    return rule_set.sources[name]


def only_source(rule_set: RuleSet) -> str:
    """The only source; UsageError if there are several to choose from."""
    names = sorted(rule_set.sources)
    if len(names) != 1:
        raise UsageError(f"Name the source that would receive it with --source: {listing(names)}.")
    return names[0]


@contextmanager
def store() -> Iterator[Store]:
    """The store as it is; if it cannot be used, SchemaError or StoreUnavailable says what to do."""
    with closing(_open()) as opened:
        yield opened


@contextmanager
def infrequent_gc() -> Iterator[None]:
    """Collect garbage rarely: for work on thousands of events, which leave next to nothing to collect.

    Otherwise the collector scans all rules and modules again and again, which takes a third of the time.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def _open(patience_s: float = CONNECTION_S) -> Store:
    url = database_url()
    _require_file(url)
    from bridge import store as store_

    opened = store_.open(url, pool_size=1, patience_s=patience_s)
    try:
        _require_current(store_.schema_state(opened))
    except BaseException:
        opened.close()
        raise
    return opened


@contextmanager
def maybe_store(patience_s: float = CONNECTION_S) -> Iterator[tuple[Store | None, BridgeError | None]]:
    """The store, or the reason why there is none."""
    try:
        opened = _open(patience_s)
    except BridgeError as error:
        yield None, error
        return
    with closing(opened):
        yield opened, None


def since_ms(conn: Connection, since: int | None) -> int | None:
    """The time this many ms before the database's current time; None: no start."""
    from bridge.store import clock

    return None if since is None else clock.read_ms(conn) - since


def until_ms(conn: Connection, until: Point | None) -> int | None:
    """A point in time, perhaps relative to the database's current time, in ms since 1970; None: no end."""
    from bridge.store import clock

    return None if until is None else until.at(clock.read_ms(conn))


def all_matching(page_of: Callable[[Any], list[Any]], wanted: Any) -> list[Any]:
    """All events or goals that match a filter, the oldest first."""
    found: list[Any] = []
    while page := page_of(replace(wanted, limit=1000)):
        found += page
        wanted = replace(wanted, before=page[-1].id)
    return found[::-1]


def _require_file(url: str) -> None:
    """Opening a missing SQLite file would create it, and a command that only reads must not leave a file behind."""
    file = database_url_.sqlite_file(url)
    if file is None or file.exists():
        return
    if file.with_name(f"{file.name}-wal").exists():
        raise StoreUnavailable(
            f"The database {file} is gone, but its log {file.name}-wal is still there: was the file moved or deleted"
            " while the bridge was running? Do not stop the bridge yet: docs/operations.md (The SQLite file) says how"
            " to save it."
        )
    raise StoreUnavailable(
        f"There is no database at {file} yet. Start the bridge with `python -m bridge serve`, or create it with"
        f" `{MIGRATE}`; if it is elsewhere, set DATABASE_URL."
    )


def _require_current(state: str) -> None:
    """A newer schema is fine: until a later release, migrations only add to it."""
    if state in ("empty", "older"):
        problem = "is empty" if state == "empty" else "has an older schema than this release"
        raise SchemaError(f"The database {problem}. Run `{MIGRATE}`.")
