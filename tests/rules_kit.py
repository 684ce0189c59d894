"""Small makers for tests of the rule language: a document, a rule set of one file, what it plans for an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge import rules
from bridge.errors import MappingError
from bridge.model import Document
from bridge.presets import event_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.rules import Evaluation, RuleSet

VISITOR = "00000000-0000-4000-8000-000000000001"
KEY = b"the key of this installation"

# Presets in the grammar that the real ones are written in; short, so that a test can be read.
PRESETS: dict[str, Any] = {
    "stripe": {
        "where": "for people",
        "secret_form": "whsec_",
        "not_the_secret": {"sk_": "an API key", "rk_": "an API key", "we_": "an endpoint's id"},
        "object_ids": ["price_", "prod_"],
        "objects": "stripe",
        "event_names": " ".join(event_names("stripe")),
        "verify": {
            "type": "hmac-sha256",
            "signature": {"in": "header:Stripe-Signature", "split": ",", "prefix": "v1="},
            "timestamp": {"in": "signature", "prefix": "t=", "tolerance": 300},
            "signed": "{timestamp}.{body}",
        },
        "envelope": {
            "type": "type",
            "id": "id",
            "time": "created",
            "test": {"path": "livemode", "is": False},
            "account": "account",
        },
        "visitor": ["data.object.metadata.datafast_visitor_id", "data.object.client_reference_id"],
        "links": [
            {"kind": "session", "path": "data.object.id", "event": "checkout.session.*"},
            {"kind": "customer", "path": "data.object.customer"},
        ],
    },
    "lemonsqueezy": {
        "event_names": " ".join(event_names("lemonsqueezy")),
        "verify": {"type": "hmac-sha256", "signature": {"in": "header:X-Signature"}},
        "envelope": {"type": "meta.event_name", "test": "meta.test_mode"},
        "visitor": "meta.custom_data.datafast_visitor_id",
    },
    "github": {
        "verify": {"type": "hmac-sha256", "signature": {"in": "header:X-Hub-Signature-256", "prefix": "sha256="}},
        "envelope": {"type": "header.x-github-event"},
        "id_is_signed": False,
    },
    "query-token": {"verify": {"type": "token", "signature": {"in": "query:token"}}},
}

# The head of a file whose events are {"type": …, …} and which needs no secret to be evaluated.
HEAD = """\
provider: custom
verify: {type: token, signature: {in: "query:token"}}
envelope: {type: type, id: id}
visitor: [visitor]
goals:
"""


def load(text: str, environ: Mapping[str, str] | None = None, *, name: str = "shop.yaml") -> RuleSet:
    return rules.load({name: text}, environ or {}, PRESETS)


def faults(text: str, environ: Mapping[str, str] | None = None, *, name: str = "shop.yaml") -> list[str]:
    """What is wrong with a file, without the name of the folder."""
    try:
        load(text, environ, name=name)
    except MappingError as error:
        return [problem.removeprefix("mappings/") for problem in error.problems]
    return []


def fault(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The only fault of a file."""
    found = faults(text, environ)
    assert len(found) == 1, found
    return found[0].removeprefix("shop.yaml:")


def document(body: Any, **roots: Any) -> Document:
    return Document(body=body, **roots)


def evaluate(
    text: str, body: Any, *, mode: str = "live", event_name: str = "evt_1", key: Mapping[str, str] | None = None
) -> Evaluation:
    """What the rules below HEAD (or a whole file) make of a body."""
    found = load(text if text.startswith("provider") else HEAD + text)
    source = found.sources["shop"]
    event_type = body.get("type", "") if isinstance(body, dict) else ""
    read = Document(body=body, root=body, envelope={"type": event_type}, key=key or {})
    return rules.evaluate(found, source, read, event_name=event_name, mode=mode, hash_key=KEY)
