"""Deliver: claim a goal with its slot, send it, settle what came of it; or look up what a lost answer left in doubt.

Or ask whether a website knows the visitor of a borrowed field, before a goal goes to it.

`rule` is the pure table of what each class of answer does (Design 6); the retry schedule is the setting that a user
reads. `Deliverer.step` does one claim and is called by the worker's threads. It promises that a request goes out only
after its attempt row is committed, and never after half its lease is over.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from bridge import logs
from bridge.datafast.actions import action_of
from bridge.datafast.goal import utc
from bridge.errors import StoreError, StoreGone
from bridge.model import (
    IDEMPOTENT,
    Claim,
    GoalState,
    Health,
    LookClaim,
    LookRuling,
    NotYet,
    Outcome,
    OutcomeKind,
    ProofClaim,
    Settled,
    Settlement,
)
from bridge.store import clock
from bridge.store.delivery import claims, pauses, rate_limit, readbacks, sends, sweep, turns
from bridge.store.delivery.restoring import REASON
from bridge.store.goals import parking, proofs, unknown
from bridge.store.links import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from sqlalchemy import Connection

    from bridge.datafast.actions import Api
    from bridge.datafast.readback import Settlement as Recognized
    from bridge.model import Destination, UnconfirmedGoal, VisitorGoals
    from bridge.settings import Schedule, Settings
    from bridge.store import Store

    T = TypeVar("T")

HOUR_MS: Final = 3_600_000
JITTER: Final = 0.2
LOOKS_MAX: Final = 3
ABSENT_MAX: Final = 2
AGAIN_MS: Final = 200  # between two tries to write what is known

log = logs.get("deliver")


# ------------------------------------------------------------------------------------------- the table of answers


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that the table needs."""

    retry: Schedule
    unknown: Schedule
    settling_ms: int
    second_look_ms: int
    resend: bool

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """Read from the table of settings."""
        settling, second = settings.bridge_readback
        return cls(
            settings.bridge_retry_schedule,
            settings.bridge_unknown_visitor_schedule,
            settling,
            second,
            settings.bridge_unconfirmed == "resend",
        )


def rule(outcome: Outcome, claim: Claim, policy: Policy, *, jitter: float) -> Settlement:
    """What becomes of a goal after this outcome. jitter: 0 ≤ jitter < 1, spread over ±20 % of a pause."""
    match outcome.kind:
        case OutcomeKind.DELIVERED:
            # Whether DataFast refuses the payment of a visitor whom it does not know is not documented.
            known = claim.goal.kind not in IDEMPOTENT
            return Settlement(GoalState.DELIVERED, Health.SUCCESS if known else Health.TAKEN)
        case OutcomeKind.REJECTED:
            return Settlement(GoalState.REJECTED, Health.ANSWERED, reason="rejected", message=outcome.message)
        case OutcomeKind.CONFIGURATION:
            return Settlement(GoalState.PENDING, Health.CONFIGURATION, reason="configuration", message=outcome.message)
        case OutcomeKind.THROTTLED:
            return Settlement(
                GoalState.PENDING,
                Health.THROTTLED,
                reason="throttled",
                message=outcome.message,
                pause_ms=outcome.retry_after_ms or 60_000,
            )
        case OutcomeKind.UNKNOWN_VISITOR:
            return _unknown_visitor(outcome, claim, policy, jitter)
        case OutcomeKind.UNCONFIRMED if claim.goal.kind in IDEMPOTENT:
            return _try_again(outcome, claim, policy, jitter)
        case OutcomeKind.UNCONFIRMED:
            return Settlement(
                GoalState.UNCONFIRMED,
                Health.FAILURE,
                due_in_ms=policy.settling_ms,
                reason="answer_lost",
                message=outcome.message,
                counts=True,
            )
        case OutcomeKind.NOT_SENT | OutcomeKind.REFUSED_FOR_NOW:
            return _try_again(outcome, claim, policy, jitter)


def _try_again(outcome: Outcome, claim: Claim, policy: Policy, jitter: float) -> Settlement:
    """Back off; a probe goes to the end of the queue, so that one poisonous goal cannot be every probe."""
    if claim.probe:
        return Settlement(GoalState.PENDING, Health.FAILURE, reason=outcome.kind.value, message=outcome.message)
    goal = claim.goal
    pause = round(policy.retry.pause_ms(goal.attempts + 1) * (1 - JITTER + 2 * JITTER * jitter))
    if _elapsed_ms(claim) + pause > policy.retry.total_ms:
        return Settlement(
            GoalState.EXPIRED,
            Health.FAILURE,
            reason="retries_over",
            message=f"it could not be sent within the retry schedule; the last try: {outcome.message}",
            counts=True,
        )
    return Settlement(
        GoalState.PENDING,
        Health.FAILURE,
        due_in_ms=pause,
        reason=outcome.kind.value,
        message=outcome.message,
        counts=True,
    )


def _elapsed_ms(claim: Claim) -> int:
    """Since the first try, without the time during which the destination was paused."""
    first = claim.goal.first_try_at_ms
    return 0 if first is None else claim.claimed_at_ms - first - claim.paused_ms


def _unknown_visitor(outcome: Outcome, claim: Claim, policy: Policy, jitter: float) -> Settlement:
    tries = claim.goal.unknown_visitor_tries
    if tries >= len(policy.unknown.steps_ms):
        return Settlement(
            GoalState.REJECTED,
            Health.UNKNOWN_VISITOR,
            reason="unknown_visitor",
            message=f"{claim.goal.visitor} looks like a visitor id but DataFast has never seen it; is it your own user"
            f" id? ({outcome.message})",
            unknown_visitor=True,
        )
    pause = round(policy.unknown.steps_ms[tries] * (1 - JITTER + 2 * JITTER * jitter))
    return Settlement(
        GoalState.PENDING,
        Health.UNKNOWN_VISITOR,
        due_in_ms=pause,
        reason="unknown_visitor",
        message=outcome.message,
        unknown_visitor=True,
    )


def not_counted(outcome: Outcome) -> Settlement:
    """An unknown visitor where none of the last ones is known: the key may be another website's, so nothing counts."""
    return Settlement(
        GoalState.PENDING,
        Health.UNKNOWN_VISITOR,
        due_in_ms=HOUR_MS,
        reason="unknown_visitor",
        message=f"{outcome.message}; none of the last 10 visitors is known to this website, so this try does not count",
    )


def rule_proof(answer: VisitorGoals) -> bool | None:
    """Does the website know this visitor? None: the answer does not tell."""
    if answer.known:
        return True
    refused = answer.failure is None or answer.failure.kind is OutcomeKind.REJECTED
    return False if refused else None


def rule_look(look: LookClaim, answer: VisitorGoals, policy: Policy) -> tuple[list[LookRuling], Settlement]:
    """What a read-back decides for each goal of the group, and what it says about the destination."""
    if answer.failure is not None:
        return [_cannot_tell(goal, answer.failure, policy) for goal in look.goals], _health_of(answer.failure)
    told = action_of(look.kind).recognize(look, answer)
    rulings = [_told(doubtful, told, policy) for doubtful in look.goals]
    return rulings, Settlement(GoalState.UNCONFIRMED, Health.ANSWERED)


def _told(doubtful: UnconfirmedGoal, told: Recognized, policy: Policy) -> LookRuling:
    entry = told.delivered.get(doubtful.goal.id)
    if entry is not None:
        message = "the answer was lost, but DataFast has it: found by reading the visitor back"
        if doubtful.restored:
            at = f" at {utc(entry.at_ms)}" if entry.at_ms is not None else ""
            message = f"it was sent before the back-up was put in place: DataFast recorded it{at}"
        settlement = Settlement(GoalState.DELIVERED, Health.SUCCESS, reason="read_back", message=message)
        return LookRuling(doubtful, settlement, remote_id=entry.event_id, at_ms=entry.at_ms)
    if doubtful.goal.id in told.unclear:
        sentence = "DataFast lists a goal of this name without a time or a description"
        return _cannot_tell(doubtful, Outcome(OutcomeKind.UNCONFIRMED, message=sentence), policy)
    return _absent(doubtful, policy)


def _absent(goal: UnconfirmedGoal, policy: Policy) -> LookRuling:
    if goal.absent + 1 >= ABSENT_MAX:
        message = "DataFast does not have it: the visitor was read back twice; it is sent again"
        if goal.restored:
            message = "it was not sent before the back-up was put in place: DataFast does not have it; it is sent now"
        settlement = Settlement(GoalState.PENDING, Health.ANSWERED, reason="absent", message=message)
    else:
        message = "DataFast does not show it yet; the second look decides"
        settlement = Settlement(
            GoalState.UNCONFIRMED, Health.ANSWERED, policy.second_look_ms, reason=_reason(goal), message=message
        )
    return LookRuling(goal, settlement, absent=True)


_UNREACHED: Final = frozenset({OutcomeKind.NOT_SENT, OutcomeKind.THROTTLED, OutcomeKind.REFUSED_FOR_NOW})


def _cannot_tell(goal: UnconfirmedGoal, failure: Outcome, policy: Policy) -> LookRuling:
    """Three looks that could not tell end the doubt by the setting; a look that never got through is none.

    After a restore that would double all that was sent since the back-up, so then a person decides in any case.
    """
    looked = failure.kind not in _UNREACHED
    if looked and goal.looks + 1 >= LOOKS_MAX:
        resend = policy.resend and not goal.restored
        state = GoalState.PENDING if resend else GoalState.HELD
        then = "it is sent again (BRIDGE_UNCONFIRMED=resend)" if resend else "a person has to decide"
        since = "a back-up was put in place, and " if goal.restored else ""
        message = f"{since}nobody can tell whether DataFast has it ({failure.message}); {then}"
        settlement = Settlement(state, Health.SILENT, reason="cannot_tell", message=message)
        return LookRuling(goal, settlement, looked=True, failure=failure)
    settlement = Settlement(
        GoalState.UNCONFIRMED,
        Health.SILENT,
        policy.second_look_ms,
        reason=_reason(goal),
        message=f"it could not be read back: {failure.message}",
    )
    return LookRuling(goal, settlement, looked=looked, failure=failure)


def _reason(goal: UnconfirmedGoal) -> str:
    return REASON if goal.restored else "answer_lost"


def _health_of(failure: Outcome) -> Settlement:
    """A key that may send but not read (401, 403 on a look) says nothing about sending."""
    if failure.kind is OutcomeKind.THROTTLED:
        return Settlement(
            GoalState.UNCONFIRMED,
            Health.THROTTLED,
            message=failure.message,
            pause_ms=failure.retry_after_ms or 60_000,
        )
    failing = (OutcomeKind.NOT_SENT, OutcomeKind.REFUSED_FOR_NOW, OutcomeKind.UNCONFIRMED)
    health = Health.FAILURE if failure.kind in failing else Health.SILENT
    return Settlement(GoalState.UNCONFIRMED, health, message=failure.message)


def _health_of_proof(answer: VisitorGoals) -> Settlement:
    """Strangers of borrowed fields are unknown visitors like others: a key of another website knows none of them."""
    if answer.failure is None:
        return Settlement(GoalState.PARKED, Health.KNOWN_VISITOR if answer.known else Health.UNKNOWN_VISITOR)
    return _health_of(answer.failure) if rule_proof(answer) is None else Settlement(GoalState.PARKED, Health.ANSWERED)


# ------------------------------------------------------------------------------------------------------ the step


def token_hash(destination: Destination) -> str:
    """The name of a token's row of pace: DataFast counts per token. Never the token itself."""
    return hashlib.sha256((destination.api_key or "").encode()).hexdigest()


class Deliverer:
    """Delivers goals of some destinations. Thread-safe: each thread of a worker calls `step`.

    random: 0 ≤ x < 1, for jitter. monotonic_ms: a clock that also counts while the process is stopped; sleep_ms: lets
    it go on. new_token: a text nobody else has, for a lease. steady, even, judged: what to make of the database's time
    when it may have jumped, and before a goal is given up by it (`Timekeeper`).
    """

    def __init__(
        self,
        store: Store,
        api: Api,
        settings: Settings,
        destinations: Callable[[], Mapping[str, Destination]],
        *,
        random: Callable[[], float],
        monotonic_ms: Callable[[], int],
        sleep_ms: Callable[[int], None],
        new_token: Callable[[], str],
        steady: Callable[[int], int] = clock.believed,
        even: Callable[[Connection], int | None] = clock.read_ms,
        judged: Callable[[Connection], int] = clock.read_ms,
    ) -> None:
        self._store = store
        self._api = api
        self._steady = steady
        self._even, self._judged = even, judged
        self._dated: set[str] = set()  # destinations whose clock was compared with ours since the start
        self._destinations = destinations
        self._settings = settings
        self._policy = Policy.of(settings)
        self._lease_ms = settings.bridge_lease
        self._deadline_ms = settings.bridge_deadline
        self._rate = settings.bridge_rate_per_minute
        self._random = random
        self._monotonic_ms = monotonic_ms
        self._sleep_ms = sleep_ms
        self._new_token = new_token
        self._registered: dict[str, str] = {}
        self._turn = 0

    def step(self, stopping: Callable[[], bool] = lambda: False) -> int | None:
        """Do one piece of work. None: done, call again; else how many ms there is nothing to do (at most 1 s)."""
        names = sorted(name for name, destination in self._destinations().items() if destination.api_key)
        if not names:
            return 1_000
        self._turn += 1
        waits = []
        for offset in range(len(names)):
            destination = self._destinations()[names[(self._turn + offset) % len(names)]]
            wait = self._step(destination, stopping)
            if wait is None:
                return None
            waits.append(wait)
        return min(waits)

    def _step(self, destination: Destination, stopping: Callable[[], bool]) -> int | None:
        self._register(destination)
        with self._store.read() as conn:
            nothing = turns.waits(conn, destination.name)
        if nothing is not None:
            return _pause_of(nothing)
        began_ms = self._monotonic_ms()
        claimed = self._claim(destination)
        if isinstance(claimed, NotYet):
            return _pause_of(claimed)
        if stopping():
            self._release(claimed)
        elif isinstance(claimed, Claim):
            self._send(destination, claimed, began_ms)
        elif isinstance(claimed, ProofClaim):
            self._prove(destination, claimed, began_ms)
        else:
            self._look(destination, claimed, began_ms)
        return None

    def _register(self, destination: Destination) -> None:
        fingerprint = token_hash(destination)
        if self._registered.get(destination.name) != fingerprint:
            self._store.run(
                lambda conn: rate_limit.register(conn, destination=destination.name, token_hash=fingerprint)
            )
            self._registered[destination.name] = fingerprint

    def _claim(self, destination: Destination) -> Claim | LookClaim | ProofClaim | NotYet:
        claimed = self._store.run(
            lambda conn: claims.claim(
                conn,
                destination=destination.name,
                token_hash=token_hash(destination),
                token=self._new_token(),
                lease_ms=self._lease_ms,
                rate=self._rate,
                readback_ms=(self._policy.settling_ms, self._policy.second_look_ms),
            )
        )
        if not isinstance(claimed, Claim):
            return claimed
        return replace(claimed, claimed_at_ms=self._steady(claimed.claimed_at_ms))

    def _release(self, claimed: Claim | LookClaim | ProofClaim) -> None:
        self._store.run(lambda conn: claims.release(conn, claimed))

    def _send(self, destination: Destination, claim: Claim, began_ms: int) -> None:
        attempt_id = self._begin(claim, began_ms)
        if attempt_id is None:  # the database took too long; somebody with a whole lease sends it
            self._release(claim)
            return
        goal = claim.goal
        if self._monotonic_ms() - began_ms > self._lease_ms - self._deadline_ms:
            outcome = Outcome(OutcomeKind.NOT_SENT, message="this process was stopped for too long to send it safely")
        else:
            outcome = action_of(goal.kind).send(self._api, destination, goal, claim.claimed_at_ms)
        ruled = rule(outcome, claim, self._policy, jitter=self._random())
        settled, ruling = self._surely(lambda conn: self._settle(conn, claim, attempt_id, outcome, ruled), began_ms)
        if settled.written and outcome.server_now_ms is not None:
            self._dated.add(destination.name)
        log.info(
            "attempt",
            goal=f"goal_{goal.id}",
            event_id=f"ev_{goal.event_id}",
            goal_name=goal.name,
            destination=destination.name,
            outcome=outcome.kind.value,
            status=outcome.status,
            state=ruling.state.value if settled.written else "lease_over",
            probe=claim.probe,
            ms=self._monotonic_ms() - began_ms,
        )
        self._tell(destination, settled, ruling)

    def _begin(self, claim: Claim, began_ms: int) -> int | None:
        """Write the attempt ahead; None: the lease is too short. Where that fails, it may be written all the same."""
        even = self._even if claim.goal.destination in self._dated else None
        try:
            return self._store.run(lambda conn: sends.begin(conn, claim, need_ms=self._deadline_ms, even=even))
        except StoreError:
            self._surely(lambda conn: sends.take_back(conn, claim), began_ms)  # or it would be in doubt
            raise

    def _surely(self, work: Callable[[Connection], T], began_ms: int) -> T:
        """Write what only this process knows: lost, it would leave the goal in doubt.

        A database that is busy or away is asked again while the lease lasts.
        """
        until_ms = began_ms + self._lease_ms
        while True:
            try:
                return self._store.run(work)
            except StoreGone:
                raise  # it does not come back; a restart reads back what is in doubt then
            except StoreError:
                if self._monotonic_ms() + AGAIN_MS >= until_ms:
                    raise
                self._sleep_ms(AGAIN_MS)

    def _settle(
        self, conn: Connection, claim: Claim, attempt_id: int, outcome: Outcome, ruling: Settlement
    ) -> tuple[Settled, Settlement]:
        """Settle; a visitor whom DataFast never knew is unlearned, and the goal's next candidate takes its place."""
        if ruling.unknown_visitor and ruling.state is GoalState.REJECTED:
            statements.lock(conn)  # before anything else: an answer about the next candidate may come just now
        if ruling.unknown_visitor and pauses.none_known(conn, claim.goal.destination, claim.goal.visitor):
            ruling = not_counted(outcome)
        settled = sends.settle(conn, claim, attempt_id, outcome, ruling, even=self._even)
        if settled.written and ruling.state is GoalState.REJECTED and ruling.unknown_visitor:
            unknown.unlearn(conn, claim.goal.destination, claim.goal.visitor)
            parking.next_visitor(conn, claim.goal.id, self._settings)
        elif settled.written and ruling.health is Health.SUCCESS:
            unknown.seen(conn, claim.goal.destination, claim.goal.visitor)
        return settled, ruling

    def _prove(self, destination: Destination, claim: ProofClaim, began_ms: int) -> None:
        """Ask whether the website knows this visitor; the goals that waited for it are decided with the answer."""
        answer = self._api.visitor_goals(destination, claim.visitor)
        known = rule_proof(answer)
        health = _health_of_proof(answer)
        settled = self._surely(lambda conn: self._settle_proof(conn, claim, known, health, answer), began_ms)
        outcome = {True: "known", False: "not_known", None: "cannot_tell"}[known]
        log.info("proof", destination=destination.name, outcome=outcome if settled.written else "lease_over")
        self._tell(destination, settled, health)

    def _settle_proof(
        self, conn: Connection, claim: ProofClaim, known: bool | None, health: Settlement, answer: VisitorGoals
    ) -> Settled:
        """Whoever wakes goals by what is remembered takes its turn before it holds anything else."""
        statements.lock(conn)
        steps = self._policy.unknown.steps_ms
        again_in_ms = steps[min(claim.failures, len(steps) - 1)]
        if not proofs.settle(conn, claim, known, again_in_ms=again_in_ms, message=health.message or ""):
            return Settled(written=False)
        if known is not None:
            parking.told(conn, claim.destination, claim.visitor, self._settings)
        news = pauses.learn(conn, claim.destination, health, visitor=claim.visitor, token=claim.token)
        pauses.learn_clock(conn, claim.destination, answer.server_now_ms, self._even)
        return Settled(written=True, news=news)

    def _look(self, destination: Destination, look: LookClaim, began_ms: int) -> None:
        answer = self._api.visitor_goals(destination, look.visitor)
        rulings, health = rule_look(look, answer, self._policy)
        settled = self._surely(
            lambda conn: readbacks.settle(
                conn, look, rulings, health=health, server_now_ms=answer.server_now_ms, even=self._even
            ),
            began_ms,
        )
        for ruling in rulings:
            log.info(
                "readback",
                goal=f"goal_{ruling.goal.goal.id}",
                destination=destination.name,
                state=ruling.settlement.state.value if settled.written else "lease_over",
                reason=ruling.settlement.reason,
            )
        self._tell(destination, settled, health)

    def _tell(self, destination: Destination, settled: Settled, ruling: Settlement) -> None:
        """One alert an incident: when a pause begins, and when it ends."""
        if settled.news == "paused":
            log.warning("destination.paused", destination=destination.name, reason=ruling.message)
        elif settled.news == "reopened":
            log.info("destination.reopened", destination=destination.name)
        elif settled.news == "none_known":
            log.warning("destination.none_known", destination=destination.name, visitors=pauses.UNKNOWN_IN_ROW)
        elif settled.news == "known":
            log.info("destination.known", destination=destination.name)

    def sweep(self) -> None:
        """Take up what vanished workers left, and expire what grew too old."""
        with self._store.read() as conn:
            if not sweep.anything_to_sweep(conn):
                return
        free, doubtful, old = self._store.run(
            lambda conn: sweep.sweep(conn, settling_ms=self._policy.settling_ms, judged=self._judged)
        )
        log.info("sweep", freed=len(free), in_doubt=len(doubtful), expired=len(old))


def _pause_of(nothing: NotYet) -> int:
    """How long to wait: until the time that is known, at most a second, because others may make work."""
    if nothing.until_ms is None:
        return 1_000
    return max(1, min(nothing.until_ms - nothing.now_ms, 1_000))
