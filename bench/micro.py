"""What one event costs inside the process: verify and parse, one rule, a hundred rules that do not match.

It also measures what it takes to find the rule that came nearest, for `why`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench import events
from bench.servers import SECRET
from bridge import rules, sources
from bridge.model import Document, Request
from bridge.rules.engine import nearest
from bridge.sources import detection

VECTORS: Final = Path(__file__).parents[1] / "tests" / "contract" / "sources" / "vectors"
MAPPING = """
provider: stripe
goals:
  - goal: purchase
    event: checkout.session.completed
    when: {data.object.payment_status: paid, data.object.amount_total: {gt: 0}}
    once_per: data.object.id
    metadata: {amount: "{data.object.amount_total|money:data.object.currency}"}
"""


def micro_s(work: Callable[[], object], seconds: float = 0.5) -> float:
    """Seconds per call: the median of 20 rounds."""
    rounds = max(1, int(seconds / 20 / max(_once(work), 1e-7)))
    return statistics.median(_rounds(work, rounds) for _ in range(20))


def _once(work: Callable[[], object]) -> float:
    return _rounds(work, 5)


def _rounds(work: Callable[[], object], rounds: int) -> float:
    started = time.perf_counter()
    for _ in range(rounds):
        work()
    return (time.perf_counter() - started) / rounds


def _load(text: str) -> rules.RuleSet:
    environ = {"STRIPE_WEBHOOK_SECRET": SECRET}
    return rules.load({"stripe.yaml": text}, environ, sources.presets())


def _detect_ms(file: Path) -> float:
    """How long it takes to find the scheme of a captured request, or that there is none; the best of five."""
    captured = json.loads(file.read_text())
    secret = captured["secret"][0] if isinstance(captured["secret"], list) else captured["secret"]
    headers = {name.lower(): value for name, value in captured["headers"].items()}
    url = urlsplit(captured["url"])
    body = base64.b64decode(captured["body_base64"])
    request = Request(captured["method"], captured["url"], url.path, url.query, headers, body)
    return min(_rounds(lambda: detection.detect(request, secret or ""), 1) for _ in range(5)) * 1e3


def run() -> dict[str, float]:
    single = _load(MAPPING)
    source = single.sources["stripe"]
    raw = events.body(1, type="checkout.session.completed", visitor=True)
    header = {"stripe-signature": events.signed(raw)["Stripe-Signature"]}
    request = Request("POST", "http://x/webhooks/stripe", "/webhooks/stripe", "", header, raw)

    def verify_and_parse() -> None:
        sources.verify(source, request, time.time())
        sources.read(source, request)

    def plain() -> None:
        hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
        json.loads(raw)

    document = Document(json.loads(raw), envelope={"type": "checkout.session.completed", "id": "evt_1"})
    other = "".join(
        f"  - goal: g{index}\n    event: checkout.session.completed\n    when: {{data.object.mode: m{index}}}\n"
        for index in range(100)
    )
    hundred = _load("provider: stripe\ngoals:\n" + other)
    elsewhere = _load("provider: stripe\ngoals:\n" + other.replace("checkout.session.completed", "invoice.paid"))

    def evaluate(rule_set: rules.RuleSet) -> Callable[[], rules.Evaluation]:
        source = rule_set.sources["stripe"]
        return lambda: rules.evaluate(rule_set, source, document, event_name="evt_1", mode="live", hash_key=b"k")

    table, missed = hundred.tables["stripe"], evaluate(hundred)().traces

    return {
        "slowest_detect_ms": max(_detect_ms(file) for file in sorted(VECTORS.rglob("*.json"))),
        "body_bytes": len(raw),
        "hmac_and_json_us": micro_s(plain) * 1e6,
        "verify_and_parse_us": micro_s(verify_and_parse) * 1e6,
        "one_rule_us": micro_s(evaluate(single)) * 1e6,
        "hundred_rules_us": micro_s(evaluate(hundred)) * 1e6,
        "hundred_elsewhere_us": micro_s(evaluate(elsewhere)) * 1e6,
        "nearest_us": micro_s(lambda: nearest(table, range(100), missed, document)) * 1e6,
    }
