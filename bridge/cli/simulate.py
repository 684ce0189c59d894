"""`simulate`: posts signed events of a provider to a bridge, from a scenario or from a file with a body.

The scenarios and the signing are in `bridge.sandbox`; this is their command line.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import click

from bridge import mapping_tests, sources
from bridge.cli import captured, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, UsageError
from bridge.model import BodyForm, Request, Source
from bridge.sandbox import encode, mix, scenarios, sign, simulator
from bridge.sandbox.scenarios import SCENARIOS, Step
from bridge.text import count, listing

if TYPE_CHECKING:
    from bridge.sandbox.simulator import Sent

_TRANSPORT_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


@command(
    examples=[
        ("simulate --list", "every scenario, one per line"),
        ("simulate stripe-refund --to http://127.0.0.1:8000", "a purchase, and its refund that carries no visitor id"),
        (
            "simulate stripe-purchase --to http://127.0.0.1:8000 --set data.object.amount_total=0",
            "the same with another value in the body",
        ),
        ("simulate --file event.json --source tally", "any body, signed as Tally signs, to the bridge on this machine"),
    ]
)
@click.argument("scenario", required=False)
@click.option(
    "--file", "file", metavar="FILE", help="Post this body (or captured request) instead, signed as --source expects."
)
@click.option("--source", "source", metavar="NAME", help="The source (the mapping file's name) that receives FILE.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="One more header for FILE's request.")
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="URL",
    help="The bridge's address, or a whole URL; repeat --to to alternate between several."
    " Default: the bridge of this folder's settings.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set this path to VALUE in every body that has a place for it.",
)
@click.option(
    "--seed", metavar="N", type=int, help="The same N gives the same ids. Without it, each run is a new sale."
)
@click.option("--test", is_flag=True, help="Send what the provider sends in test mode.")
@click.option("--duplicates", is_flag=True, help="Send some events more than once, as providers do.")
@click.option("--shuffle", is_flag=True, help="Send the events in random order.")
@click.option("--list", "listed", is_flag=True, help="List the scenarios.")
def simulate(scenario: str | None, targets: Sequence[str], listed: bool, **given: Any) -> int:
    """Post the signed events of a named scenario to a bridge, or the body in a file.

    Events are signed with the variables that the bridge reads (STRIPE_WEBHOOK_SECRET, …), so set the same values. The
    exit code is 1 if the bridge answered an event with anything but 200.
    """
    screen = current_screen()
    if listed:
        _list(screen)
        return 0
    if (scenario is None) == (given["file"] is None):
        ending = " Not both." if scenario is not None else ""
        sentence = "Name a scenario (simulate stripe-refund; --list shows all), or a file: --file event.json."
        raise UsageError(f"{sentence}{ending}")
    scenario_options = ("shuffle", "test", "seed")
    if scenario is None and (misplaced := [name for name in scenario_options if given[name] not in (None, False)]):
        raise UsageError(f"--{misplaced[0]} is for scenarios; a file is posted as it is.")
    targets = targets or (f"http://127.0.0.1:{resources.settings_or_defaults().port}",)
    for to in targets:
        simulator.target(to, "")  # reports a wrong URL before anything is sent
    if given["file"] is None:
        sent, seed = _scenario(screen, str(scenario), targets, given)
    else:
        sent, seed = _file(screen, given, targets), None
    screen.write_json(({"seed": seed} if seed is not None else {}) | {"sent": [_row(outcome) for outcome in sent]})
    refused = sum(not outcome.ok for outcome in sent)
    if refused:
        screen.say(f"{count(refused, 'event')} not accepted.")
    return 1 if refused else 0


def _list(screen: Screen) -> None:
    rows = [(scenario.name, scenario.help, " ".join(scenario.shapes)) for scenario in SCENARIOS.values()]
    screen.write_json([{"name": name, "help": text, "versions": shapes.split()} for name, text, shapes in rows])
    screen.table(("SCENARIO", "WHAT HAPPENS", "VERSIONS (name@version)"), rows)


def _scenario(screen: Screen, name: str, targets: Sequence[str], given: Mapping[str, Any]) -> tuple[list[Sent], int]:
    seed = random.randrange(1_000_000) if given["seed"] is None else given["seed"]  # noqa: S311 - a play, not a secret
    steps = scenarios.build(name, seed=seed, end_s=int(time.time()), test=given["test"])
    steps = mix.changed(steps, [mix.parse_set(text) for text in given["sets"]])
    if given["duplicates"]:
        steps = mix.duplicated(steps, seed=seed)
    if given["shuffle"]:
        steps = mix.reordered(steps, seed=seed)
    secrets = simulator.secrets_from(resources.environ(), steps)
    sent: list[Sent] = []
    for outcome in simulator.play(steps, targets, secrets, time.time):
        _show(screen, outcome, len(sent), len(steps))
        sent.append(outcome)
    return sent, seed


def _show(screen: Screen, outcome: Sent, sent_before: int, total: int) -> None:
    """Say what became of an event. BridgeError if nobody answers at the URL."""
    if outcome.unreachable:
        raise BridgeError(
            f"{outcome.url} cannot be reached ({outcome.answer}): start the bridge with `python -m bridge serve`, or"
            f" name another --to; {sent_before} of {count(total, 'event')} sent before"
        )
    answer = outcome.answer if outcome.status is None else f"{outcome.status} {outcome.answer}"
    screen.mark("ok" if outcome.ok else "fail", f"{outcome.step.type} {outcome.step.id}: {answer}")


# ------------------------------------------------------------------------------------------------- a file of your own


def _file(screen: Screen, given: Mapping[str, Any], targets: Sequence[str]) -> list[Sent]:
    content = captured.read_file(given["file"])
    source = _source(given["source"] or captured.source_in(content))
    request = _request(source, content, given["sets"], given["headers"])
    sent: list[Sent] = []
    times = 2 if given["duplicates"] else 1
    for _ in range(times):
        url = simulator.target(targets[0], source.name)
        step, signed = _signed(source, replace(request, url=source.public_url or url))
        query = f"?{signed.query_string}" if signed.query_string else ""
        sent.append(simulator.post(step, url + query, simulator.Signed(signed.headers, signed.body)))
        _show(screen, sent[-1], len(sent) - 1, times)
    return sent


def _source(name: str | None) -> Source:
    """The source that receives the file; UsageError unless it has a secret to sign with."""
    rule_set = resources.load_rules()
    name = name or resources.only_source(rule_set)
    source = resources.source(rule_set, name)
    if not source.secrets:
        names = listing(list(source.secret_names[:1])) if source.secret_names else "its secret"
        raise UsageError(f"To sign for {name}, set {names} to what the bridge has.")
    return source


def _request(source: Source, content: bytes, sets: Sequence[str], headers: Sequence[str]) -> Request:
    """The request without its signature, in the body format of this source."""
    request = captured.request(content, source.name)
    request = replace(request, method="POST", body=_body(source, request.body, sets))
    kind = "application/json" if source.body is BodyForm.JSON else "application/x-www-form-urlencoded"
    kept = {name: value for name, value in request.headers.items() if name not in _TRANSPORT_HEADERS}
    named = dict(_header(text) for text in headers)
    return replace(request, headers={"content-type": kind, **kept, **named})


def _body(source: Source, body: bytes, sets: Sequence[str]) -> bytes:
    """The bytes unchanged; re-encoded if values are set, or if JSON is given for a source that sends forms."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        if sets:
            raise UsageError("--set changes JSON, and the file is not JSON.") from None
        return body
    if sets:
        step = Step(0, source.name, "", "", "", document)
        document = mix.changed([step], [mix.parse_set(text) for text in sets])[0].body
        body = encode.compact(document)
    return mapping_tests.body_of(source, document) if source.body is BodyForm.FORM else body


def _in_form_field(source: Source, request: Request) -> Request:
    """The request with its JSON as the only form field, for senders that wrap it."""
    if source.body is not BodyForm.JSON_FIELD or not request.body.lstrip().startswith(b"{"):
        return request
    return replace(request, body=urlencode({source.body_field or "": request.body}).encode())


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not value.strip().isprintable():
        raise UsageError(f"--header is {text!r}, but must be NAME:VALUE, such as X-Shopify-Topic:orders/paid.")
    return name.strip().lower(), value.strip()


def _signed(source: Source, request: Request) -> tuple[Step, Request]:
    """The request signed with the source's own scheme, and what the bridge will read from it."""
    # The same file is the same event, like a provider's retry.
    event_id = f"sim_{hashlib.sha256(request.body).hexdigest()[:24]}"
    in_body = any(place.where == "body" for place in source.verify.signature.places)  # Ko-fi: in the JSON, not the form
    if in_body and not _is_object(request.body):
        raise UsageError(f"{source.name} has its token in its JSON, and the file is not a JSON object.")
    signed = _in_form_field(source, request) if not in_body else request
    signed = sign.by_scheme(source.verify, signed, source.secrets[0], event_id, int(time.time()))
    signed = _in_form_field(source, signed)
    envelope = sources.read(source, signed).envelope
    return Step(0, source.name, "", envelope.type or "an event", envelope.id or "without an id", {}), signed


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _row(outcome: Sent) -> dict[str, Any]:
    return {
        "type": outcome.step.type,
        "id": outcome.step.id,
        "url": outcome.url,
        "status": outcome.status,
        "answer": outcome.answer,
        "ms": round(outcome.ms, 1),
    }
