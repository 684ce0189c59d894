"""Bytes from outside → authentic events. Every provider is a preset (data); one verifier checks them all.

verify: raises SignatureError or returns · read: the event to store, never raises · documents: what rules read ·
handshake: what a message that sets up a webhook is answered · ignored: trial messages and thin notifications ·
faults: what makes a source's stanza or secrets unusable · can_verify: whether any secret is usable ·
presets: the providers as data · reference: the same as a table for people.
"""

from bridge.sources.body import parse
from bridge.sources.events import documents, read
from bridge.sources.handshake import handshake, sender_of
from bridge.sources.ignored import ignored
from bridge.sources.presets import presets
from bridge.sources.reference import reference
from bridge.sources.verifier import can_verify, faults, verify

__all__ = [
    "can_verify", "documents", "faults", "handshake", "ignored", "parse", "presets", "read", "reference", "sender_of",
    "verify",
]  # fmt: skip
