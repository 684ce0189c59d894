"""The requests to Stripe: one question, one answer, never an exception. The only module that imports the SDK.

`import stripe` costs 32 MB and 0.3 s, so this module is imported when the first question is asked. It uses the SDK's
`raw_request`: authentication, version and errors are Stripe's, the objects stay plain dicts. Retries, telemetry and the
SDK's own HTTP client are off: a request has one deadline as a whole, follows no redirect and reads a bounded body.
"""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import certifi
import stripe

from bridge import __version__
from bridge.datafast.transport import Exchange, Transport, read_body
from bridge.lookup.asking import LISTS, PERMISSIONS, AnswerKind, StripeAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.lookup.asking import Question

BODY_LIMIT: Final = 1024 * 1024
RETRY_MAX_MS: Final = 15 * 60_000

stripe.enable_telemetry = False
stripe.set_app_info("datafast-bridge", version=__version__)


class _Http(stripe.HTTPClient):
    """The HTTP client that the SDK uses: the bridge's own, with one deadline for a whole request."""

    name = "datafast-bridge"

    def __init__(self, deadline_ms: int, *, secure: bool) -> None:
        super().__init__()
        self._deadline_ms = deadline_ms
        tls = ssl.create_default_context(cafile=certifi.where()) if secure else None
        self._transport = Transport(tls=tls)

    def request(  # the SDK calls it with these four
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **_: Any
    ) -> tuple[Any, int, Mapping[str, str]]:
        exchange = Exchange(time.monotonic() + self._deadline_ms / 1000, BODY_LIMIT)
        given = dict(headers or {}) | {"Accept-Encoding": "identity"}
        response = self._transport.run(method.upper(), url, given, post_data, exchange)
        body, cut = read_body(response, exchange)
        if cut:
            raise TimeoutError("the answer broke off")
        return body, response.status, dict(response.headers.items())

    def close(self) -> None:
        self._transport.close()


class StripeClient:
    """Thread-safe. url: of Stripe's API, without a slash at its end; deadline_ms: of one whole request."""

    def __init__(self, api_key: str, url: str, deadline_ms: int) -> None:
        self._http = _Http(deadline_ms, secure=urlsplit(url).scheme == "https")
        self._stripe = stripe.StripeClient(
            api_key, base_addresses={"api": url}, max_network_retries=0, http_client=self._http
        )

    def ask(self, question: Question, account: str | None) -> StripeAnswer:
        """What Stripe has. account: of a Connect platform's event, the connected account."""
        return self._get(question.path, question.params, question.permission, account)

    def may_read(self, permission: str) -> StripeAnswer:
        """Whether the key may read this kind of thing (`doctor`)."""
        return self._get(LISTS[permission], {"limit": 1}, permission, None)

    def close(self) -> None:
        """Close kept connections."""
        self._http.close()

    def _get(self, path: str, params: Mapping[str, Any], permission: str, account: str | None) -> StripeAnswer:
        options = {"stripe_account": account} if account else {}
        try:
            answer = self._stripe.raw_request("get", path, **params, **options)
        except stripe.StripeError as error:  # it holds bodies: nothing of it is kept but status, code and headers
            return _refused(error, permission, account)
        except Exception as error:  # noqa: BLE001 - whatever happened, it must not end the worker
            return StripeAnswer(
                AnswerKind.UNREACHABLE, message=f"Stripe cannot be asked just now ({type(error).__name__})"
            )
        return _found_answer(answer.data)


def _found_answer(data: Any) -> StripeAnswer:
    """The objects of a list, or the one object."""
    if not isinstance(data, dict):
        return StripeAnswer(AnswerKind.REFUSED, message="Stripe answered with something that is not an object")
    listed = data.get("data") if data.get("object") == "list" else [data]
    objects = tuple(obj for obj in listed if isinstance(obj, dict)) if isinstance(listed, list) else ()
    return StripeAnswer(AnswerKind.FOUND, objects)


def _refused(error: stripe.StripeError, permission: str, account: str | None) -> StripeAnswer:
    status = error.http_status
    if status == 401:
        return StripeAnswer(
            AnswerKind.KEY, message="Stripe does not accept STRIPE_API_KEY: is it deleted, expired, or mistyped?"
        )
    if status == 403 and account:
        return StripeAnswer(
            AnswerKind.ACCOUNT,
            message=f"STRIPE_API_KEY may not read the connected account {account}: the key of a platform needs its"
            " permissions for connected accounts, too",
        )
    if status == 403 and "permission" not in (error.user_message or ""):
        sentence = "Stripe refuses STRIPE_API_KEY from here: is it bound to other IP addresses?"
        return StripeAnswer(AnswerKind.KEY, message=sentence)
    if status == 403:
        return StripeAnswer(
            AnswerKind.PERMISSION,
            message=f'STRIPE_API_KEY may not read {PERMISSIONS[permission]}: give the restricted key "Read" there',
        )
    if status == 429 or error.code == "rate_limit":
        return StripeAnswer(
            AnswerKind.RATE, message="Stripe asks for a pause", retry_after_ms=_retry_after_ms(error.headers)
        )
    if status == 404:
        return StripeAnswer(AnswerKind.MISSING)
    if status is None or status >= 500 or status == 409:
        problem = f"answered {status}" if status else "cannot be reached"
        return StripeAnswer(
            AnswerKind.UNREACHABLE, message=f"Stripe {problem}", retry_after_ms=_retry_after_ms(error.headers)
        )
    if status < 300:
        return StripeAnswer(AnswerKind.REFUSED, message="Stripe's answer is not JSON, or is too long")
    return StripeAnswer(AnswerKind.REFUSED, message=f"Stripe answered {status} ({error.code or 'no code'})")


def _retry_after_ms(headers: Mapping[str, str] | None) -> int | None:
    text = next((value for name, value in (headers or {}).items() if name.lower() == "retry-after"), "")
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        return None
    return min(max(int(text) * 1000, 1_000), RETRY_MAX_MS)
