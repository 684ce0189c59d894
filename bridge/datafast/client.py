"""The client of DataFast's API: one request, one outcome, never an exception.

It only sends requests and classifies answers: retries, the rate limit and the store are elsewhere. Each request has one
deadline as a whole. An outcome is `not_sent` only if that is certain: once a byte has left, a lost answer is
unconfirmed.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import certifi

from bridge import __version__
from bridge.datafast import answers
from bridge.datafast.answers import Answer, classify
from bridge.datafast.transport import Exchange, Transport, read_body
from bridge.model import Outcome, OutcomeKind, VisitorGoals
from bridge.settings import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.model import Destination

BODY_LIMIT: Final = 64 * 1024
VISITOR_LIMIT: Final = 512 * 1024  # a visitor's whole history; truncated, it could not be parsed at all
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"datafast-bridge/{__version__}",
}


class Client:
    """Thread-safe. deadline_ms: of one whole request, from resolving the host name to the last byte.

    max_idle_ms: a connection that has been idle for longer is not used again. ca_file: the certificate authorities to
    trust, if not the usual ones.
    """

    def __init__(self, api_url: str, deadline_ms: int, *, max_idle_ms: int = 1_000, ca_file: str | None = None) -> None:
        self._url = api_url.rstrip("/")
        self._host = urlsplit(api_url).hostname or api_url
        self._deadline_ms = deadline_ms
        secure = urlsplit(api_url).scheme == "https"
        tls = ssl.create_default_context(cafile=ca_file or certifi.where()) if secure else None
        self._transport = Transport(max_idle_s=max_idle_ms / 1000, tls=tls)

    def post(self, destination: Destination, route: str, body: Mapping[str, Any]) -> Outcome:
        """Send a body as it is, to a route of the API: `goals`, `payments`."""
        return self._ask(destination, "POST", f"/{route}", body=body)[0]

    def visitor_goals(self, destination: Destination, visitor: str) -> VisitorGoals:
        """The goals that DataFast has for a visitor."""
        if visitor.strip(".") == "":
            return VisitorGoals(
                known=False, failure=Outcome(OutcomeKind.REJECTED, message="this is not a valid visitor id")
            )
        path = "/visitors/" + quote(visitor, safe="", errors="replace")
        outcome, answer = self._ask(destination, "GET", path, limit=VISITOR_LIMIT)
        if outcome.kind is not OutcomeKind.DELIVERED or answer is None:
            reason = None if outcome.kind is OutcomeKind.UNKNOWN_VISITOR else outcome
            return VisitorGoals(known=False, failure=reason, server_now_ms=outcome.server_now_ms)
        goals = None if answer.cut else answers.completed_goals(answer.body)
        reason = self._unreadable(outcome) if goals is None else None
        return VisitorGoals(known=True, goals=goals or (), failure=reason, server_now_ms=outcome.server_now_ms)

    def website(self, destination: Destination) -> str | Outcome:
        """The domain of the website that the destination's key belongs to, or why it is unknown."""
        outcome, answer = self._ask(destination, "GET", "/analytics/metadata")
        if outcome.kind is not OutcomeKind.DELIVERED or answer is None:
            return outcome
        domain = answers.first_row(answers.document(answer.body)).get("domain")
        return answers.plain(domain) if isinstance(domain, str) else self._unreadable(outcome)

    def close(self) -> None:
        """Close kept connections."""
        self._transport.close()

    # ------------------------------------------------------------------------------------------------ one request

    def _ask(
        self,
        destination: Destination,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        limit: int = BODY_LIMIT,
    ) -> tuple[Outcome, Answer | None]:
        exchange = Exchange(time.monotonic() + self._deadline_ms / 1000, limit)
        key = destination.api_key
        if not key:
            return Outcome(OutcomeKind.CONFIGURATION, message=f"destination {destination.name} has no API key"), None
        if not (key.isascii() and key.isprintable()):
            sentence = f"the API key of destination {destination.name} contains characters that no key has"
            return Outcome(OutcomeKind.CONFIGURATION, message=sentence), None
        try:
            answer = self._exchange(destination, key, method, path, body, exchange)
        except Exception as error:  # noqa: BLE001 - whatever happened, it must not end the worker
            if exchange.status is None and exchange.sent:
                return Outcome(OutcomeKind.UNCONFIRMED, message=self._lost(error)), None
            if exchange.status is None:
                return Outcome(OutcomeKind.NOT_SENT, message=self._not_sent(error)), None
            answer = Answer(exchange.status, {}, cut=True)  # headers that cannot be read; the status line stands
        return classify(answer, now_ms=int(time.time() * 1000), secret=key), answer

    def _exchange(
        self,
        destination: Destination,
        key: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        exchange: Exchange,
    ) -> Answer:
        headers, data = {**_HEADERS, "Authorization": f"Bearer {key}"}, None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode("ascii")
        response = self._transport.run(method, self._address(destination, key, path), headers, data, exchange)
        content, cut = read_body(response, exchange)
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, content, cut)

    def _address(self, destination: Destination, key: str, path: str) -> str:
        """A website key belongs to one website already; DataFast's documentation says to leave out the id then."""
        if key.startswith("dft_") and destination.website_id:
            path += "?" + urlencode({"websiteId": destination.website_id})
        return self._url + path

    # -------------------------------------------------------------------------------------------------- sentences

    def _unreadable(self, outcome: Outcome) -> Outcome:
        sentence = f"{self._host} sent an answer that cannot be read"
        return Outcome(OutcomeKind.UNCONFIRMED, outcome.status, sentence, server_now_ms=outcome.server_now_ms)

    def _not_sent(self, error: Exception) -> str:
        for cause in _causes(error):
            match cause:
                case ssl.SSLCertVerificationError():
                    return f"the certificate of {self._host} was not accepted: {cause.verify_message}"
                case ssl.SSLError():
                    reason = (cause.reason or "the handshake failed").replace("_", " ").lower()
                    return f"no secure connection to {self._host}: {reason}"
                case socket.gaierror():
                    return f"could not find the address of {self._host}: {_lower(cause.strerror)}"
                case TimeoutError():
                    return f"could not connect to {self._host} within {duration_text(self._deadline_ms)}"
                case OSError() if cause.errno is not None:
                    return f"could not connect to {self._host}: {_lower(os.strerror(cause.errno))}"
        return f"could not send a request to {self._host}"

    def _lost(self, error: Exception) -> str:
        for cause in _causes(error):
            match cause:
                case TimeoutError():
                    return f"{self._host} did not answer within {duration_text(self._deadline_ms)}"
                case http.client.RemoteDisconnected() | ConnectionError() | ssl.SSLEOFError():
                    return f"{self._host} closed the connection before it answered"
                case http.client.HTTPException() | ValueError():
                    return f"{self._host} sent an answer that is not HTTP"
        return f"the answer of {self._host} was lost"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those beneath it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _lower(text: str | None) -> str:
    text = text or "unknown reason"
    return text[:1].lower() + text[1:]
