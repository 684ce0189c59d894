"""Authentic messages that tell of nothing: thin notifications and the hand-shakes with which a hook is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.sources import stripe

if TYPE_CHECKING:
    from bridge.model import Document, Source

# provider → the types of its hand-shakes and trial messages. Slack's, Zoom's and Notion's are answered before they are
# stored (bridge.sources.handshake); here they are for what the previous release has stored.
_HANDSHAKES: Final = {
    "calcom": ("PING",),
    "github": ("ping",),
    "intercom": ("ping",),
    "kit": ("webhook_endpoint.test",),
    "loops": ("testing.testEvent",),
    "mollie": ("hook.ping",),
    "revenuecat": ("TEST",),
    "revenuecat-signed": ("TEST",),
    "slack": ("url_verification",),
    "square": ("webhooks.test_notification",),
    "twilio-events": ("com.twilio.eventstreams.test-event",),
    "zoom": ("endpoint.url_validation",),
}


def ignored(source: Source, document: Document) -> str | None:
    """Why this event is never looked at by a rule, in a sentence; None for all others."""
    body = document.body if isinstance(document.body, dict) else {}
    if source.provider == "stripe" and stripe.is_thin(body):
        return stripe.THIN
    if source.provider == "notion" and "verification_token" in body and "type" not in body:
        return "the hand-shake with which Notion sets up a webhook"
    if source.provider == "gumroad" and "test" in body and "resource_name" not in body:
        return "the test ping that Gumroad sends from its settings"
    if document.envelope.get("type") in _HANDSHAKES.get(source.provider, ()):
        return f"the hand-shake with which {source.provider} sets up or tries a webhook"
    return None
