"""What providers' events look like, for what `check` says about rules: which fields, of which kind, with which words.

Written from the recorded events of the tests, from the events in the tests of the shipped files, and from what the
providers document about the words of a few fields.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from bridge.presets import presets
from bridge.rules.reading.fields import FREE, steps_of
from bridge.rules.reading.folder import provider_of, shipped
from bridge.rules.reading.strict_yaml import parse
from bridge.rules.reading.written import written_paths

if TYPE_CHECKING:
    from collections.abc import Iterator

PAYLOADS: Final = Path(__file__).parents[1] / "tests" / "fixtures" / "payloads"
WORDED: Final = re.compile(
    r"(?:^|_)(?:status|mode|currency|currency_code|reason|interval|billing_cycle|environment|store|origin|feedback)$"
)
_CURRENCY: Final = re.compile("[a-z]{3}|[A-Z]{3}")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_-]{1,40}")
STRIPE: Final = (
    "account", "api_version", "context", "created", "data", "id", "livemode", "object", "pending_webhooks", "request",
    "type",
)  # fmt: skip
_SUBSCRIPTION: Final = "active canceled incomplete incomplete_expired past_due paused trialing unpaid"
_STRIPE_STATUS: Final = (
    f"{_SUBSCRIPTION} draft open paid uncollectible void complete expired requires_payment_method requires_confirmation"
    " requires_action requires_capture processing succeeded pending failed in_transit warning_needs_response"
    " warning_under_review warning_closed needs_response under_review won lost prevented accepted not_started completed"
    " released submitted authorized blocked inactive reversed closed expired review_required"
)
_PERIODS: Final = "day month week year"
_WHOLE: Final = ("stripe", "lemonsqueezy", "polar", "paddle")  # no event has another field at the top
# What a provider documents; `=` in front: these are all, so any other word is reported. `~`: most of them.
DOCUMENTED: Final = {
    "stripe": {
        "data.object.status": _STRIPE_STATUS,
        "data.object.payment_status": "= no_payment_required paid unpaid",
        "data.object.mode": "= payment setup subscription",
        "data.object.billing_reason": "= automatic_pending_invoice_item_invoice manual quote_accept subscription"
        " subscription_create subscription_cycle subscription_threshold subscription_update upcoming",
        "data.object.collection_method": "= charge_automatically send_invoice",
        "data.object.currency": "eur usd",
        "data.object.items.data.*.price.recurring.interval": f"= {_PERIODS}",
        "data.object.items.data.*.plan.interval": f"= {_PERIODS}",
        "data.object.plan.interval": f"= {_PERIODS}",
        "data.object.recurring.interval": f"= {_PERIODS}",
        "data.object.cancellation_details.reason": "= canceled_by_retention_policy cancellation_requested"
        " payment_disputed payment_failed",
        "data.object.cancellation_details.feedback": "= customer_service low_quality missing_features other"
        " switched_service too_complex too_expensive unused",
        "data.object.cancel_at_period_end": "b", "data.object.trial_end": "n", "data.object.canceled_at": "n",
        "data.object.quantity": "n", "data.object.attempt_count": "n", "data.object.customer_email": "s",
        "context": "s", "livemode": "b", "request": "o",
    },
    "lemonsqueezy": {
        "data.attributes.status": "active cancelled expired failed fraudulent inactive disabled on_trial paid past_due"
        " paused pending refunded partial_refund unpaid void draft published",
        "data.attributes.billing_reason": "= initial renewal updated",
        "data.attributes.currency": "EUR USD",
    },
    "polar": {
        "data.status": f"{_SUBSCRIPTION} confirmed disputed expired failed open paid partially_refunded pending"
        " refunded succeeded void granted revoked disabled",
        "data.billing_reason": "= purchase subscription_create subscription_cycle subscription_update",
        "data.recurring_interval": f"= {_PERIODS}",
        "data.currency": "eur usd",
    },
    "paddle": {
        "data.status": "active approved archived billed canceled completed draft paid past_due paused pending_approval"
        " ready rejected reversed trialing",
        "data.origin": "api subscription_charge subscription_payment_method_change subscription_recurring"
        " subscription_update web",
        "data.currency_code": "EUR USD",
        "data.billing_cycle.interval": f"= {_PERIODS}",
    },
    "revenuecat": {
        "event.store": "AMAZON APP_STORE MAC_APP_STORE PADDLE PLAY_STORE PROMOTIONAL RC_BILLING ROKU STRIPE TEST_STORE",
        "event.environment": "= PRODUCTION SANDBOX",
        "event.period_type": "= INTRO NORMAL PREPAID PROMOTIONAL TRIAL",
        "event.currency": "EUR USD",
    },
    "shopify": {
        "financial_status": "= authorized expired paid partially_paid partially_refunded pending refunded unpaid"
        " voided",
        "currency": "EUR USD",
    },
    "calcom": {
        "payload.attendees": "l email name timeZone", "payload.organizer.email": "s", "payload.organizer.name": "s",
        "payload.status": "= ACCEPTED AWAITING_HOST CANCELLED PENDING REJECTED",
    },
    "kofi": {"currency": "EUR USD", "is_subscription_payment": "b", "is_first_subscription_payment": "b"},
}  # fmt: skip


def page() -> str:
    """The file that `check` reads: provider -> tree of fields."""
    trees: dict[str, Any] = {}
    for provider, event in _events():
        trees[provider] = merged(trees.get(provider), node(event))
    for provider, fields in DOCUMENTED.items():
        for path, words in fields.items():
            _document(trees.setdefault(provider, {}), path.split("."), words)
    for text in shipped().values():
        for written in written_paths(text):
            for read in written.paths:
                names = [step.name for step in steps_of(read.text)]
                if names[0] not in ("value", "was", "header", "query", "envelope", "key", "root", "body"):
                    _document(trees.setdefault(provider_of(text), {}), names, "o")
    trees["stripe"] = {name: below for name, below in trees["stripe"].items() if name in STRIPE}
    types = _types()
    found: dict[str, dict[str, Any]] = {
        name: {"fields": trees.get(name, {}), "types": types.get(name, [])} for name in sorted({*trees, *types})
    }
    for name in _WHOLE:
        found[name]["whole"] = True
    lines = (
        f"{json.dumps(name)}:{json.dumps(entry, separators=(',', ':'), sort_keys=True)}"
        for name, entry in found.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _types() -> dict[str, list[str]]:
    """The types of events that shipped rules name, of providers whose preset names none."""
    found: dict[str, set[str]] = {}
    for text in shipped().values():
        provider = provider_of(text)
        tree, _ = parse(text)
        file = tree.plain() if tree is not None else {}
        for rule in file.get("goals", ()) if isinstance(file, dict) and provider in presets() else ():
            events = rule.get("event", ())
            if "event_names" not in presets()[provider]:
                found.setdefault(provider, set()).update([events] if isinstance(events, str) else events)
    return {name: sorted(event_type for event_type in types if "*" not in event_type) for name, types in found.items()}


def _document(tree: dict[str, Any], steps: list[str], words: str) -> None:
    for step in steps[:-1]:
        if not isinstance(tree.setdefault(step, {}), dict):
            return
        tree = tree[step]
    if words == "o" and steps[-1] in tree:
        return
    kind = words if words in ("b", "n", "s", "o") else f"s {words}" if words.startswith("=") else f"s ~ {words}"
    known = tree.get(steps[-1])
    if words.startswith("l "):
        tree[steps[-1]] = merged(known, {"*": dict.fromkeys(words.split()[1:], "s")})
        return
    if words.startswith("=") or not isinstance(known, str):
        tree[steps[-1]] = kind if not isinstance(known, dict) else known
    else:
        tree[steps[-1]] = merged(known if known != "?" else None, kind)


def _events() -> Iterator[tuple[str, Any]]:
    for path in sorted(PAYLOADS.glob("*/**/*")):
        kind = path.relative_to(PAYLOADS).parts[0]
        provider = kind if kind != "generic" else path.name.split(".")[0]
        if path.name in ("INDEX.json", "signature_vectors.json") or "thin" in path.parts or provider not in presets():
            continue
        if path.suffix == ".json":
            yield provider, json.loads(path.read_text("utf-8"))
        elif path.name.endswith(".form.txt"):
            form = dict(parse_qsl(path.read_text("utf-8").strip(), keep_blank_values=True))
            yield provider, json.loads(form["data"]) if set(form) == {"data"} else {name: name for name in form}
    for text in shipped().values():
        tree, _ = parse(text)
        file = tree.plain() if tree is not None else {}
        for test in file.get("tests", ()) if isinstance(file, dict) else ():
            yield provider_of(text), test["event"]


def node(value: Any, name: str = "") -> Any:
    """One value as a tree: `n` a number, `b` true or false, `s` a string (and its words), `?` nothing, `o` anything."""
    if name in FREE:
        return "o"
    if isinstance(value, dict):
        return {key: node(below, key) for key, below in value.items() if key and "." not in key} or "o"
    if isinstance(value, list):
        found: Any = None
        for element in value:
            found = merged(found, node(element, name))
        return {"*": "?" if found is None else found}
    if isinstance(value, bool):
        return "b"
    if isinstance(value, int | float):
        return "n"
    if value is None:
        return "?"
    if WORDED.search(name) is None or not _WORD.fullmatch(str(value)):
        return "s"
    if name.endswith(("currency", "currency_code")) and not _CURRENCY.fullmatch(str(value)):
        return "?"  # the sample says nothing
    return f"s {value}"


def merged(left: Any, right: Any) -> Any:
    """Two trees as one; `o` where they are of different kinds."""
    if left is None or left in (right, "?"):
        return right
    if right == "?":
        return left
    if isinstance(left, dict) and isinstance(right, dict):
        return {
            name: merged(left.get(name), right[name]) if name in right else left[name] for name in {**left, **right}
        }
    if isinstance(left, str) and isinstance(right, str) and left[0] == right[0] == "s":
        words = {*left.split()[1:], *right.split()[1:]} if " " in left and " " in right else set()
        return " ".join(["s", *sorted(words, key=lambda word: (word not in "=~", word))])
    return "o"
