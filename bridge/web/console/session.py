"""Sign-in by the admin token, the session's cookie, and the token that every change must carry.

The cookie holds 32 random bytes. The database knows their hash, so that a copy of it gives no access, and every process
finds the same session. The token in forms (`csrf_token`) is derived from the cookie and valid only for this session.
Whether the cookie is `Secure` follows from the Host that the browser asked for; no header of a proxy is read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from flask import Blueprint, Response, g, redirect, render_template, request, url_for

from bridge import logs
from bridge.store.operator import sessions
from bridge.web import auth
from bridge.web.console.rendering import page

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from werkzeug.wrappers import Response as AnyResponse

    from bridge.app import Bridge

COOKIE: Final = "bridge_session"
FORM_COOKIE: Final = "bridge_sign_in"  # until there is a session
PATH: Final = "/console"
_OPEN: Final = frozenset({"console.sign_in", "console.sign_in_sent", "console.static_file"})

log = logs.get("console")


class Sessions:
    """The sessions of a bridge, for use by requests."""

    def __init__(self, bridge: Bridge) -> None:
        self._store = bridge.store
        token = bridge.settings.bridge_admin_token
        if token is None:
            raise ValueError("the console needs an admin token")
        self._token = token.encode()

    # ----------------------------------------------------------------------------------------------------- requests

    def admit(self) -> ResponseReturnValue | None:
        """Runs before each request: redirects to sign-in without a session, and refuses changes without the token."""
        if request.endpoint in _OPEN:
            return None
        if not self._is_signed_in():
            return self._turned_away()
        if request.method == "POST" and not _same(request.form.get("csrf_token", ""), g.csrf):
            return refused("This form does not belong to your session. Go back, reload the page, and try again.")
        return None

    def _is_signed_in(self) -> bool:
        cookie = request.cookies.get(COOKIE, "")
        if not cookie:
            return False
        id_ = _id(cookie)
        with self._store.read(quick=True) as conn:
            found = sessions.find(conn, id_)
        if found is None or not _same(found.proof, self._proof(cookie)):
            return False
        if found.stale:
            self._store.run(lambda conn: sessions.touch(conn, id_))
        g.csrf, g.session_id, g.notice = _derived(cookie.encode(), b"csrf"), id_, found.notice
        return True

    def _turned_away(self) -> ResponseReturnValue:
        if request.headers.get("HX-Request"):  # a fragment of a page that was open when the session ended
            return Response(status=401, headers={"HX-Redirect": url_for("console.sign_in")})
        if request.method not in ("GET", "HEAD"):
            return refused("You are not signed in. Sign in, and try again.", 401)
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A link in a message: a browser keeps a SameSite=Strict cookie back, until a page of ours asks.
            return Response(render_template("bounce.html", here=_here()), headers={"Refresh": "0"})
        return redirect(url_for("console.sign_in", next=_here()), 303)

    # ------------------------------------------------------------------------------------------------------ sign-in

    def show_form(self) -> ResponseReturnValue:
        """The form. `kept`: someone signed in just now, and the browser did not send the cookie back."""
        if self._is_signed_in():
            return redirect(_next(), 303)
        problem = None
        if request.args.get("kept"):
            problem = (
                "Your browser did not keep the session's cookie. It is sent over https only, except to this machine"
                " itself: open the console by its https address, and allow cookies."
            )
        return self._form(problem, 400 if problem else 200)

    def sign_in(self) -> ResponseReturnValue:
        """Check the token of the form. A wrong one is counted and its answer delayed; a right one never waits."""
        if not _same(request.form.get("csrf_token", ""), self._form_token(request.cookies.get(FORM_COOKIE, ""))):
            return self._form("This form was too old. Try again.", 403)
        if not auth.is_right(request.form.get("token", "").strip().encode(), self._token):
            g.wrong_token = True
            return self._form("This is not the admin token (BRIDGE_ADMIN_TOKEN).", 401)
        cookie = secrets.token_urlsafe(32)
        self._store.run(lambda conn: sessions.begin(conn, _id(cookie), self._proof(cookie)))
        log.info("console.signed_in", address=request.remote_addr)
        answer = redirect(url_for("console.sign_in", kept=1, next=_next()), 303)
        _set_cookie(answer, COOKIE, cookie)
        _set_cookie(answer, FORM_COOKIE, "")
        return answer

    def sign_out(self) -> ResponseReturnValue:
        """End this session everywhere."""
        self._store.run(lambda conn: sessions.end(conn, g.session_id))
        log.info("console.signed_out", address=request.remote_addr)
        answer = redirect(url_for("console.sign_in"), 303)
        _set_cookie(answer, COOKIE, "")
        return answer

    def leave_notice(self, sentence: str | None) -> None:
        """Leave a notice that the next page of this session shows once."""
        self._store.run(lambda conn: sessions.leave_notice(conn, g.session_id, sentence))

    def _form(self, problem: str | None, code: int) -> ResponseReturnValue:
        cookie = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(32)
        page = render_template("sign_in.html", problem=problem, csrf=self._form_token(cookie), next=_next())
        answer = Response(page, code)
        _set_cookie(answer, FORM_COOKIE, cookie)
        return answer

    # ------------------------------------------------------------------------------------------------------- proofs

    def _proof(self, cookie: str) -> str:
        """A proof of the token that does not help to guess it: only the browser knows its key."""
        return _derived(cookie.encode(), self._token)

    def _form_token(self, cookie: str) -> str:
        return _derived(hashlib.sha256(b"sign-in" + self._token).digest(), cookie.encode())


def register(routes: Blueprint, found: Sessions) -> None:
    """Register sign-in, sign-out, and the check of every request."""
    routes.before_request(found.admit)
    routes.add_url_rule("/sign-in", "sign_in", found.show_form)
    routes.add_url_rule("/sign-in", "sign_in_sent", found.sign_in, methods=["POST"])
    routes.add_url_rule("/sign-out", "sign_out", found.sign_out, methods=["POST"])


def refused(sentence: str, code: int = 403) -> Response:
    """The answer to a change that is refused."""
    return page("error.html", title="This was not done", code=code, problem=sentence)


def _next() -> str:
    """Where to go after sign-in: always a page of the console, whatever the URL says."""
    target = request.values.get("next", "")
    is_ours = target.startswith(f"{PATH}/") and not target.startswith(f"{PATH}/sign-")
    return target if is_ours and target.isprintable() and "\\" not in target else f"{PATH}/"


def _here() -> str:
    return request.full_path.rstrip("?")


def _set_cookie(answer: AnyResponse, name: str, value: str) -> None:
    secure = not auth.names_this_machine(request.environ.get("HTTP_HOST", ""))
    age = None if value else 0  # an empty cookie is removed
    answer.set_cookie(name, value, max_age=age, path=PATH, httponly=True, samesite="Strict", secure=secure)


def _id(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).hexdigest()


def _derived(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())
