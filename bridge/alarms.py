"""Alarms: what needs attention, judged from a snapshot of the store. Pure: no database, no clock, no request.

`/status` and `doctor` render these alarms and judge nothing themselves. An alarm has a sentence that anybody may read
(a monitor, a status page), and a detail for the owner, with names, numbers and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from bridge.identity.sentences import WAYS, advice
from bridge.settings import KEY_SETTINGS, MS
from bridge.store.delivery.pauses import UNKNOWN_IN_ROW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bridge.model import Destination, Source
    from bridge.store.goals.attribution import Attribution
    from bridge.store.operator.status import FailedRules, Snapshot, SourceState

DUE_MS: Final = 15 * MS["min"]
KEYLESS_MS: Final = MS["min"]  # nothing sends these goals, so there is no point in waiting longer
REFUSALS: Final = 5  # refusals of one source since its last event: more than a scanner's one attempt
REFUSING_MS: Final = 15 * MS["min"]  # from the first refusal to the last
USUAL_MS: Final = MS["h"]  # a source's longest silence counts as at least this
UNUSUAL_MS: Final = 12 * MS["h"]  # or as at least this while only one of its events is known
NOTED_MS: Final = 7 * MS["d"]  # how long refusals are reported as a note
_MANY: Final = 1_000


@dataclass(frozen=True, slots=True)
class Alarm:
    """name: one word that never changes. sentence: for everybody. detail: for the owner.

    about: the destination or source, if several can have the same problem.
    """

    name: str
    sentence: str
    detail: str
    about: str = ""

    @property
    def explanation(self) -> str:
        """The detail without the sentence, with which it may begin."""
        return self.detail.removeprefix(self.sentence).strip()


def alarms(
    seen: Snapshot,
    rules_fault: str | None,
    sources: Mapping[str, Source],
    destinations: Mapping[str, Destination],
    share: float = 0.5,
) -> tuple[Alarm, ...]:
    """All alarms, the most serious first. sources, destinations: the currently configured ones.

    rules_fault: why this process refused its mapping files. share: how many of the goals that can have a visitor
    should have one.
    """
    return (
        *_worker(seen),
        *_paused(seen, destinations),
        *_none_known(seen, destinations),
        *_waiting(seen, destinations),
        *_unrouted(seen),
        *_lost_secrets(seen, sources),
        *_attribution(seen, sources, share),
        *_refused_files(seen, rules_fault),
        *_undecided(seen),
        *_lookups(seen),
    )


def notes(seen: Snapshot, sources: Mapping[str, Source]) -> tuple[Alarm, ...]:
    """What the owner may want to know although it is not an alarm. Whatever a stranger can cause is only a note."""
    return (
        *_recent_refusals(seen, sources),
        *(_failed_rules(failed) for failed in seen.failed_rules if failed.source in sources),
        *_retention(seen),
        *_wrong_tokens(seen),
        *_unsent_alerts(seen),
    )


def about_source(found: Iterable[Alarm], source: str) -> tuple[Alarm, ...]:
    """The alarms about this source; a destination may have the same name."""
    return tuple(alarm for alarm in found if alarm.about == source and alarm.name in _SOURCE_ALARMS)


_SOURCE_ALARMS: Final = frozenset({"refusals", "attribution", "no_secret", "refused", "failed_rules"})


def all_clear(seen: Snapshot) -> str:
    """The sentence for when there is no alarm."""
    delivered = max((state.last_success_at_ms for state in seen.destinations if state.last_success_at_ms), default=None)
    last_success = (
        "" if delivered is None else f" DataFast accepted the last goal {rough_span(seen.now_ms - delivered)} ago."
    )
    return f"Everything works, and nothing needs your attention.{last_success}"


def _unsent_alerts(seen: Snapshot) -> Iterator[Alarm]:
    """Messages that could not be sent. Only a note, because an alarm about them could not be sent either."""
    trouble = seen.alert_trouble
    if trouble is None:
        return
    messages = "A message" if trouble.count == 1 else f"{trouble.count} messages"
    yield Alarm(
        "alerts",
        "Messages to BRIDGE_ALERTS could not be sent.",
        f"{messages} to BRIDGE_ALERTS could not be sent in the last 24 hours, the last one"
        f" {rough_span(seen.now_ms - trouble.at_ms)} ago to {trouble.place}: {trouble.reason}."
        " `python -m bridge alerts` lists them, and `alerts test` tries each target.",
    )


def _retention(seen: Snapshot) -> Iterator[Alarm]:
    wait = seen.forgetting_waits
    if wait is None:
        return
    cause = {
        "jumped": "The clock jumped by more than an hour,",
        "stopped": "The bridge stood still for more than 7 days (or the clock jumped),",
    }[wait.why]
    yield Alarm(
        "retention_waits",
        "The clock jumped or the bridge stood still, so nothing is deleted by age for now.",
        f"{cause} {rough_span(seen.now_ms - wait.since_ms)} ago, so nothing is deleted by age until the bridge has run"
        f" for 24 hours ({rough_span(wait.ran_ms)} so far), or for 7 days at most. Is this machine's clock right? Goals"
        f" that became too old meanwhile are held: `python -m bridge goals list --state held` lists them, and `goals"
        f" retry` sends them.",
    )


def _failed_rules(failed: FailedRules) -> Alarm:
    events = _counted(failed.events, "event")
    return Alarm(
        "failed_rules",
        "Events made no goal because a rule failed.",
        f"In the last 24 hours {events} of {failed.source} made no goal: {failed.reason}. To list them: `python -m"
        f" bridge events list --source {failed.source} --verdict unmatched`.",
        failed.source,
    )


def _wrong_tokens(seen: Snapshot) -> Iterator[Alarm]:
    tried = seen.wrong_tokens
    if tried.last_at_ms is not None and seen.now_ms - tried.last_at_ms < MS["d"]:
        yield Alarm(
            "wrong_tokens",
            "Wrong bearer tokens were refused.",
            f"{_counted(tried.count, 'wrong bearer token')} {'was' if tried.count == 1 else 'were'} refused so far, the"
            f" last one {rough_span(seen.now_ms - tried.last_at_ms)} ago. If it is not a script of your own with an old"
            " BRIDGE_ADMIN_TOKEN or BRIDGE_LINKS_TOKEN, somebody is guessing: `token.refused` in the log names the"
            " address.",
        )


def _worker(seen: Snapshot) -> Iterator[Alarm]:
    if seen.worker_seen_at_ms is None:
        yield Alarm(
            "no_worker",
            "No worker is running: events are stored, but nothing is sent.",
            "No worker was seen in the last 30 seconds. Is the bridge running (`python -m bridge serve`)? If"
            " BRIDGE_WORKER is off, run `python -m bridge worker`, or set BRIDGE_WORKER=inline.",
        )


def _paused(seen: Snapshot, destinations: Mapping[str, Destination]) -> Iterator[Alarm]:
    """A destination that only waits for its rate limit works as it should."""
    for state in seen.destinations:
        if state.name not in destinations or state.pause_kind in (None, "throttled"):
            continue
        paused = rough_span(seen.now_ms - (state.paused_since_ms or seen.now_ms))
        yield Alarm(
            "paused",
            "A destination is paused.",
            f"Destination {state.name} has been paused for {paused}: {state.pause_reason or state.pause_kind}",
            state.name,
        )


def _none_known(seen: Snapshot, destinations: Mapping[str, Destination]) -> Iterator[Alarm]:
    """With the key of another website, no visitor is known. Nothing is lost by that, and nothing stops."""
    for state in seen.destinations:
        if state.name not in destinations or state.unknown_since_ms is None:
            continue
        setting = KEY_SETTINGS.get(state.name, "the api_key of its mapping file")
        yield Alarm(
            "none_known",
            "A website knows none of the last 10 visitors: is this the key of the right website?",
            f"For {rough_span(seen.now_ms - state.unknown_since_ms)}, destination {state.name} has known none of the"
            f" last {UNKNOWN_IN_ROW} different visitors: is this the key of the right website ({setting})? If it is,"
            " your app may hand over its own user ids. The goals of these visitors wait, and none is rejected. Goals of"
            " other visitors are sent first, and the first that is delivered ends this alarm."
            f" `python -m bridge goals list --destination {state.name}` lists them.",
            state.name,
        )


def _waiting(seen: Snapshot, destinations: Mapping[str, Destination]) -> Iterator[Alarm]:
    """Each destination with a goal that has waited too long, and what it waits for."""
    for name, due_at_ms in seen.oldest_due_at_ms.items():
        waits_ms = 0 if due_at_ms is None else seen.now_ms - due_at_ms
        destination = destinations.get(name)
        if destination is None or not destination.api_key:
            if waits_ms > KEYLESS_MS:
                yield _nobody_sends(name, destination, waits_ms)
        elif waits_ms > DUE_MS:
            yield Alarm(
                "late",
                "Goals have been waiting for more than 15 minutes.",
                f"The oldest goal for destination {name} has been due for {rough_span(waits_ms)}:"
                " `python -m bridge goals` lists them.",
                name,
            )


def _nobody_sends(name: str, destination: Destination | None, waits_ms: int) -> Alarm:
    setting = f"set {KEY_SETTINGS[name]}" if name in KEY_SETTINGS else "set the api_key of its mapping file"
    if destination is not None:
        since = f"{name} has no key, and its oldest goal has waited for {rough_span(waits_ms)}"
        detail = f"Destination {since}: {setting}."
        return Alarm("no_key", "Goals are waiting because a website has no key.", detail, name)
    fix = setting if name in KEY_SETTINGS else "put it back into a mapping file"
    return Alarm(
        "no_destination",
        "Goals are waiting for a website that is no longer configured.",
        f"Destination {name} is no longer configured, and its oldest goal has waited for {rough_span(waits_ms)}: {fix},"
        f" or cancel its goals (`goals cancel`), which `python -m bridge goals list --destination {name}` lists.",
        name,
    )


def _unrouted(seen: Snapshot) -> Iterator[Alarm]:
    unrouted = seen.oldest_unrouted_at_ms
    if unrouted is not None and seen.now_ms - unrouted > DUE_MS:
        yield Alarm(
            "unrouted",
            "Events have been waiting for more than 15 minutes.",
            f"The oldest event that no rule has seen arrived {rough_span(seen.now_ms - unrouted)} ago:"
            " `python -m bridge events` lists them.",
        )


def _lost_secrets(seen: Snapshot, sources: Mapping[str, Source]) -> Iterator[Alarm]:
    """Anybody can cause refusals, so they alone are not an alarm; but no stranger can keep a source's events away."""
    for state in seen.sources:
        source = sources.get(state.source)
        if source is None or not _has_lost_its_secret(state, seen.now_ms):
            continue
        yield Alarm(
            "refusals",
            "A source is refusing requests.",
            f"Source {state.source} refused the last {state.refused_in_row:,} requests ({state.last_refusal}), and"
            f" {silence(state, seen.now_ms)}. {_likely_cause(source)}",
            state.source,
        )


_ATTRIBUTION: Final = Alarm("attribution", "Most goals of a source named no visitor.", "")
_KINDS: Final = {  # the name for the goals, and where a visitor is passed on
    "purchase": ("purchases", " at checkout"),
    "sign-up": ("sign-ups", " at sign-up"),
    "booking": ("bookings", " at booking"),
    "form": ("forms", " in the form"),
}
_CAUSES: Final = {
    "nothing": "the places for the visitor id are empty ({places})",
    "other_ids": "{path} holds something other than the visitor's id",
    "strangers": "DataFast does not know the visitor ids {where}: they may be your app's own user ids, or the key"
    " may be another website's",
}


def _attribution(seen: Snapshot, sources: Mapping[str, Source], share: float) -> Iterator[Alarm]:
    for found in seen.attribution:
        source = sources.get(found.source)
        if source is None or not found.lacks(share):
            continue
        noun, place = _KINDS.get(found.kind, ("goals", ""))
        sentence = (
            f"{found.goals - found.named} of the last {found.goals} {noun} of {found.source} named no visitor: is the"
            f" visitor handed over{place}?"
        )
        detail = f"{sentence} {_attribution_cause(found, source)}"
        yield replace(_ATTRIBUTION, sentence=sentence, detail=detail, about=found.source)


def attribution_sentence(found: Attribution) -> str:
    """How many of a source's last goals have a visitor, and how it was found."""
    others = f"; {_counted(found.others, 'other goal')} of the last 30 days without one" if found.others else ""
    if not found.goals:
        return f"no goal yet from an event that can hand over a visitor{others}"
    noun, _ = _KINDS.get(found.kind, ("goals", ""))
    ways = [(found.through[way], text) for way, text in WAYS.items() if way in found.through]
    if found.goals == 1:
        has, parts = f"the last {noun[:-1]} has {'a' if found.named else 'no'} visitor", [text for _, text in ways]
    else:
        has = f"{found.named} of the last {found.goals} {noun} have a visitor"
        parts = [f"{number} {text}" for number, text in ways]
    how = f" ({', '.join(parts)})" if parts else ""
    return f"{has}{how}{others}"


def _attribution_cause(found: Attribution, source: Source) -> str:
    cause, path, count = found.causes[0]
    likely = _CAUSES[cause].format(
        places=" or ".join(place.text for place in source.visitor[:2]) or "`visitor:` names no place",
        path=path,
        where=f"at {path}" if path else "there",
    )
    looked_into = sum(number for _, _, number in found.causes)
    return (
        f"The likely cause ({count} of the last {looked_into}): {likely}; {advice(source.provider, ())}."
        f" `python -m bridge why goal_{found.example}` shows one."
    )


def _has_lost_its_secret(state: SourceState, now_ms: int) -> bool:
    if state.row_began_at_ms is None or state.refused_in_row < REFUSALS:
        return False
    refusing_ms = (state.last_refused_at_ms or 0) - state.row_began_at_ms
    return refusing_ms >= REFUSING_MS and silence(state, now_ms) is not None


def silence(state: SourceState, now_ms: int) -> str | None:
    """How long a source has been silent, if that is at least twice as long as ever before."""
    if state.last_accepted_at_ms is None:
        return None
    usual_ms = UNUSUAL_MS if state.longest_gap_ms is None else max(state.longest_gap_ms, USUAL_MS)
    silent_ms = now_ms - state.last_accepted_at_ms
    if silent_ms < 2 * usual_ms:
        return None
    return f"no genuine event has arrived for {rough_span(silent_ms)}, at least twice as long as ever before"


def _likely_cause(source: Source) -> str:
    if source.secret_error is not None:
        return f"The likely cause is that its secret was lost: {source.secret_error}."
    names = " or ".join(source.secret_names) or f"`secret` in {source.name}.yaml"
    return (
        f"The likely cause is that the provider now uses another secret: compare {names} with the provider's page. If"
        " they are the same, is this machine's clock right?"
    )


def _recent_refusals(seen: Snapshot, sources: Mapping[str, Source]) -> Iterator[Alarm]:
    for state in seen.sources:
        source = sources.get(state.source)
        since_ms = seen.now_ms - (state.last_refused_at_ms or 0)
        if (
            source is None
            or not state.refused_in_row
            or since_ms > NOTED_MS
            or _has_lost_its_secret(state, seen.now_ms)
        ):
            continue
        requests = "request" if state.refused_in_row == 1 else f"{state.refused_in_row:,} requests"
        refused = f"Source {state.source} refused the last {requests}, {rough_span(since_ms)} ago: "
        if source.secret_error is not None:
            yield Alarm(
                "no_secret",
                "A source received requests, but has no secret.",
                f"{refused}{source.secret_error}.",
                state.source,
            )
        else:
            yield Alarm(
                "refused",
                "A source refused requests.",
                f"{refused}{state.last_refusal}. Anybody can send such requests. If the provider sent them: is the"
                " secret the one that the provider's page shows, and is this machine's clock right? `python -m bridge"
                " sources` names the secret's variable.",
                state.source,
            )


def _refused_files(seen: Snapshot, rules_fault: str | None) -> Iterator[Alarm]:
    """Whether this process or another one (a worker reads the files, too) refused the mapping files."""
    problem = rules_fault or next((beat.rules_fault for beat in seen.heartbeats if beat.rules_fault), None)
    if problem is not None:
        yield Alarm(
            "reload",
            "The current mapping files were refused; the last good ones are in force.",
            f"{problem} (`python -m bridge check` names every problem)",
        )


def _undecided(seen: Snapshot) -> Iterator[Alarm]:
    if seen.quarantined:
        yield Alarm(
            "quarantine",
            "Events are in quarantine.",
            f"{_counted(seen.quarantined, 'verified event')} could not be read or routed:"
            " `python -m bridge events list --state quarantined`, then `events replay` or `events ignore`.",
        )
    if seen.held:
        it = "it" if seen.held == 1 else "they"
        yield Alarm(
            "held",
            "Goals are held for a decision.",
            f"{_counted(seen.held, 'goal')} {'is' if seen.held == 1 else 'are'} held: nobody can tell whether"
            f" {it} arrived, or {it} became too old while the clock jumped. `python -m bridge goals list --state held`,"
            " then `goals retry` or `goals cancel`.",
        )


def _lookups(seen: Snapshot) -> Iterator[Alarm]:
    for pause in seen.lookup_pauses:
        yield Alarm(
            "lookups",
            "Lookups at Stripe are paused.",
            f"Lookups at Stripe have been paused for {rough_span(seen.now_ms - pause.since_ms)}: {pause.reason}. Goals"
            " that need them wait for their visitor; `python -m bridge doctor` tries the key.",
        )


def _counted(count: int, noun: str) -> str:
    """`1 goal`, `2 goals`, `1,000 or more goals`."""
    return f"{f'{count:,} or more' if count >= _MANY else count} {noun}{'' if count == 1 else 's'}"


def rough_span(ms: int) -> str:
    """A duration in its largest unit, rounded down: `3 min`, `5 h`, `2 d`."""
    for unit in ("d", "h", "min"):
        if ms >= MS[unit]:
            return f"{ms // MS[unit]} {unit}"
    return f"{max(ms, 0) // MS['s']} s"
