"""Rendering of pages: the values that every template has, the headers of every answer, and errors as pages.

The stylesheet and scripts are here, too: each under a name that changes with its content, so that browsers may cache it
permanently. They are the only answers of the console that need no session, and are compressed once per process.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import hashlib
import io
import re
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flask import Response, g, render_template, request, url_for
from flask.templating import Environment
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException, NotFound

from bridge import logs, masking, sources
from bridge.errors import BridgeError, StoreError
from bridge.server import give_back_memory
from bridge.server.framing import BODY_LIMIT
from bridge.store.operator import activity, changes
from bridge.web.messages import plain
from bridge.workbench.describe import state_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flask import Blueprint
    from flask.blueprints import BlueprintSetupState
    from sqlalchemy import Connection

    from bridge.app import Bridge
    from bridge.web.console.session import Sessions

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
SHORT: Final = 120  # characters of a value in a list
_TYPES: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}

log = logs.get("console")


class NavItem(NamedTuple):
    """A page in the navigation. key: the name that a page passes as `here`."""

    key: str
    label: str
    path: str


NAVIGATION: Final = (
    NavItem("home", "Home", "/console/"),
    NavItem("activity", "Activity", "/console/activity"),
    NavItem("people", "People", "/console/people"),
    NavItem("rules", "Rules", "/console/rules"),
    NavItem("sources", "Sources", "/console/sources"),
)


def page(template: str, *, title: str, here: str = "", code: int = 200, **values: Any) -> Response:
    """A whole page. title: its heading; here: the key of its place in the navigation."""
    return Response(render_template(template, title=title, here=here, **values), code)


def fragment(template: str, **values: Any) -> Response:
    """A part of a page that htmx swaps in."""
    return Response(render_template(template, **values))


def notice(sentence: str) -> None:
    """Show this notice on the next page of the session."""
    sessions: Sessions = g.sessions
    sessions.leave_notice(sentence)


class Done(NamedTuple):
    """What a person did, in a sentence. more: what else the notice says; nothing: whether nothing was done."""

    about: str
    sentence: str
    more: str = ""
    nothing: bool = False


def change(bridge: Bridge, action: str, work: Callable[[Connection], Done]) -> Done:
    """Do what a person asked for, with its row of recent changes, in one transaction; then say so and log it."""

    def worked(conn: Connection) -> Done:
        done = work(conn)
        if not done.nothing:
            changes.record(conn, action, done.about, done.sentence)
        return done

    done = bridge.store.run(worked)
    if not done.nothing:
        bridge.wake()
        changed(action, done.about, done.sentence)
    notice(f"{done.sentence} {done.more}".rstrip())
    return done


def changed(action: str, about: str, sentence: str) -> None:
    """Log what a person changed."""
    log.info("console.changed", what=action, about=about, sentence=sentence, address=request.remote_addr)


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Lines of a CSV file. Spreadsheets take no string in it for a formula, whatever an event contained."""
    text = io.StringIO()
    csv.writer(text).writerows([[_inert(cell) for cell in row] for row in rows])
    return text.getvalue()


def _inert(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    return f"'{visible(cell)}" if _FORMULA.match(cell) else visible(cell)


_FORMULA: Final = re.compile("\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]| *[\t\r\n]")  # \uff1d to \uff20: their wide forms


# ------------------------------------------------------------------------------------------------------ templates


def at(ms: int | None) -> str:
    """A time in machine-readable form: `2026-11-28T12:03:07.123Z`."""
    return "" if ms is None else _utc(ms).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def utc(ms: int, *, precise: bool = False) -> str:
    """A time for people without JavaScript: `2026-11-28 12:03:07 UTC`."""
    return _utc(ms).strftime("%Y-%m-%d %H:%M:%S") + (f".{ms % 1000:03d}" if precise else "") + " UTC"


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)


def dated(text: str) -> Iterator[tuple[str, int | None]]:
    """A sentence in parts, each with None; a time in it (as `bridge.text.when` writes it) is a part of its own."""
    end = 0
    for match in _MOMENT.finditer(text):
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
            yield text[end : match.start()], None
            yield match[0], round(moment.timestamp()) * 1000
            end = match.end()
    yield text[end:], None


_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", re.ASCII)


def short(value: object, limit: int = SHORT) -> str:
    """The beginning of a value that may be long, on one line."""
    text = " ".join(str(value)[: 4 * limit].split())
    return text if len(text) <= limit and len(str(value)) <= 4 * limit else text[: limit - 1] + "…"


def visible(value: object) -> str:
    """Replace characters that could change how the text around them is read: controls, and overrides of direction."""
    text = str(value)
    return text if text.isprintable() else "".join(map(_shown, text))  # most have no such character


def _shown(char: str) -> str:
    if char in "\n\t" or char.isprintable():  # no override of direction is
        return char
    return (
        "\N{SYMBOL FOR DELETE}"
        if char == "\x7f"
        else chr(0x2400 + ord(char))
        if char < " "
        else "\N{REPLACEMENT CHARACTER}"
    )


_TONES: Final = {  # of events, and of deliveries where no goal has a state of this name
    **dict.fromkeys(("received", "throttled", "not_sent", "refused_for_now", activity.UNDER_WAY), "wait"),
    **dict.fromkeys(("quarantined", "configuration", "unknown_visitor"), "bad"),
    "found": "ok",
}


def tone(state: str | None) -> str:
    """The colour class for a state of an event, goal or delivery: ok | wait | bad | mute. None: it is in progress."""
    name = state or activity.UNDER_WAY
    return state_kind(name) or _TONES.get(name, "mute")


def hider(bridge: Bridge) -> Callable[[str], str]:
    """A sentence without the sources' secrets and without e-mail addresses."""
    known = {secret for source in bridge.rules.sources.values() for secret in sources.unshowable(source)}
    secrets = sorted(known, key=len, reverse=True)
    return lambda text: masking.without_addresses(masking.hidden(text, secrets))


class _Templates(Environment):
    """Gives memory back after compiling a template, on first use: that takes many times the memory it keeps."""

    def compile(self, *args: Any, **options: Any) -> Any:
        try:
            return super().compile(*args, **options)
        finally:
            give_back_memory()


def register(routes: Blueprint, sessions: Sessions) -> None:
    """Register what every page of the blueprint shares."""
    routes.add_url_rule("/static/<digest>/<name>", "static_file", _static_file)

    @routes.record
    def prepare(state: BlueprintSetupState) -> None:
        state.app.jinja_environment = _Templates
        state.app.jinja_options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
        state.app.jinja_env.filters.update(at=at, utc=utc, dated=dated, short=short, visible=visible, tone=tone)

    @routes.before_request
    def begin() -> None:
        g.sessions = sessions
        request.max_content_length = request.max_form_memory_size = BODY_LIMIT

    @routes.context_processor
    def shared() -> dict[str, Any]:
        return {
            "csrf_token": g.get("csrf"),
            "take_notice": _take_notice,
            "navigation": NAVIGATION,
            "static_address": lambda name: url_for("console.static_file", digest=_static(name).digest, name=name),
            "static_integrity": lambda name: _static(name).integrity,
        }

    @routes.after_request
    def guard(answer: Response) -> Response:
        answer.headers.setdefault("Content-Security-Policy", POLICY)
        if g.pop("notice_was_shown", False):  # not while the page is rendered, which may happen within a read
            sessions.leave_notice(None)
        return answer

    @routes.route("/<path:rest>")
    def nothing_here(rest: str) -> Response:  # noqa: ARG001 - every address that no page has
        raise NotFound

    routes.register_error_handler(HTTPException, _as_page)
    routes.register_error_handler(BridgeError, _not_done)
    routes.register_error_handler(StoreError, _no_database)
    routes.register_error_handler(Exception, _failed)


class StaticFile(NamedTuple):
    """integrity: as browsers check it (`sha384-…`)."""

    content: bytes
    packed: bytes
    digest: str
    integrity: str


@lru_cache(maxsize=len(_TYPES))
def _static(name: str) -> StaticFile:
    content = files("bridge.web.console").joinpath("static", name).read_bytes()
    digest = hashlib.sha384(content).digest()
    integrity = f"sha384-{base64.b64encode(digest).decode()}"
    return StaticFile(content, gzip.compress(content, 9, mtime=0), digest.hex()[:16], integrity)


def _static_file(digest: str, name: str) -> Response:
    if name not in _TYPES or _static(name).digest != digest:
        return plain(404, "There is no file of this name. Reload the page.")
    found = _static(name)
    answer = Response(found.content, headers=_FOR_EVER, content_type=_TYPES[name])
    if request.accept_encodings.quality("gzip"):
        answer.set_data(found.packed)
        answer.content_encoding = "gzip"
    return answer


def _take_notice() -> str | None:
    """Take the session's notice, which is shown once."""
    sentence: str | None = g.get("notice")
    if sentence is not None:
        g.notice, g.notice_was_shown = None, True
    return sentence


def _as_page(error: HTTPException) -> Response:
    code = error.code or 500
    sentence = _SENTENCES.get(code, f"{error.name}.")
    return page("error.html", title=_TITLES.get(code, error.name), code=code, problem=sentence)


_TITLES: Final = {404: "There is nothing here", 405: "This was not done", 413: "This is too large"}
_SENTENCES: Final = {
    404: "No page of the console has this address, or what it was about is no longer stored.",
    405: "Nothing can be sent to this address in this way. Go back, and use the page's own buttons.",
    413: "That was more than 1 MiB, which is the most that the bridge takes.",
}


def _not_done(error: BridgeError) -> Response:
    return page("error.html", title="This was not done", code=400, problem=str(error))


def _no_database(error: StoreError) -> Response:
    answer = page("error.html", title="The database cannot be used", code=503, problem=str(error))
    answer.headers["Retry-After"] = "5"
    return answer


def _failed(error: Exception) -> Response:
    """Answer an unexpected error. Its message may quote the request, so only its kind is logged."""
    log.error("request.failed", error=logs.where(error))
    problem = "This is an error of the bridge's own; its log has it as `request.failed`. Go back and try again."
    return page("error.html", title="Something went wrong", code=503, problem=problem)
