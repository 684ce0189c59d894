"""What release f44b843 made of every fixture event, recorded once: goals, names, once keys, dedupe keys.

An upgrade must change none of it (the first law of upgrading): people build funnels on names, and a key made anew would
send a goal twice. `tests/fixtures/golden/f44b843.json.gz` was written by this program on that commit:
`python tests/pipeline/golden.py write`. It holds the events of the shipped files' own tests, too, because those files
change. It is never written again; `test_golden.py` compares.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import corpus  # noqa: E402
import yaml  # noqa: E402
from sources_kit import NOW, request, signed_request  # noqa: E402

from bridge import rules, sources  # noqa: E402
from bridge.model import BodyForm, Event, EventState  # noqa: E402
from bridge.prepare import Preparer  # noqa: E402
from bridge.settings import load  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.model import NewEvent, Request, Source

FILE = ROOT / "tests" / "fixtures" / "golden" / "f44b843.json.gz"
SIMULATED = ROOT / "tests" / "fixtures" / "simulator"
EXAMPLES = ("creem", "gumroad", "paddle", "polar", "shopify")  # that f44b843 had
SHIPPED = [
    *sorted((ROOT / "mappings").glob("*.yaml")),
    *(ROOT / "mappings" / "examples" / f"{name}.yaml" for name in EXAMPLES),
]
ENVIRON = corpus.secrets() | {
    f"{name}_{what}": "whsec_" + "a2V5" * 8
    for name in ("PADDLE", "CREEM", "GUMROAD", "SHOPIFY", "POLAR")
    for what in ("WEBHOOK_SECRET", "SELLER_ID")
}


def mapping_files() -> dict[str, str]:
    """The shipped files and examples with every rule switched on, and a small file for each other provider."""
    own = {f"{name}.yaml": text for name, text in corpus.GENERIC.items() if text is not None}
    shipped = {file.name: file.read_text("utf-8") for file in SHIPPED}
    return own | {name: re.sub(r"(?m)^ +enabled: false.*\n", "", text) for name, text in shipped.items()}


def recorded_events() -> list[dict[str, Any]]:
    """The events of a recording that are not files: those of the shipped files' tests at f44b843."""
    return [entry for entry in json.loads(gzip.decompress(FILE.read_bytes()))["events"] if "body" in entry]


def events() -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """(name, source, body, headers) of every payload file, as it is and with a visitor in it."""
    for payload in corpus.payloads():
        for injected in (False, True):
            body = corpus.body_of(payload, injected=injected)
            body = re.sub(rb'"webhookTimestamp": \d+', b'"webhookTimestamp": %d' % (NOW * 1000), body)
            name = payload.name + ("+visitor" if injected else "")
            yield name, payload.source, body, corpus.headers_of(payload)
    for file in sorted(SIMULATED.rglob("*.json")):
        if file.name not in corpus.NOT_EVENTS:
            yield f"simulator/{file.parent.name}/{file.name}", file.parent.name, file.read_bytes().strip(), {}


def mapping_tests() -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """The same of each test in the shipped files."""
    for file in SHIPPED:
        said = yaml.safe_load(file.read_text("utf-8"))
        for number, test in enumerate(said.get("tests", ()), 1):
            event = test["event"]
            form = sources.presets()[said["provider"]].get("body") == "form"
            body = urlencode(_flat(event)) if form else json.dumps(event)
            headers = {name: str(value) for name, value in test.get("headers", {}).items()}
            yield f"{file.name}#{number} {test['name']}", file.stem, body.encode(), headers


def _flat(event: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in event.items():
        name = f"{above}[{key}]" if above else key
        pairs += _flat(value, name) if isinstance(value, dict) else [(name, str(value))]
    return pairs


class Player:
    """A rule set that is asked about one event at a time, without a database."""

    def __init__(self) -> None:
        self.rule_set = rules.load(mapping_files(), ENVIRON, sources.presets())
        settings = load({"DATAFAST_API_KEY": "df_key"})
        self.rig = Preparer(self.rule_set, settings, {}, b"golden")

    def read(self, source_name: str, body: bytes, headers: dict[str, str]) -> NewEvent:
        """The event that receiving would store."""
        source = self.rule_set.sources[source_name]
        return sources.read(source, _request(source, body, headers))

    def play(self, name: str, source_name: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """What one delivery is known by, and what each rule makes of it."""
        source = self.rule_set.sources[source_name]
        new = self.read(source_name, body, headers)
        event = Event(7, source.name, source.provider, new.envelope, NOW * 1000, EventState.RECEIVED,
                      new.headers, new.query, body)  # fmt: skip
        prepared = self.rig.prepare(event)
        goals = [
            {
                "rule": draft.planned.rule_id,
                "name": draft.planned.name,
                "once": draft.planned.once_key,
                "visitor": [named.visitor for named in draft.own],
                "metadata": dict(draft.planned.metadata),
            }
            for element in prepared.elements
            for draft in element.drafts
            if draft.planned.kind == "goal"  # there were no payments
        ]
        return {
            "name": name,
            "source": source_name,
            "type": new.envelope.type,
            "dedupe": list(new.dedupe_keys),
            "quarantine": prepared.quarantine or new.quarantine,
            "goals": goals,
        }


def _request(source: Source, body: bytes, headers: dict[str, str]) -> Request:
    """As the provider would send it; nobody verifies it here."""
    if source.body is BodyForm.JSON_FIELD or source.verify.signature.places[:1] == ():
        return request(body, headers)
    secret = "whsec_" + "a2V5" * 8
    made = signed_request(source, secret, body, NOW, "msg_golden", signer=lambda *_: b"unsigned")
    sent = made.headers
    if source.provider == "resend":  # which uses the other family of names
        sent = {name.replace("webhook-", "svix-"): value for name, value in sent.items()}
    return request(body, {**sent, **headers}, made.url)


def rule_table(player: Player) -> dict[str, list[list[Any]]]:
    """source → [rule id, goal name, whether it is on as shipped]."""
    shipped = {
        file.stem: {goal.get("id", goal["goal"]): goal.get("enabled", True) for goal in said["goals"]}
        for file in SHIPPED
        for said in [yaml.safe_load(file.read_text("utf-8"))]
    }
    return {
        name: [[rule.id, rule.name.text, shipped[name][rule.id]] for rule in player.rule_set.rules[name]]
        for name in sorted(shipped)
    }


def write() -> None:
    player = Player()
    played = [player.play(*event) for event in events()]
    for event in mapping_tests():
        _, _, body, headers = event
        played.append(player.play(*event) | {"body": body.decode(), "headers": headers})
    record = {"commit": "f44b843", "rules": rule_table(player), "events": played}
    FILE.write_bytes(gzip.compress(json.dumps(record, indent=0, sort_keys=True).encode(), mtime=0))
    goals = sum(len(entry["goals"]) for entry in played)
    print(f"wrote {FILE.relative_to(ROOT)}: {len(played)} events, {goals} goals")


if __name__ == "__main__":
    if sys.argv[1:] != ["write"]:
        raise SystemExit("usage: python tests/pipeline/golden.py write   (on f44b843 only)")
    write()
