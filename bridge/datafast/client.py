"""The client of DataFast's API: one request, one outcome, never an exception.

It knows how to ask and what came back; it knows no retries, no pace and no store. Each request has one deadline for all
of it. `not sent` is said only when that is certain: from the first byte that left, a lost answer is unconfirmed.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import requests
import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from bridge import __version__
from bridge.datafast import answers
from bridge.datafast.answers import Answer
from bridge.datafast.auth import Bearer
from bridge.datafast.classify import classify, lost, not_sent
from bridge.datafast.transport import Exchange, Transport, read_body
from bridge.model import Outcome, OutcomeKind, VisitorGoals
from bridge.settings import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.model import Destination

BODY_LIMIT: Final = 64 * 1024
VISITOR_LIMIT: Final = 512 * 1024  # a visitor's whole history; cut, it could not be read at all
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"datafast-bridge/{__version__}",
}


@dataclass(frozen=True, slots=True)
class Website:
    """The website that a key belongs to, as DataFast tells it."""

    domain: str
    name: str | None = None
    timezone: str | None = None
    kpi: str | None = None
    currency: str | None = None


class Client:
    """Thread-safe. api_url: without a slash at its end; deadline_ms: of one whole request, from look-up to last byte.

    max_idle_ms: how long a connection may have been idle to be used again; ca_file: whom to trust, if not everybody.
    """

    def __init__(self, api_url: str, deadline_ms: int, *, max_idle_ms: int = 1_000, ca_file: str | None = None) -> None:
        self._url = api_url.rstrip("/")
        self._host = urlsplit(api_url).hostname or api_url
        self._deadline_ms = deadline_ms
        secure = urlsplit(api_url).scheme == "https"
        tls = ssl.create_default_context(cafile=ca_file or DEFAULT_CA_BUNDLE_PATH) if secure else None
        self._transport = Transport(max_idle_s=max_idle_ms / 1000, tls=tls)

    def post_goal(
        self, destination: Destination, *, visitor: str, name: str, description: str, metadata: Mapping[str, str]
    ) -> Outcome:
        """Send one goal. Everything about it is taken as it is."""
        body: dict[str, Any] = {"datafast_visitor_id": visitor, "name": name}
        if description:
            body["description"] = description
        if metadata:
            body["metadata"] = dict(metadata)
        answer = self._ask(destination, "POST", "/goals", body=body)
        return self._outcome(answer, destination)

    def post_payment(self, destination: Destination, body: Mapping[str, Any]) -> Outcome:
        """Send one payment, as it is."""
        return self._outcome(self._ask(destination, "POST", "/payments", body=body), destination)

    def visitor_goals(self, destination: Destination, visitor: str) -> VisitorGoals:
        """The goals that DataFast has of a visitor. `known` False: it has never seen one; `failure`: cannot be told."""
        if visitor.strip(".") == "":
            return VisitorGoals(known=False, failure=Outcome(OutcomeKind.REJECTED, message="this is no visitor id"))
        place = "/visitors/" + quote(visitor, safe="", errors="replace")
        answer = self._ask(destination, "GET", place, limit=VISITOR_LIMIT)
        outcome = self._outcome(answer, destination)
        if outcome.kind is OutcomeKind.UNKNOWN_VISITOR:
            return VisitorGoals(known=False, server_now_ms=outcome.server_now_ms)
        goals = answers.completed_goals(answer.body) if isinstance(answer, Answer) and not answer.cut else None
        if outcome.kind is not OutcomeKind.DELIVERED:
            return VisitorGoals(known=False, failure=outcome, server_now_ms=outcome.server_now_ms)
        if goals is None:
            failure = self._unreadable(outcome)
            return VisitorGoals(known=True, failure=failure, server_now_ms=outcome.server_now_ms)
        return VisitorGoals(known=True, goals=goals, server_now_ms=outcome.server_now_ms)

    def website(self, destination: Destination) -> Website | Outcome:
        """The website of the destination's key, or the outcome that says why it cannot be told."""
        answer = self._ask(destination, "GET", "/analytics/metadata")
        outcome = self._outcome(answer, destination)
        if outcome.kind is not OutcomeKind.DELIVERED or not isinstance(answer, Answer):
            return outcome
        return _website(answer.body) or self._unreadable(outcome)

    def close(self) -> None:
        """Close kept connections."""
        self._transport.close()

    # ------------------------------------------------------------------------------------------------ one request

    def _ask(
        self,
        destination: Destination,
        method: str,
        place: str,
        *,
        body: Mapping[str, Any] | None = None,
        limit: int = BODY_LIMIT,
    ) -> Answer | Outcome:
        exchange = Exchange(time.monotonic() + self._deadline_ms / 1000, limit)
        key = destination.api_key
        if not key:
            return Outcome(OutcomeKind.CONFIGURATION, message=f"destination {destination.name} has no API key")
        if not (key.isascii() and key.isprintable()):
            sentence = f"the API key of destination {destination.name} holds signs that no key has"
            return Outcome(OutcomeKind.CONFIGURATION, message=sentence)
        try:
            return self._exchange(self._request(destination, key, method, place, body), exchange)
        except Exception as error:  # noqa: BLE001 - whatever happened, it must not end the worker
            if exchange.status is not None:  # headers that cannot be read; the status line stands
                return Answer(exchange.status, {}, cut=True)
            return lost(self._lost(error)) if exchange.sent else not_sent(self._not_sent(error))

    def _request(
        self, destination: Destination, key: str, method: str, place: str, body: Mapping[str, Any] | None
    ) -> requests.PreparedRequest:
        headers = dict(_HEADERS)
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode("ascii")
        # A website key is one website's already; DataFast says to leave the id out then.
        token = key.startswith("dft_") and destination.website_id
        params = {"websiteId": destination.website_id} if token else None
        return requests.Request(
            method, self._url + place, headers=headers, data=data, params=params, auth=Bearer(key)
        ).prepare()

    def _exchange(self, request: requests.PreparedRequest, exchange: Exchange) -> Answer:
        response = self._transport.run(request, exchange)
        body, cut = read_body(response, exchange)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body, cut)

    # -------------------------------------------------------------------------------------------------- sentences

    def _outcome(self, answer: Answer | Outcome, destination: Destination) -> Outcome:
        if isinstance(answer, Outcome):
            return answer
        return classify(answer, now_ms=int(time.time() * 1000), secret=destination.api_key)

    def _unreadable(self, outcome: Outcome) -> Outcome:
        sentence = f"{self._host} sent an answer that cannot be read"
        return Outcome(OutcomeKind.UNCONFIRMED, outcome.status, sentence, server_now_ms=outcome.server_now_ms)

    def _not_sent(self, error: Exception) -> str:
        for cause in _causes(error):
            match cause:
                case ssl.SSLCertVerificationError():
                    return f"the certificate of {self._host} was not accepted: {cause.verify_message}"
                case ssl.SSLError():
                    return f"no secure connection to {self._host}: {_ssl_reason(cause)}"
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
    """The errors under those of `requests` and urllib3, outermost first."""
    while error is not None:
        if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
            yield error
        error = error.__cause__ or error.__context__


def _lower(text: str | None) -> str:
    text = text or "unknown reason"
    return text[:1].lower() + text[1:]


def _ssl_reason(error: ssl.SSLError) -> str:
    return (error.reason or "the handshake failed").replace("_", " ").lower()


def _website(body: bytes) -> Website | None:
    parsed = answers.document(body)
    data = parsed.get("data") if isinstance(parsed, dict) else None
    row = data[0] if isinstance(data, list) and data else data
    domain = row.get("domain") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(domain, str):
        return None
    told = {
        key: answers.plain(value)
        for key in ("name", "timezone", "kpi", "currency")
        if isinstance(value := row.get(key), str)
    }
    return Website(answers.plain(domain), **told)
