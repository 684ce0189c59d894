"""`doctor`: does everything work, from the settings to a goal that DataFast shows?

It renders the alarms and notes of `/status` (`bridge.alarms`) and adds probes of its own. Each finding has a level
(`ok`, `warn`, `fail`), a subject, and a sentence with what to do. Nothing is changed, except that `--visitor` sends the
goal `bridge_test`. Requests to DataFast share the worker's rate limit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import click

from bridge import alarms, datafast, identity, loading
from bridge import settings as settings_
from bridge.alerts import targets
from bridge.cli import resources
from bridge.cli.catalogue import command
from bridge.cli.screen import current_screen
from bridge.datafast import goal as goals_
from bridge.errors import ProblemsError, SettingsError, StoreError, UsageError
from bridge.lookup import asking
from bridge.lookup.step import DEADLINE_MS, STRIPE_URL, is_test
from bridge.masking import fingerprint
from bridge.model import Candidate, CompletedGoal, Destination, Outcome, OutcomeKind
from bridge.store import Store, clock
from bridge.store.delivery import claims
from bridge.store.links import lookups
from bridge.store.operator import status
from bridge.text import ago, count, listing, when
from bridge.workbench import people

if TYPE_CHECKING:
    from bridge.datafast import Client
    from bridge.lookup.asking import StripeAnswer
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store.operator.status import Snapshot

GOAL: Final = "bridge_test"
READ_BACK_PAUSES_S: Final = (0.5, 2.0, 4.0)  # after sending; DataFast may take a moment to show a goal
_RELEARN: Final = "`python -m bridge relearn` for the goals that wait"
STRIPE: Final = "Stripe lookups"
STRIPE_KEYS: Final = "https://dashboard.stripe.com/apikeys"


@dataclass(frozen=True)
class Finding:
    """One line of the answer. level: ok, warn or fail."""

    level: str
    about: str
    sentence: str


@command(
    examples=[
        ("doctor", "settings, database, mapping files, key, worker"),
        (
            "doctor --visitor 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
            "the same, and the goal bridge_test for that visitor",
        ),
    ]
)
@click.option("--visitor", metavar="ID", help="Your own cookie datafast_visitor_id: send the goal bridge_test for it.")
@click.option(
    "--destination", metavar="NAME", default="default", show_default=True, help="Destination that --visitor sends to."
)
def doctor(visitor: str | None, destination: str) -> int:
    """Test everything that the bridge needs, and say what is wrong and how to fix it.

    With --visitor it sends one goal named bridge_test to DataFast, reads it back, and says what arrived. ID is the
    value of the cookie datafast_visitor_id in a browser that has visited your website. The exit code is 1 if
    something fails, which is always the case while /status answers 503.
    """
    screen = current_screen()
    findings = []
    for finding in examine(visitor, destination):
        findings.append(finding)
        screen.mark(finding.level, f"{finding.about}: {finding.sentence}")
    failed = sum(finding.level == "fail" for finding in findings)
    answer = {"ok": failed == 0, "findings": [asdict(finding) for finding in findings]}
    screen.answer(answer, "", f"{count(failed, 'problem')} to fix." if failed else "No problems.")
    return 1 if failed else 0


def examine(visitor: str | None, destination: str) -> Iterator[Finding]:
    """All findings, each as soon as it is known."""
    given = resources.environ()
    settings = None
    try:
        settings = settings_.load(given)
        resources.require_usable(settings.database_url)
    except SettingsError as error:
        yield from (Finding("fail", "settings", problem) for problem in error.problems)
    else:
        yield from (Finding("fail", "settings", problem) for problem in settings.problems)
        if not settings.problems:
            yield Finding("ok", "settings", "every value is valid")
        yield from (Finding("warn", "settings", warning) for warning in settings.warnings)
        yield from _alerts(settings)
    rule_set = None
    try:
        rule_set = resources.load_rules()
    except ProblemsError as error:
        yield from (Finding("fail", "mappings", problem) for problem in error.problems)
    else:
        yield from _rules(rule_set)
    with resources.maybe_store() as (store, reason):
        if store is None:
            yield Finding("fail", "database", str(reason))
        else:
            kind = "SQLite" if store.dialect == "sqlite" else "PostgreSQL"
            yield Finding("ok", "database", f"{kind} answers, and its schema is current")
            yield from _database(store, settings or resources.settings_or_defaults(), rule_set)
        if settings is not None:
            yield from check_stripe(settings, store)
            yield from _datafast(settings, rule_set, store, visitor, destination)


def _alerts(settings: Settings) -> Iterator[Finding]:
    """Check that apprise can read every target of BRIDGE_ALERTS. Nothing is sent to them."""
    if not settings.bridge_alerts:
        return
    wrong = targets.unreadable(settings.bridge_alerts)
    yield from (Finding("fail", "alerts", sentence) for sentence in wrong)
    if not wrong:
        yield Finding(
            "ok", "alerts", f"{targets.summary(settings.bridge_alerts)}; `alerts test` sends a message to each"
        )


def _rules(rule_set: RuleSet) -> Iterator[Finding]:
    rules = sum(rule.enabled for rules in rule_set.rules.values() for rule in rules)
    names = listing(sorted(rule_set.sources), "no source")
    yield Finding("ok", "mappings", f"{names}: {count(rules, 'rule')} switched on")
    yield from (Finding("fail", "mappings", problem) for problem in rule_set.problems)
    yield from (Finding("warn", "mappings", warning) for warning in rule_set.warnings)


# ----------------------------------------------------------------------------------------------------- database


def _database(store: Store, settings: Settings, rule_set: RuleSet | None) -> Iterator[Finding]:
    destinations = loading.destinations(settings, rule_set)
    try:
        status.require_ready(store)
        with store.read() as conn:
            doubt = status.durability_doubt(conn)
            found = status.snapshot(conn, sorted(destinations), settings.stripe_api_key)
    except StoreError as error:
        yield Finding("fail", "database", str(error))
        return
    if doubt:
        yield Finding("warn", "database", doubt)
    yield from _processes(found, rule_set)
    yield from _alarms_and_notes(found, settings, rule_set, destinations)
    if rule_set is not None:
        yield from _improvements(store, rule_set, settings)


def _improvements(store: Store, rule_set: RuleSet, settings: Settings) -> Iterator[Finding]:
    """Settings or rules with which more visitors would be found, judged by the stored events."""
    found = people.improvements(store, rule_set, settings)
    for unread in found.fields:
        known = f" ({unread.known} of them name a user whose visitor is known)" if unread.known else ""
        noun = "sale" if unread.sales else "goal"
        carry = f"{noun} carries" if unread.goals == 1 else f"{noun}s carry"
        sentence = (
            f"{unread.goals} {unread.source.capitalize()} {carry} `{unread.name}`{known}; add"
            f" `links: {{user: {unread.path}}}` to {unread.source}.yaml if that is your users' id, then {_RELEARN}"
        )
        yield Finding("warn", f"source {unread.source}", sentence)
    if found.by_email:
        sentence = (
            f"e-mail matching would have found a visitor for {found.by_email} of {found.goals} goals that have none:"
            f" BRIDGE_MATCH_EMAIL=on switches it on (docs/privacy.md), then {_RELEARN}"
        )
        yield Finding("warn", "visitors", sentence)


def _processes(found: Snapshot, rule_set: RuleSet | None) -> Iterator[Finding]:
    """Which processes run, and whether they use the current mapping files."""
    if (seen := found.worker_seen_at_ms) is not None:
        working = sum(beat.kind != "web" for beat in found.heartbeats)
        yield Finding(
            "ok", "worker", f"{count(working, 'process', 'processes')} at work, last seen {ago(seen, found.now_ms)}"
        )
    others = [beat for beat in found.heartbeats if rule_set and beat.rules_hash not in (None, rule_set.hash)]
    if others and not any(beat.rules_fault for beat in others):
        work = count(len(others), "process works", "processes work")
        yield Finding("warn", "mappings", f"{work} with another version of the mapping files")


def _alarms_and_notes(
    found: Snapshot, settings: Settings, rule_set: RuleSet | None, destinations: Mapping[str, Destination]
) -> Iterator[Finding]:
    """The alarms and notes of `/status`, each with its detail; for each healthy source, how many goals have a visitor.

    If no process runs at all, nobody queries `/status`, so the missing worker is only a warning.
    """
    sources, share = rule_set.sources if rule_set else {}, settings.bridge_attribution_alarm
    for level, found_alarms in (
        ("fail", alarms.alarms(found, None, sources, destinations, share)),
        ("warn", alarms.notes(found, sources)),
    ):
        for alarm in found_alarms:
            idle = alarm.name == "no_worker" and not found.heartbeats
            about = "worker" if idle else alarm.name.replace("_", " ")
            yield Finding("warn" if idle else level, about, f"{alarm.sentence} {alarm.explanation}")
    for source in found.attribution:
        if source.source in sources and not source.lacks(share):
            yield Finding("ok", f"source {source.source}", alarms.attribution_sentence(source))


# ------------------------------------------------------------------------------------------------------- Stripe


def check_stripe(settings: Settings, store: Store | None, url: str | None = None) -> Iterator[Finding]:
    """Check what lookups need: may the Stripe key read it, and are they paused? Nothing without STRIPE_API_KEY.

    url: Stripe's API, or a stand-in for it.
    """
    key = settings.stripe_api_key
    if key is None:
        return
    from bridge.lookup.client import StripeClient

    missing = []
    with closing(StripeClient(key, url or STRIPE_URL, DEADLINE_MS)) as client:
        for permission, name in asking.PERMISSIONS.items():
            answer = client.may_read(permission)
            if (stopped := _blocked(answer)) is not None:
                yield stopped
                return
            if answer.kind == "permission":
                missing.append(name)
    kind = f"the key ({'_'.join(key.split('_')[:2])}_…)"
    mode = "test events, and those only where DATAFAST_TEST_API_KEY is set" if is_test(key) else "live events"
    if missing:
        yield Finding("warn", STRIPE, f'{kind} may not read {listing(missing)}: give it "Read" there, at {STRIPE_KEYS}')
    else:
        yield Finding("ok", STRIPE, f"{kind} may read all that is needed; goals of {mode} are looked up")
    yield from _short_pauses(store, key)


def _blocked(answer: StripeAnswer) -> Finding | None:
    """The finding after which no other is possible; None if there may be more."""
    if answer.kind == "key":
        return Finding("fail", STRIPE, answer.message)
    if answer.kind in ("unreachable", "rate", "refused"):
        return Finding("warn", STRIPE, f"cannot be tried just now: {answer.message}")
    return None


def _short_pauses(store: Store | None, key: str) -> Iterator[Finding]:
    """Report short pauses; a lasting one is an alarm."""
    if store is None:
        return
    try:
        with store.read() as conn:
            now_ms, paused = clock.read_ms(conn), lookups.paused(conn, fingerprint(key))
            alarmed = {pause.what for pause in lookups.lasting_pauses(conn, fingerprint(key))}
    except StoreError:  # the finding about the database reports this already
        return
    for pause in paused.values():
        if pause.what not in alarmed:
            since, again = when(pause.since_ms), ago(pause.until_ms, now_ms)
            yield Finding("warn", STRIPE, f"has been paused since {since}: {pause.reason}; asked again {again}")


# ----------------------------------------------------------------------------------------------------- DataFast


def _datafast(
    settings: Settings, rule_set: RuleSet | None, store: Store | None, visitor: str | None, name: str
) -> Iterator[Finding]:
    known = loading.destinations(settings, rule_set)
    if visitor is not None and name not in known:
        raise UsageError(f"There is no destination {name!r}; there are {listing(sorted(known))}.")
    rate_limit = _RateLimit(store, settings)
    with closing(datafast.Client(settings.datafast_api_url, settings.bridge_deadline)) as client:
        for destination in known.values():
            yield _key(client, rate_limit, destination)
        if visitor is not None:
            yield from _try_goal(client, rate_limit, known[name], _visitor(visitor, settings))


class _RateLimit:
    """Waits for a slot of the token's rate limit, so that a diagnosis never exceeds it."""

    def __init__(self, store: Store | None, settings: Settings) -> None:
        self._store, self._rate = store, settings.bridge_rate_per_minute

    def wait(self, destination: Destination) -> None:
        store, token = self._store, fingerprint(destination.api_key)
        if store is None:
            return
        for _ in range(5):
            wait_ms = store.run(lambda conn: claims.reserve(conn, token, self._rate))
            if wait_ms == 0:
                return
            time.sleep(wait_ms / 1000)


def _key(client: Client, rate_limit: _RateLimit, destination: Destination) -> Finding:
    about = f"destination {destination.name}"
    if not destination.api_key:
        return Finding("warn", about, "has no API key: its goals are made and wait")
    rate_limit.wait(destination)
    return _website(about, destination.api_key, client.website(destination))


def _website(about: str, key: str, answer: str | Outcome) -> Finding:
    kind = key.partition("_")[0] + "_…"
    if not isinstance(answer, Outcome):
        return Finding("ok", about, f"the key ({kind}) belongs to {answer}")
    if answer.kind is OutcomeKind.CONFIGURATION and answer.status == 403:
        return Finding("warn", about, f"the key ({kind}) may not say which website it belongs to: {answer.message}")
    return Finding("fail", about, f"the key ({kind}): {answer.message or answer.kind.value}")


def _visitor(text: str, settings: Settings) -> str:
    judged = identity.judge(Candidate("--visitor", text), settings.bridge_visitor_id)
    if judged.visitor is None:
        raise UsageError(f"--visitor {judged.why}")
    return judged.visitor


def _try_goal(client: Client, rate_limit: _RateLimit, destination: Destination, visitor: str) -> Iterator[Finding]:
    description = f"bridge doctor {time.time_ns() // 1_000_000}"
    rate_limit.wait(destination)
    outcome = client.post(destination, "goals", goals_.body(visitor, GOAL, description, {}))
    if outcome.kind is OutcomeKind.UNKNOWN_VISITOR:
        yield Finding(
            "fail",
            GOAL,
            f"DataFast does not know the visitor {visitor}: is it the cookie datafast_visitor_id of a browser that has"
            " visited this very website without an ad blocker?",
        )
        return
    if outcome.kind not in (OutcomeKind.DELIVERED, OutcomeKind.UNCONFIRMED):
        yield Finding("fail", GOAL, f"was not accepted: {outcome.message or outcome.kind.value}")
        return
    accepted = outcome.kind is OutcomeKind.DELIVERED
    yield Finding("ok" if accepted else "warn", GOAL, "DataFast accepted the goal" if accepted else outcome.message)
    yield _read_back(client, rate_limit, destination, visitor, description)


def _read_back(
    client: Client, rate_limit: _RateLimit, destination: Destination, visitor: str, description: str
) -> Finding:
    failure = "it is not in the visitor's list yet"
    for pause_s in READ_BACK_PAUSES_S:
        time.sleep(pause_s)
        rate_limit.wait(destination)
        seen = client.visitor_goals(destination, visitor)
        if seen.failure is not None:
            failure = seen.failure.message or seen.failure.kind.value
            continue
        found = [goal for goal in seen.goals if goal.name == GOAL and goal.description in (None, description)]
        if found:
            return Finding("ok", GOAL, f"read back from DataFast: {_entry(found[-1])}")
    return Finding("warn", GOAL, f"could not be read back: {failure}")


def _entry(goal: CompletedGoal) -> str:
    shown = f"{goal.name} at {when(goal.at_ms)}"
    return f'{shown}, "{goal.description}"' if goal.description else f"{shown}, without its description"
