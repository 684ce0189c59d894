"""The providers' own Python libraries: name → the package, how it verifies a request, how it signs one if it can.

A library verifies by returning (anything but False) and refuses by raising or by False. Each is imported when it is
asked. Those that exist for Node only are in node/oracles.mjs.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.model import Request

    Verify = Callable[[Request, str], Any]
    Sign = Callable[[Request, str, str], str]  # (request, secret, stamp) → the text of the signature's header


@dataclass(frozen=True, slots=True)
class Library:
    package: str
    verify: Verify
    sign: Sign | None = None

    @property
    def against(self) -> str:
        return f"{self.package}@{version(self.package)}"

    def accepts(self, request: Request, secret: str) -> bool:
        with contextlib.redirect_stdout(io.StringIO()):  # discord-interactions prints why it refuses
            try:
                return self.verify(request, secret) is not False
            except Exception:  # noqa: BLE001 - however a library refuses
                return False


# --------------------------------------------------------------------------------------------------- Standard Webhooks


def _standardwebhooks(sent: Request, secret: str) -> Any:
    from standardwebhooks import Webhook

    return Webhook(secret.removeprefix("v1,")).verify(sent.body, dict(sent.headers), json_parse=False)


def _sign_standard(sent: Request, secret: str, stamp: str) -> str:
    from standardwebhooks import Webhook

    at = datetime.fromtimestamp(int(stamp), UTC)
    event_id = sent.headers.get("webhook-id") or sent.headers["svix-id"]
    return Webhook(secret.removeprefix("v1,")).sign(event_id, at, sent.body.decode())


def _sign_standard_text(sent: Request, secret: str, stamp: str) -> str:
    """The bytes of the whole secret are the key: Whop, and Polar before September 2026."""
    return _sign_standard(sent, base64.b64encode(secret.encode()).decode(), stamp)


def _svix(sent: Request, secret: str) -> Any:
    from svix.webhooks import Webhook

    return Webhook(secret).verify(sent.body, dict(sent.headers))


@cache
def _openai_client() -> Any:
    from openai import OpenAI

    return OpenAI(api_key="none")


def _openai(sent: Request, secret: str) -> Any:
    return _openai_client().webhooks.verify_signature(sent.body, sent.headers, secret=secret)


def _resend(sent: Request, secret: str) -> Any:
    from resend import Webhooks

    headers = {name: sent.headers.get(f"svix-{name}", "") for name in ("id", "timestamp", "signature")}
    return Webhooks.verify({"payload": sent.body.decode(), "headers": headers, "webhook_secret": secret})


def _replicate(sent: Request, secret: str) -> Any:
    from replicate.webhook import Webhooks, WebhookSigningSecret

    headers = dict(sent.headers)
    return Webhooks.validate(headers=headers, body=sent.body.decode(), secret=WebhookSigningSecret(key=secret))


def _polar(sent: Request, secret: str) -> Any:
    from polar.webhooks import validate_event

    return validate_event(sent.body, dict(sent.headers), secret, frozenset({"thing.happened"}), dict)


@cache
def _dodo_client() -> Any:
    from dodopayments import DodoPayments

    return DodoPayments(bearer_token="none")


def _dodo(sent: Request, secret: str) -> Any:
    return _dodo_client().webhooks.unwrap(sent.body.decode(), headers=dict(sent.headers), key=secret)


def _whop(sent: Request, secret: str) -> Any:
    from whop_sdk.lib.verify_webhook import unwrap

    return unwrap(sent.body, headers=sent.headers, key=secret)


# ------------------------------------------------------------------------------------------------ payments and commerce


def _stripe(sent: Request, secret: str) -> Any:
    from stripe import Webhook, WebhookSignature

    tolerance = Webhook.DEFAULT_TOLERANCE
    return WebhookSignature.verify_header(sent.body, sent.headers.get("stripe-signature"), secret, tolerance)


def _sign_stripe(sent: Request, secret: str, stamp: str) -> str:
    from stripe import WebhookSignature

    return str(WebhookSignature.generate_signature_header(sent.body.decode(), secret, int(stamp)))


def _paddle(sent: Request, secret: str) -> Any:
    from paddle_billing.Notifications import Secret, Verifier

    headers = {"Paddle-Signature": sent.headers.get("paddle-signature")}
    return Verifier().verify(SimpleNamespace(headers=headers, body=sent.body), Secret(secret))


def _sign_paddle(sent: Request, secret: str, stamp: str) -> str:
    from paddle_billing.Notifications.PaddleSignature import PaddleSignature

    signature = PaddleSignature.calculate_hmac(secret, f"{stamp}:".encode() + sent.body)
    return f"ts={stamp};h1={signature.hexdigest()}"


def _coinbase_commerce(sent: Request, secret: str) -> Any:
    from coinbase_commerce.webhook import WebhookSignature

    return WebhookSignature.verify_sig_header(sent.body.decode(), sent.headers["x-cc-webhook-signature"], secret)


def _razorpay(sent: Request, secret: str) -> Any:
    from razorpay import Utility

    return Utility().verify_webhook_signature(sent.body.decode(), sent.headers["x-razorpay-signature"], secret)


def _square(sent: Request, secret: str) -> Any:
    from square.utils.webhooks_helper import verify_signature

    return verify_signature(
        request_body=sent.body.decode(),
        signature_header=sent.headers["x-square-hmacsha256-signature"],
        signature_key=secret,
        notification_url=sent.url,
    )


def _mollie(sent: Request, secret: str) -> Any:
    from mollie.utils.webhooks.signature_validator import SignatureValidator

    signatures = sent.headers.get("x-mollie-signature", "").split(",")
    return SignatureValidator.validate(sent.body.decode(), secret, signatures)


def _sign_mollie(sent: Request, secret: str, _: str) -> str:
    from mollie.utils.webhooks.signature_validator import SignatureValidator

    return "sha256=" + SignatureValidator.create_signature(sent.body.decode(), secret)


# ------------------------------------------------------------------------------------------------------------- software


def _gidgethub(sent: Request, secret: str) -> Any:
    from gidgethub.sansio import validate_event

    return validate_event(sent.body, signature=sent.headers["x-hub-signature-256"], secret=secret)


def _workos(sent: Request, secret: str) -> Any:
    from workos import WorkOSClient

    webhooks = WorkOSClient(api_key="none", client_id="none").webhooks
    return webhooks.verify_header(event_body=sent.body, event_signature=sent.headers["workos-signature"], secret=secret)


def _slack(sent: Request, secret: str) -> Any:
    from slack_sdk.signature import SignatureVerifier

    return SignatureVerifier(secret).is_valid_request(sent.body, dict(sent.headers))


def _sign_slack(sent: Request, secret: str, stamp: str) -> str:
    from slack_sdk.signature import SignatureVerifier

    return SignatureVerifier(secret).generate_signature(timestamp=stamp, body=sent.body) or ""


def _hubspot(number: str) -> Library:
    header = "x-hubspot-signature-v3" if number == "v3" else "x-hubspot-signature"

    def verify(sent: Request, secret: str) -> Any:
        from hubspot.utils.signature import Signature

        stamp = sent.headers.get("x-hubspot-request-timestamp")
        signature, body = sent.headers[header], sent.body.decode()
        return Signature.is_valid(signature, secret, body, sent.url, sent.method, number, stamp)

    def sign(sent: Request, secret: str, stamp: str) -> str:
        from hubspot.utils.signature import Signature

        return str(Signature.get_signature(secret, sent.body.decode(), number, sent.url, sent.method, stamp))

    return Library("hubspot-api-client", verify, sign)


def _discord(sent: Request, public_key: str) -> Any:
    from discord_interactions import verify_key

    signature, stamp = sent.headers["x-signature-ed25519"], sent.headers["x-signature-timestamp"]
    return verify_key(sent.body, signature, stamp, public_key)


# -------------------------------------------------------------------------------------------------- e-mail and messages


def _mailgun(sent: Request, secret: str) -> Any:
    from mailgun.security import SecurityGuard

    signature = json.loads(sent.body)["signature"]
    return SecurityGuard.verify_webhook(secret, signature["token"], signature["timestamp"], signature["signature"])


def _sendgrid(sent: Request, public_key: str) -> Any:
    from sendgrid.helpers.eventwebhook import EventWebhook, EventWebhookHeader

    signature = sent.headers[EventWebhookHeader.SIGNATURE.lower()]
    stamp = sent.headers[EventWebhookHeader.TIMESTAMP.lower()]
    return EventWebhook(public_key).verify_signature(sent.body.decode(), signature, stamp)


def _twilio(sent: Request, secret: str) -> Any:
    from twilio.request_validator import RequestValidator

    return RequestValidator(secret).validate(sent.url, _parameters(sent), sent.headers.get("x-twilio-signature", ""))


def _sign_twilio(sent: Request, secret: str, _: str) -> str:
    from twilio.request_validator import RequestValidator

    form = {} if "bodySHA256" in sent.query_string else _parameters(sent)
    return str(RequestValidator(secret).compute_signature(sent.url, form))


def _parameters(sent: Request) -> Any:
    """As a web framework hands them over: all values of a repeated parameter; a body that is no form as a string."""
    if "bodySHA256" in sent.query_string:
        return sent.body.decode()
    from werkzeug.datastructures import MultiDict

    return MultiDict(parse_qsl(sent.body.decode(), keep_blank_values=True))


LIBRARIES: Final = {
    "standardwebhooks": Library("standardwebhooks", _standardwebhooks, _sign_standard),
    "standardwebhooks, key as text": Library("standardwebhooks", _standardwebhooks, _sign_standard_text),
    "svix": Library("svix", _svix, _sign_standard),
    "openai": Library("openai", _openai),
    "resend": Library("resend", _resend),
    "replicate": Library("replicate", _replicate),
    "polar": Library("polar-sdk", _polar),
    "dodo": Library("dodopayments", _dodo),
    "whop": Library("whop-sdk", _whop),
    "stripe": Library("stripe", _stripe, _sign_stripe),
    "paddle": Library("paddle-python-sdk", _paddle, _sign_paddle),
    "coinbase-commerce": Library("coinbase-commerce", _coinbase_commerce),
    "razorpay": Library("razorpay", _razorpay),
    "square": Library("squareup", _square),
    "mollie": Library("mollie-api-py", _mollie, _sign_mollie),
    "gidgethub": Library("gidgethub", _gidgethub),
    "workos": Library("workos", _workos),
    "slack": Library("slack-sdk", _slack, _sign_slack),
    "hubspot v1": _hubspot("v1"),
    "hubspot v2": _hubspot("v2"),
    "hubspot v3": _hubspot("v3"),
    "discord": Library("discord-interactions", _discord),
    "mailgun": Library("mailgun", _mailgun),
    "sendgrid": Library("sendgrid", _sendgrid),
    "twilio": Library("twilio", _twilio, _sign_twilio),
}
