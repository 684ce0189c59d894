"""Bytes from outside → authentic events. Every provider is a preset (data); one verifier checks them all.

- `verify`: raises SignatureError or returns
- `read`: the event to store; it never raises
- `documents`: what rules read
- `handshake`: the answer to a message that sets up a webhook
- `ignored`: trial messages and thin notifications
- `unshowable`, `sender_tokens`, `without`: the parts of a source and of a body that must not be shown
- `problems`: what makes a source's stanza or secrets unusable; `can_verify`: whether any secret is usable
- `presets`: the providers as data (`bridge.presets`)
"""

from bridge.presets import presets
from bridge.sources.body import parse
from bridge.sources.events import documents, ignored, read
from bridge.sources.handshake import handshake, sender_of
from bridge.sources.tokens import sender_tokens, unshowable, without
from bridge.sources.verifier import can_verify, problems, verify

__all__ = [
    "can_verify", "documents", "handshake", "ignored", "parse", "presets", "problems", "read", "sender_of",
    "sender_tokens", "unshowable", "verify", "without",
]  # fmt: skip
