"""The bridge reads what the simulator plays as it is meant: authentic, one thread a purchase, exactly these goals."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

import pytest
from cases_kit import one_in

from bridge import identity, rules, sources
from bridge.errors import SignatureError
from bridge.model import Event, EventState, Request
from bridge.sandbox import scenarios, simulator

ROOT = Path(__file__).parents[3]
NOW_S = 1_790_000_000
KEY = "whsec_" + base64.b64encode(b"k" * 24).decode()
SECRETS = dict.fromkeys(("stripe", "lemonsqueezy", "generic", "polar", "tally", "calcom", "clerk"), KEY)
ENVIRON = {simulator.secret_name(source): secret for source, secret in SECRETS.items()}
ALL = [
    f"{scenario.name}@{shape}" if shape else scenario.name
    for scenario in scenarios.SCENARIOS.values()
    for shape in scenario.shapes or ("",)
]
every = pytest.mark.parametrize("name", one_in(3, ALL))


@cache
def rule_set() -> rules.RuleSet:
    files = rules.read_files(ROOT / "mappings")
    for name in ("polar", "tally", "calcom", "clerk"):
        files[f"{name}.yaml"] = (ROOT / "mappings" / "examples" / f"{name}.yaml").read_text()
    return rules.load(files, ENVIRON, sources.presets())


@cache
def played(name: str, **options: object) -> tuple[scenarios.Step, ...]:
    return scenarios.build(name, **{"seed": 5, "end_s": NOW_S} | options)


def request(step: scenarios.Step, secret: str = KEY) -> Request:
    signed = simulator.request(step, secret, NOW_S)
    headers = {name.lower(): value for name, value in signed.headers.items()}
    path = f"/webhooks/{step.source}"
    return Request("POST", f"http://127.0.0.1{path}", path, "", headers, signed.body)


def read(step: scenarios.Step) -> Event:
    new = sources.read(rule_set().sources[step.source], request(step))
    assert new.quarantine is None
    return Event(
        id=1, source=new.source, provider=new.provider, envelope=new.envelope, received_at_ms=NOW_S * 1000,
        state=EventState.RECEIVED, headers=new.headers, query=new.query, body=new.body,
    )  # fmt: skip


@every
def test_every_event_is_authentic_and_a_forged_one_is_not(name: str) -> None:
    for step in played(name):
        source = rule_set().sources[step.source]
        sources.verify(source, request(step), NOW_S)
        with pytest.raises(SignatureError):
            sources.verify(source, request(step, "whsec_" + base64.b64encode(b"x" * 24).decode()), NOW_S)


@every
def test_every_event_is_read_as_what_it_is(name: str) -> None:
    for test in (False, True):
        for step in played(name, test=test):
            envelope = read(step).envelope
            assert envelope.type == step.type
            assert envelope.test is (test and step.wire in ("stripe", "lemonsqueezy"))
            assert envelope.time_ms in (None, step.at_s * 1000)


@every
def test_no_two_events_look_like_the_same_one(name: str) -> None:
    seen = [key for step in played(name) for key in set(_dedupe_keys(step))]
    assert len(seen) == len(set(seen))


def _dedupe_keys(step: scenarios.Step) -> tuple[str, ...]:
    return sources.read(rule_set().sources[step.source], request(step)).dedupe_keys


def _threads(name: str) -> list[tuple[set[str], set[str]]]:
    """The keys of all events, joined where an event names two; and the visitors that their events carry."""
    threads: list[tuple[set[str], set[str]]] = []
    for step in played(name):
        keys = set(_tying(step))
        visitors = {step.visitor} - {None}
        for thread in [thread for thread in threads if thread[0] & keys]:
            keys |= thread[0]
            visitors |= thread[1]
            threads.remove(thread)
        if keys:
            threads.append((keys, visitors))
    return threads


def _tying(step: scenarios.Step) -> list[str]:
    source, event = rule_set().sources[step.source], read(step)
    (document,) = sources.documents(source, event)
    keys = identity.keys(source, event.envelope, document)
    return [key.text for key in keys if key.strong or (key.kind == "user" and step.source in ("clerk", "stripe"))]


@every
def test_the_thread_of_a_goal_leads_to_its_visitor_and_to_no_other(name: str) -> None:
    """Whatever the order: it is the union of all events' strong keys, and of their users, that decides."""
    threads = _threads(name)
    for step in played(name):
        for goal in step.goals:
            if step.visitor:
                assert step.visitor == goal.visitor
            else:
                (visitors,) = (visitors for keys, visitors in threads if keys & set(_tying(step)))
                assert visitors == {goal.visitor}, step.type


@every
def test_the_shipped_rules_make_exactly_the_expected_goals(name: str) -> None:
    once: set[str] = set()
    for step in played(name):
        made = []
        event = read(step)
        (document,) = sources.documents(rule_set().sources[step.source], event)
        evaluation = rules.evaluate(
            rule_set(), rule_set().sources[step.source], document, event_name=step.id, mode="live", hash_key=b"k"
        )
        for planned in evaluation.planned:
            if planned.once_key not in once:
                once.add(planned.once_key)
                made.append(planned)
        assert [goal.name for goal in made] == [goal.name for goal in step.goals], step.type
        for goal, expected in zip(made, step.goals, strict=True):
            assert dict(goal.metadata) | dict(expected.metadata) == dict(goal.metadata), step.type
