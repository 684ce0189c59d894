"""Events and goals in words: an event's outcome, a goal's state, what happens next, every attempt.

`why`, `events show`, `goals show` and the console show the same sentences. Ids are written in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from bridge.identity.choice import FoundVisitor
from bridge.identity.sentences import best_first, provenance
from bridge.masking import masked
from bridge.model import FINAL, RETRIABLE, EventState, GoalState, Json, Verdict
from bridge.presets import stated
from bridge.settings import KEY_SETTINGS
from bridge.store.clock import read_ms
from bridge.store.goals.parking import DRY_RULE
from bridge.store.operator import actions, queries, status
from bridge.store.operator.forgetting import MENTIONED
from bridge.text import ago, count, listing, ordinal, span, when, when_short
from bridge.workbench import trace

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.links.lookups import AskedQuestion
    from bridge.store.operator.queries import AttemptLine, EventDetail, EventLine, GoalDetail, GoalLine
    from bridge.store.operator.status import DestinationState

_STATES_IN_WORDS = {
    "parked": "waits for its visitor",
    "pending": "waits to be sent",
    "leased": "is about to be sent",
    "sending": "is being sent",
    "unconfirmed": "may have arrived, so the bridge asks DataFast",
    "delivered": "delivered",
    "rejected": "was rejected and will not be sent again",
    "expired": "could not be sent in time",
    "unattributed": "found no visitor",
    "held": "is held until you decide: nobody can tell whether it arrived",
    "dry": "is kept and not sent",
    "cancelled": "was cancelled",
}
_STATE_KINDS: Final = {
    "delivered": "ok", "parked": "wait", "unconfirmed": "wait", "pending": "wait", "leased": "wait", "sending": "wait",
    "held": "bad", "rejected": "bad", "expired": "bad", "unattributed": "bad",
}  # fmt: skip
_GOALS_SHOWN: Final = 3  # goals of one event in a sentence


@dataclass(frozen=True)
class Moment:
    """The context of a description: the current time, which destinations are paused, and which settings are set."""

    now_ms: int
    pauses: Mapping[str, DestinationState]
    settings: frozenset[str]


def moment(conn: Connection, environ: Mapping[str, str]) -> Moment:
    """The database's clock and its paused destinations, and the names in the environment that have a value."""
    given = frozenset(name for name, value in environ.items() if value.strip())
    return Moment(read_ms(conn), {state.name: state for state in status.destination_states(conn)}, given)


# -------------------------------------------------------------------------------------------------------- an event


def event_title(detail: EventDetail) -> str:
    """Its number here, its type, and the id that its provider gave it."""
    line = detail.line
    return f"{line.label}  {line.type or '(no type)'}  {line.provider_event_id or '(no id of its own)'}"


def removed(detail: EventDetail) -> str:
    """The parts of a routed event that are no longer stored, and why; empty if none is missing."""
    line = detail.line
    if detail.trace is not None or detail.event.body is not None or line.state != EventState.ROUTED:
        return ""
    if forgotten(line.reason):
        if (line.reason or "").endswith(MENTIONED):
            return f"Body and trace were {line.reason}; verdict, goals and links stay."
        return f"Body, trace and personal keys were {line.reason}; verdict and goals stay."
    return "Body and trace were removed after BRIDGE_RETENTION_DAYS; verdict and goals stay."


def forgotten(reason: str | None) -> bool:
    """Whether its contents were removed by `forget`."""
    return (reason or "").startswith("forgotten")


def removal_reason(line: EventLine) -> str:
    """Why an event no longer has a body."""
    return f"it was {line.reason}" if forgotten(line.reason) else "it was older than BRIDGE_RETENTION_DAYS"


def event_facts(detail: EventDetail, moment: Moment) -> list[tuple[str, str]]:
    """When the event arrived, from where, and its outcome."""
    line, stated = detail.line, detail.event.envelope.time_ms
    facts = [("Source", f"{line.source} ({line.provider}), {'test' if line.test else 'live'} mode")]
    if line.account:
        facts.append(("Account", line.account))
    if stated is not None:
        facts.append(("Happened", f"{when(stated)}, {ago(stated, moment.now_ms)}"))
    later = f", {span(line.received_at_ms - stated)} later" if stated and line.received_at_ms - stated > 1_000 else ""
    facts.append(("Received", f"{when(line.received_at_ms)}{later}{_repeats(line.duplicates)}"))
    if signed := signature(detail.signature):
        facts.append(("Signature", signed))
    found = elements(detail)
    near = trace.nearest(found[0]) if len(found) == 1 and not line.goals else ""
    return [*facts, ("Result", result(detail, moment)), *([("Nearest", near)] if near else [])]


def signature(remembered: Json) -> str:
    """How an event was verified; empty where an earlier release stored it."""
    if not remembered:
        return ""
    number, of = remembered["secret"], remembered["of"]
    which = "its secret" if of == 1 else f"the {_ORDINALS.get(number, ordinal(number))} of its {of} secrets"
    old = ", an old one (the variable ends in _OLD)" if remembered.get("old") else ""
    age = f"; its timestamp was {_age(remembered['age_ms'])}" if "age_ms" in remembered else "; it has no timestamp"
    return f"{remembered['scheme']}, verified with {which}{old}{age}"


_ORDINALS: Final = {1: "first", 2: "second", 3: "third"}


def _age(age_ms: int) -> str:
    return f"{span(age_ms)} old" if age_ms >= 0 else f"{span(age_ms)} ahead of our clock"


def _repeats(duplicates: int) -> str:
    return f"; delivered {count(duplicates, 'more time')}, which changed nothing" if duplicates else ""


def result(detail: EventDetail, moment: Moment) -> str:
    """The outcome of an event and its time, without its goals."""
    line = detail.line
    at = f", routed {when(line.routed_at_ms)}" if line.state == EventState.ROUTED and line.routed_at_ms else ""
    return f"{_verdict(line, moment)}{at}"


def _verdict(line: EventLine, moment: Moment) -> str:
    if line.state == "received":
        waits = span(moment.now_ms - line.received_at_ms)
        return f"has waited to be routed for {waits} (is a worker running? `python -m bridge doctor`)"
    if line.state == "quarantined":
        return f"in quarantine: {line.reason}{_remedy(line)}"
    reason = f": {line.reason}" if line.reason and not forgotten(line.reason) else ""
    verdict = {"matched": "matched a rule", "unmatched": "no rule matched", "ignored": "ignored"}
    return f"{verdict.get(line.verdict or '', line.state)}{reason}"


def _remedy(line: EventLine) -> str:
    """What to do about it. Routing again does not help if the body is broken."""
    reason = line.reason or ""
    if "events replay" in reason:
        return ""
    if reason.startswith(("the body", "the form")) and "`each`" not in reason:
        return f"; its bytes are kept as they arrived (`python -m bridge events show {line.label} --body`)"
    return f"; `python -m bridge events replay {line.label}` routes it again"


def outcome_in_brief(line: EventLine) -> str:
    """The outcome for a table: its goals; if there are none, the verdict, and the reason if there is one."""
    if line.goals:
        return listing([f"{goal.name} {goal.state}" for goal in line.goals])
    verdict = line.verdict if line.state == EventState.ROUTED else line.state
    if verdict == Verdict.MATCHED:
        return "matched, but the goal had been made before"
    return f"{verdict}: {line.reason}" if line.reason else str(verdict)


def elements(detail: EventDetail) -> Sequence[Mapping[str, Any]]:
    """The trace of each event of a delivery; empty if it is not stored."""
    found: Sequence[Mapping[str, Any]] = (detail.trace or {}).get("elements", ())
    return found


def outcome(detail: EventDetail, moment: Moment) -> str:
    """The outcome of an event in a sentence: that of its goals, if it has any."""
    goals = detail.line.goals
    if goals:
        more = f" And {count(len(goals) - _GOALS_SHOWN, 'more goal')}." if len(goals) > _GOALS_SHOWN else ""
        return " ".join(f"{goal_outcome(goal, moment)}." for goal in goals[:_GOALS_SHOWN]) + more
    before = already_made(detail)
    if before:
        return f"It made no new goal. {before[0]}."
    found = elements(detail)
    near = trace.nearest(found[0]) if len(found) == 1 and detail.line.verdict == Verdict.UNMATCHED else ""
    verdict = _verdict(detail.line, moment)
    return f"{verdict[0].upper()}{verdict[1:]}.{f' The nearest is {near}.' if near else ''}"


def goal_outcome(goal: GoalLine, moment: Moment) -> str:
    """What happened to a goal, in a sentence without its full stop."""
    visitor = ", ".join(filter(None, (goal.visitor, how_known(goal))))
    if goal.state == GoalState.DELIVERED:
        return f"Sent {goal.called} for visitor {visitor}" if visitor else f"Sent {goal.called}"
    if forgotten(goal.reason):
        return f"{goal.called}: {_what_was_forgotten(goal)}"
    if goal.state == GoalState.PARKED and goal.message:
        return f"{goal.called} {goal.message}"
    why = f" ({goal.message})" if goal.message else ""
    next_ = next_step(goal, moment) if goal.state in (GoalState.PENDING, GoalState.UNCONFIRMED) else ""
    then, its_visitor = f"; {next_}" if next_ else "", f". Its visitor is {visitor}" if visitor else ""
    return f"{goal.called} {_STATES_IN_WORDS[goal.state]}{why}{then}{its_visitor}"


def already_made(detail: EventDetail) -> list[str]:
    """The goals that it would have made if an earlier event had not made them already."""
    return [
        f"ev_{goal.get('event_id')} had already made the goal {goal.get('goal')} (goal_{goal.get('id')}), and there"
        f" is only one per {goal.get('once_key')}"
        for goal in queries.traced_goals(detail.trace)
        if goal.get("outcome") != "made"
    ]


# --------------------------------------------------------------------------------------------------------- a goal


def goal_facts(goal: GoalLine, moment: Moment) -> list[tuple[str, str]]:
    """A goal: its visitor and how that is known, its state, what happens next."""
    facts = [
        ("Visitor", goal.visitor or ("forgotten" if forgotten(goal.reason) else "not known")),
        ("How known", how_known(goal)),
        ("Forgotten", _what_was_forgotten(goal)),
        ("State", state_sentence(goal, moment)),
        ("Next", next_step(goal, moment)),
        ("Good news", notification(goal)),
        (
            "Metadata" if goal.kind == "goal" else "Fields",
            ", ".join(f"{key}={value}" for key, value in goal.metadata.items()),
        ),
        ("Description", goal.description),
        ("Destination", goal.destination),
        ("Only once per", "" if forgotten(goal.reason) else goal.once_key),
    ]
    return [fact for fact in facts if fact[1]]


def origin_facts(detail: GoalDetail) -> list[tuple[str, str]]:
    """The rule and the event that made a goal."""
    goal, event = detail.goal, detail.event
    return [
        ("Rule", trace.with_origin(f"{goal.rule_id} of {goal.source}", detail.origin)),
        ("Event", f"{event.label}  {event.type}  {event.provider_event_id or ''}".rstrip()),
    ]


def obstacles(detail: GoalDetail, moment: Moment) -> list[tuple[str, str]]:
    """What a person can do for a goal that has no visitor, and what stands in its way."""
    facts = [("To fix", sentence) for sentence in remedies(detail, moment)]
    facts += [("Stopped", f"{key.key} no longer links anything: {key.stopped_reason}") for key in detail.stopped]
    return [*facts, ("No answer yet", detail.trouble)] if detail.trouble else facts


def remedies(detail: GoalDetail, moment: Moment) -> list[str]:
    """The commands and settings by which a goal without a visitor may find one."""
    goal = detail.goal
    usable = sorted((key for key in detail.keys if not key.stopped_reason), key=lambda key: best_first(key.kind))
    if goal.visitor is not None or not usable:
        return []
    best = usable[0]
    ways = []
    of_account = f":{detail.event.account}:" in best.key  # which `links add` cannot name
    if not goal.test and not of_account:
        then = "" if goal.state == "parked" else f", then `python -m bridge goals retry {goal.label}`"
        ways.append(
            f"`python -m bridge links add {goal.source} {best.kind} {best.ref} VISITOR`, if you know whose it is{then}"
        )
    lookup = stated(detail.event.provider, "lookup")
    if lookup and lookup["setting"] not in moment.settings:
        ways.append(f"{lookup['setting']}: {lookup['does']}")
    return ways


def no_attempts(goal: GoalLine) -> str:
    """Why a goal has no attempts to show."""
    return "removed after BRIDGE_RETENTION_DAYS" if goal.state == "delivered" else "none yet"


def how_known(goal: GoalLine) -> str:
    """How its visitor was found; empty for a goal without one."""
    return provenance(FoundVisitor.from_json(goal.provenance)) if goal.provenance and goal.visitor else ""


def _what_was_forgotten(goal: GoalLine) -> str:
    return f"visitor, metadata and personal keys were {goal.message}" if forgotten(goal.reason) else ""


def state_in_words(state: str, reason: str | None = None) -> str:
    """A state in words, with the reason for it, by its code, if there is one."""
    words = _STATES_IN_WORDS.get(state, "")
    return f"{words} ({reason.replace('_', ' ')})" if reason else words


def state_kind(state: str) -> str:
    """How a state is coloured: ok | wait | bad | nothing."""
    return _STATE_KINDS.get(state, "")


def worst_kind(goals: Iterable[GoalLine]) -> str:
    """How the state of the worst of these goals is coloured."""
    kinds = {state_kind(goal.state) for goal in goals}
    return next((kind for kind in ("bad", "wait", "ok") if kind in kinds), "")


def state_sentence(goal: GoalLine, moment: Moment) -> str:
    """The state of a goal, with the reason if there is one."""
    text = f"{goal.state}: {_STATES_IN_WORDS.get(goal.state, '')}" if goal.state != "delivered" else "delivered"
    why = f" ({goal.message})" if goal.message and not forgotten(goal.reason) else ""
    if goal.state == "delivered":
        remote = f", DataFast's id {goal.datafast_event_id}" if goal.datafast_event_id else ""
        return f"{text} {when(goal.delivered_at_ms)}, {ago(goal.delivered_at_ms or 0, moment.now_ms)}{remote}{why}"
    return text + why


def why_or_when(line: GoalLine, moment: Moment) -> str:
    """When a goal was delivered or is due, else the reason for its state, for a table."""
    if line.state == GoalState.DELIVERED:
        news = f", {notification(line)}" if line.told_at_ms is not None else ""
        return f"{when_short(line.delivered_at_ms)}{news}"
    if line.state == GoalState.PENDING:
        obstacle = blocked_by(line, moment)
        if obstacle:
            return obstacle
        due = ago(line.due_at_ms, moment.now_ms) if line.due_at_ms > moment.now_ms else "now"
        return f"due {due}{': ' + line.message if line.message else ''}"
    return line.message or line.reason or ""


def notification(goal: GoalLine) -> str:
    """Whether BRIDGE_ALERTS was notified of a goal whose rule says `notify: true`; empty for others."""
    if goal.told_at_ms is not None:
        return f"BRIDGE_ALERTS was notified at {when(goal.told_at_ms)[11:16]}"
    if goal.notify == "wanted" and goal.state not in FINAL - {GoalState.DELIVERED}:
        return (
            "BRIDGE_ALERTS is notified on delivery" if goal.state != "delivered" else "BRIDGE_ALERTS is notified next"
        )
    return _NOT_NOTIFIED.get(goal.notify or "", "")


_NOT_NOTIFIED = {
    "queued": "BRIDGE_ALERTS was probably not notified: `python -m bridge alerts` says why",
    "missed": "BRIDGE_ALERTS was not notified: it was not set, or not reachable, within an hour of the delivery",
}


def blocked_by(goal: GoalLine, moment: Moment) -> str:
    """What keeps the bridge from sending to, or asking, a goal's destination; empty if nothing does."""
    setting = KEY_SETTINGS.get(goal.destination)
    if setting is not None and setting not in moment.settings:
        return f"waits until {setting} is set (it is not set here); nothing is lost until then"
    pause = moment.pauses.get(goal.destination)
    if pause is None or not pause.pause_kind:
        return ""
    due_at_ms = goal.due_at_ms if goal.state == "pending" else 0  # else it is when its wait ends
    again = ago(max(pause.not_before_ms, due_at_ms), moment.now_ms)
    return f"the destination {goal.destination} is paused ({pause.pause_reason}); next attempt {again}"


def next_step(goal: GoalLine, moment: Moment) -> str:
    """What will happen automatically, or what a person can do; empty if nothing is left to do."""
    if forgotten(goal.reason):
        return ""
    if goal.state == "pending":
        obstacle = blocked_by(goal, moment)
        if obstacle:
            return obstacle
        if goal.due_at_ms > moment.now_ms:
            return f"next attempt {ago(goal.due_at_ms, moment.now_ms)} ({ordinal(goal.attempts + 1)})"
        return "is sent when its turn comes (the goals of one visitor are sent one after another)"
    if goal.state == "unconfirmed":
        return f"the bridge asks DataFast {ago(max(goal.due_at_ms, moment.now_ms), moment.now_ms)}"
    if goal.state == "parked":
        obstacle = blocked_by(goal, moment) if goal.reason == "unproved" else ""
        if obstacle:
            return f"it waits for DataFast's answer; {obstacle}"
        missing = "DataFast's answer" if goal.reason == "unproved" else "an event that names its visitor"
        return f"it waits for {missing}; the bridge checks again {ago(goal.due_at_ms, moment.now_ms)} at the latest"
    if goal.state in RETRIABLE:
        return f"`python -m bridge goals retry {goal.label}` sends it"
    return ""


_RESTORED = {
    "delivered": "the backup does not cover this time; DataFast says that the goal was sent then",
    "not_sent": "the backup does not cover this time; DataFast says that the goal was not sent then",
    "unconfirmed": "the backup does not cover this time; DataFast has not said yet whether the goal was sent then",
}


_READ_BACK = {"found": "found", "absent": "not there yet"}


def attempt_sentence(attempt: AttemptLine) -> str:
    """One attempt in words."""
    if attempt.kind == "restored":
        return f"until {when(attempt.ended_at_ms)}: {_RESTORED[attempt.outcome or 'unconfirmed']}"
    if attempt.kind == "readback":
        shown = _READ_BACK.get(attempt.outcome or "", "could not be read")
        reason = f" ({attempt.message})" if attempt.message else ""
        return f"asked DataFast at {when(attempt.started_at_ms)[11:19]}: {shown}{reason}"
    outcome = "under way" if attempt.outcome is None else attempt.outcome.replace("_", " ")
    status = f" ({attempt.status})" if attempt.status else ""
    took = f", {attempt.ended_at_ms - attempt.started_at_ms} ms" if attempt.ended_at_ms else ""
    message = f": {attempt.message}" if attempt.message else ""
    return f"sent: {outcome}{status}{took}{message}"


_ASKED = {"sessions": "the Checkout sessions of ", "invoices": "the invoices of ", "object": ""}
_ANSWERED = {
    "visitor": "{} names the visitor",
    "keys": "{} names no visitor",
    "nothing": "there is none",
    "failed": "{}",
    None: "no answer yet",
}


def lookup_sentence(lookup: AskedQuestion) -> str:
    """One question to Stripe in words."""
    asked = f"{_ASKED.get(lookup.question, '')}{lookup.key.rpartition(':')[2]}"
    return f"asked Stripe for {asked}: {_ANSWERED[lookup.outcome].format(lookup.detail)}"


# ------------------------------------------------------------------------------------- what a person may do, and did


def may_be_sent(goal: GoalLine) -> bool:
    """Whether a person can send it now: for the first time, before its time, or again."""
    if forgotten(goal.reason):
        return False
    gathered = goal.state == GoalState.DRY and goal.reason == DRY_RULE
    return goal.state in (*RETRIABLE, GoalState.PENDING, GoalState.DELIVERED) or gathered


def may_be_cancelled(goal: GoalLine) -> bool:
    """Whether a person can keep it from being sent."""
    return goal.state in actions.CANCELLABLE


RETRIED: Final = {
    "queued": "is due now",
    "rerouted": "has no visitor: its event is routed again to look for one",
    "delivered": "was delivered, and was left alone",
    "no_visitor": "has no visitor, and without its event's body the bridge cannot look for one",
    "under_way": "is being sent, or DataFast is asked whether it arrived; try again in a minute",
    "waits": "waits for its visitor; bind one with `python -m bridge links add`",
    "dry": "belongs to a test event and is never sent",
    "looked_for": "was kept by a dry rule and has no visitor yet; the bridge is looking for one",
    "unknown": "does not exist",
}
CANCELLED: Final = {
    "cancelled": "is cancelled and will never be sent",
    "final": "is already final, so there is nothing to cancel",
    "under_way": "may have been sent already; try again in a minute",
    "unknown": "does not exist",
}


def resend_question(labels: Sequence[str]) -> str:
    """The question before delivered goals are sent again."""
    return f"Already delivered: {', '.join(labels)}. Send again, so that DataFast counts it twice?"


def retried(outcome: str, number: int) -> str:
    """The result of a request to send a goal, worded to follow its name. number: of the goal that is sent."""
    if outcome == "again":
        return f"is sent again, as goal_{number}"
    return f"was sent again before, as goal_{number}" if outcome == "already" else RETRIED[outcome]


# --------------------------------------------------------------------------------------------------------- as data


def identifiers(detail: EventDetail) -> set[str]:
    """The ids by which an event is found; they are not secret, whatever their fields are called."""
    line = detail.line
    found = {line.provider_event_id, line.account, line.type}
    found |= {text for goal in line.goals for text in (goal.visitor, goal.name)}
    for element in elements(detail):
        found |= {element.get("id"), *(key.rpartition(":")[2] for key in element.get("keys", ()))}
    return {text for text in found if text}


def as_json(value: Any) -> Any:
    """An event or a goal as JSON; never with a body, nor with a header's value that is a secret."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: as_json(getattr(value, field.name)) for field in fields(value) if field.name != "body"}
        masks = {name: masked(found[name]) for name in ("headers", "query") if isinstance(found.get(name), dict)}
        return {**found, **masks}
    if isinstance(value, dict):
        return {str(name): as_json(inner) for name, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, tuple | list) else value
