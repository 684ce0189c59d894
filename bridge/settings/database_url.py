"""`DATABASE_URL`, taken apart once: what SQLAlchemy and the drivers would refuse later is one sentence at once.

The URL is read as SQLAlchemy reads it, but without loading SQLAlchemy: processes that never open a database read the
settings, too. `canonical` names the wrong part and says what to do. No message shows a user, a password, or a value
that might be part of one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

EXAMPLE: Final = "sqlite:///bridge.db or postgresql://user:password@host/name"
_SCHEMES: Final = ("sqlite", "postgresql", "postgres")
_SQLITE_DRIVERS: Final = ("", "pysqlite")
_SCHEME: Final = re.compile(r"[A-Za-z][\w+.-]{0,39}", re.ASCII)
_URL: Final = re.compile(
    r"""(?P<scheme>[\w+]+)://
        (?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?
        (?:(?:\[(?P<ipv6>[^/?]+)\]|(?P<host>[^/:?]+))?(?::(?P<port>[^/?]*))?)?
        (?:/(?P<database>[^?]*))?
        (?:\?(?P<query>.*))?""",
    re.VERBOSE | re.DOTALL,
)  # SQLAlchemy's own grammar; a test compares the two
_QUOTES: Final = tuple("\"'`")
_TRUE: Final = ("true", "yes", "on", "y", "t", "1")
_BOOLEAN: Final = re.compile(r"true|false|yes|no|on|off|y|n|t|f|1|0", re.IGNORECASE)
_WHOLE_NUMBER: Final = re.compile(r"-?\d{1,9}", re.ASCII)
_OPTION: Final = re.compile(r"[A-Za-z_][\w.\[\]-]{0,39}", re.ASCII)

# What libpq knows: `psycopg.pq.Conninfo.get_defaults()`; a test compares.
LIBPQ: Final = frozenset(
    """
    service user password passfile channel_binding connect_timeout dbname host hostaddr port client_encoding
    options application_name fallback_application_name keepalives keepalives_idle keepalives_interval keepalives_count
    tcp_user_timeout sslmode sslnegotiation sslcompression sslcert sslkey sslcertmode sslpassword sslrootcert sslcrl
    sslcrldir sslsni requirepeer require_auth min_protocol_version max_protocol_version ssl_min_protocol_version
    ssl_max_protocol_version gssencmode krbsrvname gsslib gssdelegation replication target_session_attrs
    load_balance_hosts scram_client_key scram_server_key oauth_issuer oauth_client_id oauth_client_secret oauth_scope
    sslkeylogfile
    """.split()  # noqa: SIM905 - a list of words is read more easily
)
_WHOLE: Final = frozenset(
    {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
)
_ONE_OF: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "sslcertmode": ("disable", "allow", "require"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
}
_WRITABLE: Final = ("any", "read-write", "primary")  # the bridge writes, so no other server will do
# What hosts write into a URL for other clients. The bridge has settled it: one small pool, no prepared statements,
# time limits of its own in each transaction, UTF-8.
_SETTLED: Final = frozenset(
    """
    pgbouncer connection_limit pool_timeout socket_timeout statement_cache_size sslaccept max_idle_connection_lifetime
    supa workaround
    uselibpqcompat max min idleTimeoutMillis idle_timeout max_lifetime connectionTimeoutMillis query_timeout prepare
    statement_timeout lock_timeout idle_in_transaction_session_timeout keepAlive fallback_to_ssl
    prepareThreshold preparedStatementCacheQueries preparedStatementCacheSizeMiB reWriteBatchedInserts stringtype
    ApplicationName loginTimeout socketTimeout connectTimeout tcpKeepAlive sslfactory binaryTransfer
    pool prepared_statements encoding adapter reconnect advisory_locks checkout_timeout idle_timeout reaping_frequency
    pool_size max_overflow pool_recycle pool_pre_ping conn_max_age conn_health_checks ssl_require
    prepared_statement_cache_size command_timeout autocommit prepare_threshold
    binary_parameters default_query_exec_mode statement_cache_capacity statement_cache_mode pool_max_conns
    pool_min_conns pool_max_conn_lifetime pool_max_conn_idle_time pool_health_check_period pool_mode
    timezone TimeZone serverVersion charset client_encoding
    """.split()  # noqa: SIM905 - as above
)
_SCHEMAS: Final = ("schema", "currentSchema", "schema_search_path", "search_path")
_SSL_MODES: Final = {
    **{mode: mode for mode in _ONE_OF["sslmode"]},
    "no-verify": "require",
    "required": "require",
    "preferred": "prefer",
    "disabled": "disable",
    "verify_ca": "verify-ca",
    "verify_full": "verify-full",
    "verify_identity": "verify-full",
    **dict.fromkeys(("true", "1", "yes", "on"), "require"),
    **dict.fromkeys(("false", "0", "no", "off"), "disable"),
}
_SQLITE_OPTIONS: Final = {
    "uri": _BOOLEAN,
    "check_same_thread": _BOOLEAN,
    "timeout": re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII),
    "isolation_level": re.compile(r"\w*", re.ASCII),
    "detect_types": re.compile(r"\d{1,3}", re.ASCII),
    "cached_statements": re.compile(r"\d{1,6}", re.ASCII),
}
_SQLITE_URI: Final = ("mode", "cache", "vfs", "nolock", "immutable", "psow", "modeof")


@dataclass(frozen=True, slots=True)
class _Parts:
    scheme: str
    user: str
    password: str | None
    host: str
    port: str
    database: str
    options: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, match: re.Match[str]) -> _Parts:
        """What a URL says, with every %XX read."""
        return cls(
            match["scheme"],
            unquote(match["user"] or ""),
            None if match["password"] is None else unquote(match["password"]),
            match["host"] or match["ipv6"] or "",
            match["port"] or "",
            unquote(match["database"] or ""),
            tuple(parse_qsl(match["query"] or "")),
        )


def canonical(text: str) -> str:
    """The URL as SQLAlchemy takes it. ValueError: a sentence that names what is wrong with it, and what to do."""
    kind = _kind(text)
    match = _URL.fullmatch(text)
    if match is None or not _is_plain(text):
        raise ValueError(f"it holds a character that no URL has; write {EXAMPLE}, with %XX for special characters")
    parts = _Parts.of(match)
    if kind == "sqlite":
        _check_sqlite(parts)
        return text
    options = _options_for_libpq(parts.options)
    _check_server(replace(parts, options=options))
    if options != parts.options:
        query = f"?{urlencode(options, quote_via=quote)}" if options else ""
        text = text[: match.start("query") - 1] + query
    return "postgresql+psycopg" + text[len(parts.scheme) :]


def search_path(names: str) -> str:
    """The value of the option `schema` as SQL, with each name in quotes."""
    return ", ".join('"' + name.strip().strip('"').replace('"', '""') + '"' for name in names.split(","))


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for a database in memory, in a file system of its own (vfs), or on a server."""
    match = _URL.fullmatch(url)
    if match is None or not url.startswith("sqlite"):
        return None
    name = unquote(match["database"] or "")
    if name.startswith("file:"):  # SQLite's own URI
        options = dict(parse_qsl(match["query"] or ""))
        if options.get("mode") == "memory" or "vfs" in options:
            return None
        name = unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", name))
    return None if name in ("", ":memory:") else Path(name)


def _kind(text: str) -> str:
    """`sqlite`, `postgresql` or `postgres`."""
    scheme, separator, _ = text.partition("://")
    kind, _, driver = scheme.lower().partition("+")
    known = kind in _SCHEMES and (kind != "sqlite" or (scheme.islower() and driver in _SQLITE_DRIVERS))
    if separator and known and text[-1] not in _QUOTES:
        return kind
    raise ValueError(f"{_wrong_begin(text, scheme if separator else '')}; write {EXAMPLE}")


def _wrong_begin(text: str, scheme: str) -> str:
    if text[-1:] in _QUOTES:
        return "it has quotes around it: remove them"
    if scheme.lower().startswith("prisma"):
        return f"{scheme}:// is for Prisma's own client: take the direct URL (postgres://) from Prisma's console"
    if any(f"{known}://" in text[1:] for known in _SCHEMES):
        return "the URL has something before it, such as quotes or the variable's name: remove it"
    if re.match(r"sqlite3?:", text):
        return "a SQLite file is written with three slashes, or four where its path begins with one"
    if not _SCHEME.fullmatch(scheme):
        return "it does not begin like a database URL"
    similar = get_close_matches(scheme.lower(), _SCHEMES, 1)
    guess = f" (did you mean {similar[0]}://?)" if similar else ""
    return f"the bridge does not work with {scheme}://{guess}"


# ------------------------------------------------------------------------------------------------------------- SQLite


def _check_sqlite(parts: _Parts) -> None:
    if parts.user or parts.password or parts.host or parts.port:
        raise ValueError(
            "a SQLite file has no host: write three slashes (sqlite:///x.db), or four where the path begins with one"
            " (sqlite:////data/x.db)"
        )
    _check_plain(parts)
    if parts.database.startswith("file:") != _is_true(parts.options):
        raise ValueError('a path that begins with "file:" needs the option uri=true, and uri=true needs such a path')
    _require_known(parts, {*_SQLITE_OPTIONS, *(_SQLITE_URI if _is_true(parts.options) else ())}, "SQLite's driver")
    for name, value in parts.options:
        if name in _SQLITE_OPTIONS and not _SQLITE_OPTIONS[name].fullmatch(value):
            raise ValueError(f'the option "{name}" has a value that SQLite\'s driver cannot take: remove the option')
        if (name, value) in (("mode", "ro"), ("immutable", "1")):
            raise ValueError(f'the option "{name}" makes the database read-only, but the bridge writes: remove it')


def _is_true(options: Collection[tuple[str, str]]) -> bool:
    return any(name == "uri" and value.lower() in _TRUE for name, value in options)


# --------------------------------------------------------------------------------------------------------- PostgreSQL


def _check_server(parts: _Parts) -> None:
    if "@" in parts.host + parts.port or (parts.password is not None and "@" in parts.database):
        raise ValueError(
            'its password holds a special character: write %40 for "@", %3A for ":", %2F for "/" and %25 for "%"'
        )
    if "," in parts.host + parts.port:
        raise ValueError("several hosts are written as options: postgresql://user:password@/name?host=one&host=two")
    if "%" in parts.host:
        raise ValueError("the folder of a socket is written as an option: postgresql://user@/name?host=/run/postgresql")
    if any(character.isspace() for character in parts.host):
        raise ValueError("the name of its host holds white space")
    _check_plain(parts)
    if parts.port and not _is_port(parts.port):
        raise ValueError('its port (after the last ":") must be a number from 1 to 65535')
    _require_known(parts, {*LIBPQ, "schema"}, "PostgreSQL's own library")
    if problem := next(_wrong_values(parts.options), None):
        raise ValueError(problem)


def _options_for_libpq(options: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The options that PostgreSQL's library needs, by its names, and `schema`; ValueError for what cannot be kept."""
    if ("sslaccept", "strict") in options:
        raise ValueError('instead of "sslaccept=strict" write sslmode=verify-full&sslrootcert=system')
    says_mode = any(_folded(name) == "sslmode" for name, _ in options)
    return tuple(
        _renamed(name, value)
        for name, value in options
        if name not in _SETTLED and not (name == "ssl" and says_mode)  # which is more precise
    )


def _renamed(name: str, value: str) -> tuple[str, str]:
    if _folded(name) in ("ssl", "sslmode"):
        return "sslmode", _SSL_MODES.get(value.lower(), value)
    if name in _SCHEMAS:
        return "schema", value if name == "schema" or '"' in value else value.lower()  # as PostgreSQL reads names
    if name == "targetServerType":
        return "target_session_attrs", {"primary": "read-write", "master": "read-write"}.get(value, value)
    return name, value


def _folded(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def _is_port(text: str) -> bool:
    return re.fullmatch(r"\d{1,5}", text, re.ASCII) is not None and 0 < int(text) < 65_536


def _wrong_values(options: tuple[tuple[str, str], ...]) -> Iterator[str]:
    names = [name for name, _ in options]
    for name, value in options:
        if names.count(name) > 1 and name not in ("host", "port"):
            yield f'the option "{name}" appears twice: remove one of the two'
        elif name in _ONE_OF and value not in _ONE_OF[name]:
            yield f'the option "{name}" must be one of {", ".join(_ONE_OF[name])}'
        elif name in _WHOLE and not _WHOLE_NUMBER.fullmatch(value):
            yield f'the option "{name}" must be a whole number'
        elif name == "target_session_attrs" and value not in _WRITABLE:
            yield f'the option "{name}" must be one of {", ".join(_WRITABLE)}, because the bridge writes'
        elif name == "replication":
            yield 'the option "replication" is for copying databases: remove it'
        elif name == "schema" and not all(map(str.strip, value.split(","))):
            yield 'the option "schema" must be the name of a schema'
    if ("sslrootcert", "system") in options and dict(options).get("sslmode", "verify-full") != "verify-full":
        yield 'with "sslrootcert=system", the option "sslmode" must be verify-full'
    if not _addresses_fit([value for name, value in options if name == "host"], _ports(options)):
        yield 'the options "host" and "port" must be ?host=one:5432&host=two:5432, or ?host=one,two&port=5432,5433'


def _ports(options: tuple[tuple[str, str], ...]) -> list[str]:
    """The ports of the option `port`, which is given several times, or once with a list."""
    values = [value for name, value in options if name == "port"]
    return values if len(values) > 1 else [port for value in values for port in value.split(",")]


def _addresses_fit(hosts: list[str], ports: list[str]) -> bool:
    """Whether SQLAlchemy can pair them: several hosts have their own ports, and one may be a list with its ports."""
    if not all(port == "" or _is_port(port) for port in ports):
        return False
    if len(hosts) > 1:
        return not ports and all(map(_is_address, hosts))
    names = hosts[0].split(",") if hosts else []
    if len(names) == 1 and not ports:
        return names[0].count(":") > 1 or _is_address(names[0])
    plain = all(":" not in name or name.startswith("/") for name in names)
    return plain and (not ports or len(names) == len(ports) or (not names and len(ports) == 1))


def _is_address(text: str) -> bool:
    """A name, `name:port`, or the folder of a socket."""
    name, colon, port = text.partition(":")
    return bool(name) and not any(map(str.isspace, text)) and "," not in name and (not colon or _is_port(port))


# ----------------------------------------------------------------------------------------------------------- in common


def _is_plain(text: str) -> bool:
    """Whether it has no control characters and no lone surrogates, which no driver takes."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _check_plain(parts: _Parts) -> None:
    texts = (parts.user, parts.password or "", parts.database, *(text for pair in parts.options for text in pair))
    if not all(map(_is_plain, texts)):
        raise ValueError("it holds a character that no database takes, written with a percent sign")


def _require_known(parts: _Parts, known: Collection[str], library: str) -> None:
    """ValueError that names every unknown option in one sentence."""
    names = dict.fromkeys(name for name, _ in parts.options if name not in known)
    if not names:
        return
    unknown = [_named_option(name, known) for name in names]
    pronoun = "it" if len(unknown) == 1 else "them"
    raise ValueError(f"{library} does not know {' and '.join(unknown)}: take {pronoun} out of the URL")


def _named_option(name: str, known: Collection[str]) -> str:
    if not _OPTION.fullmatch(name):
        return "an option of this name"
    similar = next(iter(get_close_matches(name, sorted(known), 1)), None)
    guess = f" (did you mean {similar}?)" if similar else ""
    return f'the option "{name}"{guess}'
