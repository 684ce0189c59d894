"""A stand-in for the few calls of Stripe's API that a lookup makes: filtered lists, and objects by id.

It follows Stripe's documentation (authentication, permissions, error shapes, `expand`) with objects that are seeded
through `/__fake__/stripe`, and records the requests. A key sees only its own mode, and its own account or the one named
by `Stripe-Account`.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, current_app, jsonify, request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

stripe_api = Blueprint("stripe", __name__)
OWN: Final = "acct_sandbox"
_KEY: Final = re.compile(r"[rs]k_(live|test)_\w+")
_SECRET: Final = frozenset({"client_secret"})

# What each list has: the path, the name of its objects, the permission, the filters.
_LISTS: Final = {
    "checkout/sessions": (
        "checkout.session",
        "checkout_session",
        ("payment_intent", "subscription", "customer", "status", "payment_link"),
    ),
    "subscriptions": ("subscription", "subscription", ("customer", "price", "status")),
    "invoices": ("invoice", "invoice", ("customer", "subscription", "status")),
    "charges": ("charge", "charge", ("customer", "payment_intent")),
    "payment_intents": ("payment_intent", "payment_intent", ("customer",)),
    "invoice_payments": (
        "invoice_payment",
        "invoice",
        ("invoice", "status", "payment[type]", "payment[payment_intent]"),
    ),
}
_PAGING: Final = ("limit", "starting_after", "ending_before", "expand[]", "expand[0]")


@dataclass
class FailedAnswer:
    """The answer to the next requests, whatever they ask; hang_ms: how long each waits first."""

    status: int
    times: int = 1
    retry_after_s: int = 0
    hang_ms: int = 0


@dataclass
class StripeWorld:
    """What the stand-in knows. permissions: of a key; a key that is not listed may read everything."""

    objects: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)  # (account, id)
    permissions: dict[str, Sequence[str] | None] = field(default_factory=dict)
    accounts: set[str] = field(default_factory=lambda: {OWN})  # that keys have access to
    requests: list[dict[str, Any]] = field(default_factory=list)
    failures: list[FailedAnswer] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def seed(self, things: Iterable[Mapping[str, Any]], account: str = OWN) -> None:
        """Seed objects of an account; an object replaces another with the same id."""
        with self.lock:
            self.accounts.add(account)
            self.objects.update({(account, thing["id"]): thing for thing in things})

    def fail(self, status: int, times: int = 1, **more: int) -> None:
        with self.lock:
            self.failures.append(FailedAnswer(status, times, **more))

    def failure(self) -> FailedAnswer | None:
        with self.lock:
            for failure in self.failures:
                if failure.times > 0:
                    failure.times -= 1
                    return failure
        return None

    def asked(self) -> list[str]:
        """Every request as `path?query`, oldest first."""
        return [f"{row['path']}?{row['query']}" if row["query"] else row["path"] for row in list(self.requests)]


def stripe_world() -> StripeWorld:
    """The world of the current application."""
    found: StripeWorld = current_app.extensions["sandbox.stripe"]
    return found


class _Refusal(Exception):
    def __init__(self, status: int, message: str, **more: str) -> None:
        super().__init__(message)
        self.status, self.error = status, {"message": message, "type": "invalid_request_error", **more}


@stripe_api.errorhandler(_Refusal)
def _refused(refusal: _Refusal) -> tuple[Response, int]:
    return jsonify({"error": refusal.error}), refusal.status


# ---------------------------------------------------------------------------------------------------------- routes


@stripe_api.get("/v1/<path:place>")
def get(place: str) -> Any:
    """Return a list, or one object."""
    key = _key()
    account = request.headers.get("Stripe-Account") or OWN
    row = {"path": f"/v1/{place}", "query": request.query_string.decode("latin-1"), "account": account}
    stripe_world().requests.append(row | {"version": request.headers.get("Stripe-Version"), "mode": _mode(key)})
    failure = stripe_world().failure()
    if failure is not None:
        return _failed(failure)
    _enter(key, account)
    if place in _LISTS:
        return _list(place, key, account)
    where, _, identifier = place.rpartition("/")
    if where not in _LISTS:
        raise _Refusal(404, f"Unrecognized request URL (GET: /v1/{place}).")
    name, permission, _ = _LISTS[where]
    _require(key, permission, account)
    thing = stripe_world().objects.get((account, identifier))
    if thing is None or thing.get("object") != name or not _visible(thing, key):
        named = name.replace(".", " ")
        raise _Refusal(404, f"No such {named}: '{identifier}'", code="resource_missing", param="id")
    return jsonify(_shown(thing, account, []))


def _key() -> str:
    """The key in a Bearer or Basic header."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    key = given.strip()
    if scheme.lower() == "basic":
        try:
            key = base64.b64decode(key).decode("latin-1").partition(":")[0]
        except ValueError:
            key = ""
    if not key:
        raise _Refusal(401, "You did not provide an API key.")
    return key


def _mode(key: str) -> str:
    found = _KEY.fullmatch(key)
    return found[1] if found else ""


def _enter(key: str, account: str) -> None:
    if not _mode(key) or stripe_world().permissions.get(key, ()) is None:
        raise _Refusal(401, f"Invalid API Key provided: {key[:8]}{'*' * 20}{key[-4:]}")
    if account not in stripe_world().accounts:
        raise _Refusal(
            403,
            f"The provided key '{key[:8]}***' does not have access to account '{account}' (or that account does not"
            " exist). Application access may have been revoked.",
            code="account_invalid",
        )


def _require(key: str, permission: str, account: str) -> None:
    allowed = stripe_world().permissions.get(key)
    if allowed is not None and permission not in allowed:
        raise _Refusal(
            403,
            f"The provided key '{key[:8]}***' does not have the required permissions for this endpoint on account"
            f" '{account}'. Having the 'rak_{permission}_read' permission would allow this request to continue.",
        )


def _failed(failure: FailedAnswer) -> tuple[Response, int, dict[str, str]]:
    time.sleep(failure.hang_ms / 1000)
    kind = "rate_limit" if failure.status == 429 else "api_error"
    headers = {"Retry-After": str(failure.retry_after_s)} if failure.retry_after_s else {}
    error = {"message": "This failure was asked for.", "type": kind}
    return jsonify({"error": error | ({"code": kind} if failure.status == 429 else {})}), failure.status, headers


def _list(place: str, key: str, account: str) -> Response:
    name, permission, filters = _LISTS[place]
    if unknown := set(request.args) - {*filters, *_PAGING}:
        raise _Refusal(400, f"Received unknown parameter: {min(unknown)}", code="parameter_unknown", param=min(unknown))
    _require(key, permission, account)
    limit = request.args.get("limit", 10, type=int)
    if not 1 <= limit <= 100:
        raise _Refusal(400, "Invalid integer: limit", param="limit")
    wanted = {name: value for name, value in request.args.items() if name in filters}
    found = [
        thing
        for (owner, _), thing in sorted(stripe_world().objects.items())
        if owner == account and thing.get("object") == name and _visible(thing, key) and _matches(thing, wanted)
    ]
    found.sort(key=lambda thing: -int(thing.get("created", 0)))
    expand = [
        text.removeprefix("data.") for text in (*request.args.getlist("expand[]"), *request.args.getlist("expand[0]"))
    ]
    data = [_shown(thing, account, expand) for thing in found[:limit]]
    return jsonify({"object": "list", "url": f"/v1/{place}", "has_more": len(found) > limit, "data": data})


def _visible(thing: Mapping[str, Any], key: str) -> bool:
    return bool(thing.get("livemode", True)) is (_mode(key) == "live")


def _matches(thing: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    for name, expected in wanted.items():
        outer, _, inner = name.rstrip("]").partition("[")
        value: Any = thing.get(outer)
        value = value.get(inner) if inner and isinstance(value, dict) else value
        if (value.get("id") if isinstance(value, dict) else value) != expected:
            return False
    return True


def _shown(thing: Mapping[str, Any], account: str, expand: Sequence[str]) -> dict[str, Any]:
    """The object with its expanded fields, and without what a restricted key never sees."""
    shown = {name: value for name, value in thing.items() if name not in _SECRET}
    for name in expand:
        inner = stripe_world().objects.get((account, str(shown.get(name))))
        if inner is not None:
            shown[name] = dict(inner)
    return shown


# --------------------------------------------------------------------------------------------------------- control


@stripe_api.post("/__fake__/stripe")
def seed() -> Any:
    """Seed `{"objects": […], "account": "acct_1", "keys": {"rk_live_1": ["invoice"]}, "fail": {"status": 429, …}}`.

    keys: what a key may read; null: the key is invalid.
    """
    wanted = request.get_json(force=True, silent=True)
    try:
        if not isinstance(wanted, dict):
            raise TypeError  # noqa: TRY301 - one sentence for everything that is not a seed
        stripe_world().seed(wanted.get("objects", ()), wanted.get("account", OWN))
        stripe_world().permissions.update(wanted.get("keys", {}))
        if "fail" in wanted:
            stripe_world().fail(**wanted["fail"])
    except (TypeError, KeyError, ValueError):
        return jsonify({"error": 'send {"objects": […], "account"?, "keys"?: {key: [permission, …]}, "fail"?}'}), 400
    return show()


@stripe_api.get("/__fake__/stripe")
def show() -> Response:
    """The requests so far, and the number of objects."""
    return jsonify({"objects": len(stripe_world().objects), "requests": list(stripe_world().requests)})


@stripe_api.delete("/__fake__/stripe")
def forget() -> Response:
    """Forget everything."""
    current_app.extensions["sandbox.stripe"] = StripeWorld()
    return show()
