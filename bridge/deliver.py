"""Deliver: claim a goal with its slot, send it and settle it; or read back the goals left in doubt by a lost answer.

Before a goal is sent for a visitor from a borrowed field, DataFast is asked whether the website knows that visitor.

`decide` is the pure table of what each class of answer does; the retry schedule is a setting. The worker's
threads call `Deliverer.step`. A request goes out only after its attempt is committed, and only while enough of the
lease is left for the whole request. One transaction settles a goal that was delivered and claims the next one, so a
queue costs one commit per goal.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge import logs
from bridge.datafast.actions import action_of
from bridge.datafast.goal import utc
from bridge.errors import StoreError, StoreGone
from bridge.identity.sentences import NEVER_SEEN
from bridge.masking import fingerprint
from bridge.model import (
    IDEMPOTENT,
    VISITOR_OPTIONAL,
    Claim,
    GoalState,
    Health,
    NotYet,
    Outcome,
    OutcomeKind,
    ProofClaim,
    ReadbackClaim,
    ReadbackDecision,
    Settled,
    Settlement,
)
from bridge.store import clock
from bridge.store.delivery import claims, pauses
from bridge.store.delivery import statements as delivery_statements
from bridge.store.delivery.restoring import REASON
from bridge.store.goals import parking
from bridge.store.goals import statements as goal_statements
from bridge.store.links import statements as link_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from sqlalchemy import Connection

    from bridge.datafast.actions import Api
    from bridge.datafast.goal import Recognized
    from bridge.model import Destination, Readiness, UnconfirmedGoal, VisitorGoals
    from bridge.settings import Settings
    from bridge.store import Store

    T = TypeVar("T")

HOUR_MS: Final = 3_600_000
THROTTLED_MS: Final = 60_000  # the pause when DataFast does not state a length
JITTER: Final = 0.2
READBACKS_MAX: Final = 3
ABSENT_MAX: Final = 2
RETRY_MS: Final = 200  # before a failed write is retried
TURN_MS: Final = 250  # how long a thread stays with one destination while others wait

log = logs.get("deliver")


# ------------------------------------------------------------------------------------------- the table of answers


def decide(outcome: Outcome, claim: Claim, settings: Settings, *, jitter: float) -> Settlement:
    """Decide a goal's next state from an outcome. jitter: 0 ≤ jitter < 1, spread over ±20 % of a pause."""
    match outcome.kind:
        case OutcomeKind.DELIVERED:
            # DataFast does not document whether it refuses payments of unknown visitors.
            known = claim.goal.kind not in VISITOR_OPTIONAL
            return Settlement(GoalState.DELIVERED, Health.SUCCESS if known else Health.TAKEN)
        case OutcomeKind.REJECTED:
            return _as_answered(outcome, Health.ANSWERED, GoalState.REJECTED)
        case OutcomeKind.CONFIGURATION:
            return _as_answered(outcome, Health.CONFIGURATION)
        case OutcomeKind.THROTTLED:
            return replace(_as_answered(outcome, Health.THROTTLED), pause_ms=outcome.retry_after_ms or THROTTLED_MS)
        case OutcomeKind.UNKNOWN_VISITOR:
            return _unknown_visitor(outcome, claim, settings, jitter)
        case OutcomeKind.UNCONFIRMED if claim.goal.kind in IDEMPOTENT:
            return _try_again(outcome, claim, settings, jitter)
        case OutcomeKind.UNCONFIRMED:
            in_doubt = _as_answered(outcome, Health.FAILURE, GoalState.UNCONFIRMED)
            return replace(in_doubt, due_in_ms=settings.bridge_readback[0], reason="answer_lost", counts=True)
        case OutcomeKind.NOT_SENT | OutcomeKind.REFUSED_FOR_NOW:
            return _try_again(outcome, claim, settings, jitter)


def _as_answered(outcome: Outcome, health: Health, state: GoalState = GoalState.PENDING) -> Settlement:
    """A settlement whose reason and message are the outcome's."""
    return Settlement(state, health, reason=outcome.kind.value, message=outcome.message)


def _spread(pause_ms: int, jitter: float) -> int:
    return round(pause_ms * (1 - JITTER + 2 * JITTER * jitter))


def _try_again(outcome: Outcome, claim: Claim, settings: Settings, jitter: float) -> Settlement:
    """Back off. A probe moves to the end of the queue, so that one bad goal is not used for every probe."""
    if claim.probe:
        return _as_answered(outcome, Health.FAILURE)
    schedule, first_ms = settings.bridge_retry_schedule, claim.goal.first_try_at_ms
    pause_ms = _spread(schedule.pause_ms(claim.goal.attempts + 1), jitter)
    elapsed_ms = 0 if first_ms is None else claim.claimed_at_ms - first_ms - claim.paused_ms
    if elapsed_ms + pause_ms > schedule.total_ms:
        message = f"it could not be sent within the retry schedule; the last attempt: {outcome.message}"
        return Settlement(GoalState.EXPIRED, Health.FAILURE, reason="retries_over", message=message, counts=True)
    return replace(_as_answered(outcome, Health.FAILURE), due_in_ms=pause_ms, counts=True)


def _unknown_visitor(outcome: Outcome, claim: Claim, settings: Settings, jitter: float) -> Settlement:
    settlement = replace(_as_answered(outcome, Health.UNKNOWN_VISITOR), unknown_visitor=True)
    steps_ms, tries = settings.bridge_unknown_visitor_schedule.steps_ms, claim.goal.unknown_visitor_tries
    if tries < len(steps_ms):
        return replace(settlement, due_in_ms=_spread(steps_ms[tries], jitter))
    message = f"{claim.visitor} {NEVER_SEEN} ({outcome.message})"
    return replace(settlement, state=GoalState.REJECTED, message=message)


def not_counted(outcome: Outcome) -> Settlement:
    """An unknown visitor after a run of unknown visitors: the key may belong to another website."""
    message = f"{outcome.message}; this website knows none of the last 10 visitors, so this attempt does not count"
    return replace(_as_answered(outcome, Health.UNKNOWN_VISITOR), due_in_ms=HOUR_MS, message=message)


def decide_proof(answer: VisitorGoals) -> bool | None:
    """Whether the website knows this visitor; None if the answer does not say."""
    if answer.known:
        return True
    refused = answer.failure is None or answer.failure.kind is OutcomeKind.REJECTED
    return False if refused else None


def decide_readback(
    readback: ReadbackClaim, answer: VisitorGoals, settings: Settings
) -> tuple[list[ReadbackDecision], Settlement]:
    """What a read-back decides for each goal of the group, and what it says about the destination."""
    if answer.failure is not None:
        return [_cannot_tell(goal, answer.failure, settings) for goal in readback.goals], _health_of(answer.failure)
    found = action_of(readback.kind).recognize(readback, answer)
    decisions = [_decide_goal(doubtful, found, settings) for doubtful in readback.goals]
    return decisions, Settlement(GoalState.UNCONFIRMED, Health.ANSWERED)


def _decide_goal(doubtful: UnconfirmedGoal, found: Recognized, settings: Settings) -> ReadbackDecision:
    entry = found.delivered.get(doubtful.goal.id)
    if entry is not None:
        message = "the answer was lost, but DataFast has the goal: a read-back of the visitor found it"
        if doubtful.restored:
            at = f" at {utc(entry.at_ms)}" if entry.at_ms is not None else ""
            message = f"it was sent before the backup was restored: DataFast recorded it{at}"
        settlement = Settlement(GoalState.DELIVERED, Health.SUCCESS, reason="read_back", message=message)
        return ReadbackDecision(doubtful, settlement, remote_id=entry.event_id, at_ms=entry.at_ms)
    if doubtful.goal.id in found.unclear:
        sentence = "DataFast lists a goal of this name without a time or a description"
        return _cannot_tell(doubtful, Outcome(OutcomeKind.UNCONFIRMED, message=sentence), settings)
    if doubtful.absent + 1 < ABSENT_MAX:
        message = "DataFast does not show the goal yet; a second read-back decides"
        return ReadbackDecision(doubtful, _read_back_again(doubtful, Health.ANSWERED, message, settings), absent=True)
    message = "two read-backs of the visitor show that DataFast does not have the goal; it is sent again"
    if doubtful.restored:
        message = "it was not sent before the backup was restored: DataFast does not have it; it is sent now"
    settlement = Settlement(GoalState.PENDING, Health.ANSWERED, reason="absent", message=message)
    return ReadbackDecision(doubtful, settlement, absent=True)


_UNREACHED: Final = frozenset({OutcomeKind.NOT_SENT, OutcomeKind.THROTTLED, OutcomeKind.REFUSED_FOR_NOW})


def _cannot_tell(doubtful: UnconfirmedGoal, failure: Outcome, settings: Settings) -> ReadbackDecision:
    """After three inconclusive read-backs the setting decides; a read-back that never reached DataFast does not count.

    After a restore, sending again would duplicate everything sent since the backup, so a person always decides.
    """
    looked = failure.kind not in _UNREACHED
    if looked and doubtful.looks + 1 >= READBACKS_MAX:
        resend = settings.bridge_unconfirmed == "resend" and not doubtful.restored
        then = "it is sent again (BRIDGE_UNCONFIRMED=resend)" if resend else "a person has to decide"
        since = "a backup was restored, and " if doubtful.restored else ""
        message = f"{since}nobody can tell whether DataFast has it ({failure.message}); {then}"
        state = GoalState.PENDING if resend else GoalState.HELD
        settlement = Settlement(state, Health.SILENT, reason="cannot_tell", message=message)
    else:
        message = f"the visitor could not be read back: {failure.message}"
        settlement = _read_back_again(doubtful, Health.SILENT, message, settings)
    return ReadbackDecision(doubtful, settlement, looked=looked, failure=failure)


def _read_back_again(doubtful: UnconfirmedGoal, health: Health, message: str, settings: Settings) -> Settlement:
    reason = REASON if doubtful.restored else "answer_lost"
    return Settlement(GoalState.UNCONFIRMED, health, settings.bridge_readback[1], reason, message)


def _health_of(failure: Outcome) -> Settlement:
    """What an unusable answer says about the destination. A key may be allowed to send but not to read (401, 403)."""
    pause_ms = (failure.retry_after_ms or THROTTLED_MS) if failure.kind is OutcomeKind.THROTTLED else 0
    health = _HEALTH_OF_FAILURE.get(failure.kind, Health.SILENT)
    return Settlement(GoalState.UNCONFIRMED, health, message=failure.message, pause_ms=pause_ms)


_HEALTH_OF_FAILURE: Final = {
    OutcomeKind.THROTTLED: Health.THROTTLED,
    OutcomeKind.NOT_SENT: Health.FAILURE,
    OutcomeKind.REFUSED_FOR_NOW: Health.FAILURE,
    OutcomeKind.UNCONFIRMED: Health.FAILURE,
}


def _health_of_proof(answer: VisitorGoals) -> Settlement:
    """Unknown visitors from borrowed fields count like others: with another website's key, all are unknown."""
    if answer.failure is None:
        return Settlement(GoalState.PARKED, Health.KNOWN_VISITOR if answer.known else Health.UNKNOWN_VISITOR)
    return _health_of(answer.failure) if decide_proof(answer) is None else Settlement(GoalState.PARKED, Health.ANSWERED)


# ------------------------------------------------------------------------------------------------------ the step


class _Lease(NamedTuple):
    """A claim, and `began_ms`: the monotonic time just before its lease began."""

    claimed: Claim | ReadbackClaim | ProofClaim | NotYet
    began_ms: int


class Deliverer:
    """Delivers the goals of some destinations. Thread-safe: each thread of a worker calls `step`.

    random: 0 ≤ x < 1, for jitter. monotonic_ms: a clock that keeps running while the process is stopped; sleep_ms:
    waits by it. new_token: a unique string for a lease. steady, trusted_clock, expiry_clock: methods of
    `Timekeeper`, for when the database's time may have jumped, and before a goal is given up because of it.
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
        steady: Callable[[int], int] = lambda now_ms: now_ms,
        trusted_clock: Callable[[Connection], int | None] = clock.read_ms,
        expiry_clock: Callable[[Connection], int] = clock.read_ms,
    ) -> None:
        self._store = store
        self._api = api
        self._steady = steady
        self._trusted_clock, self._expiry_clock = trusted_clock, expiry_clock
        self._clock_known: set[str] = set()  # destinations whose clock has been compared with ours since the start
        self._destinations = destinations
        self._settings = settings
        self._lease_ms = settings.bridge_lease
        self._deadline_ms = settings.bridge_deadline
        self._rate = settings.bridge_rate_per_minute
        self._random = random
        self._monotonic_ms = monotonic_ms
        self._sleep_ms = sleep_ms
        self._new_token = new_token
        self._registered: dict[str, str] = {}
        self._busy: set[str] = set()  # destinations that had work at the last look
        self._turn = 0

    def step(self, stopping: Callable[[], bool] = lambda: False) -> int | None:
        """Do one piece of work. None: call again immediately; else the ms until there may be work (at most 1000)."""
        names = sorted(name for name, destination in self._destinations().items() if destination.api_key)
        if not names:
            return 1_000
        self._turn += 1
        waits_ms = []
        for offset in range(len(names)):
            destination = self._destinations()[names[(self._turn + offset) % len(names)]]
            wait_ms = self._step(destination, stopping)
            if wait_ms is None:
                return None
            waits_ms.append(wait_ms)
        return min(waits_ms)

    def _step(self, destination: Destination, stopping: Callable[[], bool]) -> int | None:
        self._register(destination)
        if destination.name not in self._busy:  # otherwise a claim shows whether there is more
            with self._store.read() as conn:
                not_yet = claims.peek(conn, destination.name)
            if not_yet is not None:
                return _idle_ms(not_yet)
        first = self._claim(destination)
        if isinstance(first.claimed, NotYet):
            self._busy.discard(destination.name)
            return _idle_ms(first.claimed)
        self._busy.add(destination.name)
        lease: _Lease | None = first
        until_ms = first.began_ms + TURN_MS
        while lease is not None:
            lease = self._work(destination, lease, until_ms, stopping)
        return None

    def _work(
        self, destination: Destination, lease: _Lease, until_ms: int, stopping: Callable[[], bool]
    ) -> _Lease | None:
        """Do the claimed work; return the next claim, if any. until_ms: when the next destination gets its turn."""
        claimed, began_ms = lease
        if isinstance(claimed, NotYet):
            self._busy.discard(destination.name)
        elif stopping():
            self._release(claimed, began_ms)
        elif isinstance(claimed, Claim):
            return self._send(
                destination, claimed, began_ms, lambda: not stopping() and self._may_continue(destination, until_ms)
            )
        elif isinstance(claimed, ProofClaim):
            self._prove(destination, claimed, began_ms)
        else:
            self._read_back(destination, claimed, began_ms)
        return None

    def _register(self, destination: Destination) -> None:
        token_hash = fingerprint(destination.api_key)
        if self._registered.get(destination.name) != token_hash:
            self._store.run(lambda conn: claims.register(conn, destination=destination.name, token_hash=token_hash))
            self._registered[destination.name] = token_hash

    def _claim(self, destination: Destination) -> _Lease:
        """Claim the next work. An unconfirmed claim is taken back; otherwise its goal would be in doubt."""
        leases: list[_Lease] = []

        def work(conn: Connection) -> _Lease:
            leases[:] = [self._take(conn, destination, self._monotonic_ms())]
            return leases[0]

        try:
            return self._store.run(work)
        except StoreError:
            for claimed, began_ms in leases:
                if isinstance(claimed, Claim):
                    self._persist(lambda conn, claim=claimed: claims.take_back(conn, claim), began_ms)  # type: ignore[misc]
            raise

    def _take(
        self,
        conn: Connection,
        destination: Destination,
        began_ms: int,
        ready: Readiness | None = None,
        trusted_clock: Callable[[Connection], int | None] | None = None,
    ) -> _Lease:
        """Claim the next work. If it is a goal, its attempt is recorded in the same transaction.

        began_ms: taken before reading the database's time from which the lease runs. ready, trusted_clock: see
        `claims.claim`.
        """
        claimed = claims.claim(
            conn,
            destination=destination.name,
            token_hash=fingerprint(destination.api_key),
            token=self._new_token(),
            lease_ms=self._lease_ms,
            rate=self._rate,
            readback_ms=(self._settings.bridge_readback[0], self._settings.bridge_readback[1]),
            trusted_clock=(trusted_clock or self._trusted_clock) if destination.name in self._clock_known else None,
            ready=ready,
        )
        if isinstance(claimed, Claim):
            claimed = replace(claimed, claimed_at_ms=self._steady(claimed.claimed_at_ms))
        return _Lease(claimed, began_ms)

    def _release(self, claimed: Claim | ReadbackClaim | ProofClaim, began_ms: int) -> None:
        self._persist(lambda conn: claims.release(conn, claimed), began_ms)

    def _send(
        self, destination: Destination, claim: Claim, began_ms: int, may_continue: Callable[[], bool]
    ) -> _Lease | None:
        if self._is_too_late(began_ms):
            self._release(claim, began_ms)  # a later claim sends it, with a full lease
            return None
        goal = claim.goal
        outcome = action_of(goal.kind).send(self._api, destination, goal, claim.claimed_at_ms)
        decided = decide(outcome, claim, self._settings, jitter=self._random())
        claim_next = decided.state is GoalState.DELIVERED and may_continue()
        settle = self._settle_and_claim(destination, claim, outcome, decided, claim_next=claim_next)
        settled, settlement, lease = self._persist(settle, began_ms)
        if settled.written and outcome.server_now_ms is not None:
            self._clock_known.add(destination.name)
        log.info(
            "attempt",
            goal=f"goal_{goal.id}",
            event_id=f"ev_{goal.event_id}",
            goal_name=goal.name,
            destination=destination.name,
            outcome=outcome.kind.value,
            status=outcome.status,
            state=settlement.state.value if settled.written else "lease_over",
            probe=claim.probe,
            ms=self._monotonic_ms() - began_ms,
        )
        self._log_change(destination, settled, settlement)
        return lease

    def _persist(self, work: Callable[[Connection], T], began_ms: int) -> T:
        """Write what only this process knows; otherwise the goal would be in doubt.

        While the database is busy or down, this is retried until the lease ends.
        """
        until_ms = began_ms + self._lease_ms
        while True:
            try:
                return self._store.run(work)
            except StoreGone:
                raise  # it will not recover; after a restart, goals in doubt are read back
            except StoreError:
                if self._monotonic_ms() + RETRY_MS >= until_ms:
                    raise
                self._sleep_ms(RETRY_MS)

    def _is_too_late(self, began_ms: int) -> bool:
        """Whether too little of the lease is left for a request: the database was slow, or this process was stopped."""
        return self._monotonic_ms() - began_ms >= self._lease_ms - self._deadline_ms

    def _may_continue(self, destination: Destination, until_ms: int) -> bool:
        """Whether it is still this destination's turn, and its key is unchanged."""
        active = [other for other in self._destinations().values() if other.api_key]
        return destination in active and (len(active) == 1 or self._monotonic_ms() < until_ms)

    def _settle_and_claim(
        self, destination: Destination, claim: Claim, outcome: Outcome, decided: Settlement, *, claim_next: bool
    ) -> Callable[[Connection], tuple[Settled, Settlement, _Lease | None]]:
        """The function that settles a goal and, if `claim_next`, claims the next work.

        Only the first try claims, because a slow claim must not delay recording DataFast's answer. Later tries take the
        claim back: the first may have been committed without a confirmation.
        """
        leases: list[_Lease] = []
        tries = count()

        def work(conn: Connection) -> tuple[Settled, Settlement, _Lease | None]:
            is_first, began_ms = next(tries) == 0, self._monotonic_ms()
            trusted_clock = cache(self._trusted_clock)  # settling and claiming share one reading
            for lease in leases:
                if isinstance(lease.claimed, Claim):
                    claims.take_back(conn, lease.claimed)
            settled, settlement = self._settle(conn, claim, outcome, decided, trusted_clock)
            if not (claim_next and is_first and settled.written):
                return settled, settlement, None
            leases.append(self._take(conn, destination, began_ms, settled.ready, trusted_clock))
            return settled, settlement, leases[0]

        return work

    def _settle(
        self,
        conn: Connection,
        claim: Claim,
        outcome: Outcome,
        settlement: Settlement,
        trusted_clock: Callable[[Connection], int | None],
    ) -> tuple[Settled, Settlement]:
        """Settle a goal. A visitor unknown to DataFast is unlearned, and the goal's next candidate takes its place."""
        if settlement.unknown_visitor and settlement.state is GoalState.REJECTED:
            link_statements.lock(conn)  # first: an answer about the next candidate may arrive at the same moment
        if settlement.unknown_visitor and pauses.none_known(conn, claim.destination, claim.visitor):
            settlement = not_counted(outcome)
        settled = claims.settle(conn, claim, outcome, settlement, trusted_clock=trusted_clock)
        if settled.written and settlement.state is GoalState.REJECTED and settlement.unknown_visitor:
            goal_statements.note_unknown(conn, claim.destination, claim.visitor)
            parking.next_visitor(conn, claim.goal.id, self._settings)
        elif settled.doubted and settlement.health is Health.SUCCESS:
            goal_statements.forget_unknown(conn, claim.destination, claim.visitor)
        return settled, settlement

    def _prove(self, destination: Destination, claim: ProofClaim, began_ms: int) -> None:
        """Ask whether the website knows this visitor; the answer decides the goals that waited for it."""
        answer = self._api.visitor_goals(destination, claim.visitor)
        known = decide_proof(answer)
        health = _health_of_proof(answer)
        settled = self._persist(lambda conn: self._settle_proof(conn, claim, known, health, answer), began_ms)
        outcome = {True: "known", False: "not_known", None: "cannot_tell"}[known]
        log.info("proof", destination=destination.name, outcome=outcome if settled.written else "lease_over")
        self._log_change(destination, settled, health)

    def _settle_proof(
        self, conn: Connection, claim: ProofClaim, known: bool | None, health: Settlement, answer: VisitorGoals
    ) -> Settled:
        """Settle a proof. The lock for learning is taken before any other, because goals may be woken."""
        link_statements.lock(conn)
        again_in_ms = self._settings.bridge_unknown_visitor_schedule.pause_ms(claim.failures + 1)
        if not delivery_statements.settle_proof(conn, claim, known, again_in_ms=again_in_ms, message=health.message):
            return Settled(written=False)
        if known is not None:
            parking.decide_proved(conn, claim.destination, claim.visitor, self._settings)
        return pauses.learn(conn, claim, health, server_now_ms=answer.server_now_ms, trusted_clock=self._trusted_clock)

    def _read_back(self, destination: Destination, readback: ReadbackClaim, began_ms: int) -> None:
        answer = self._api.visitor_goals(destination, readback.visitor)
        decisions, health = decide_readback(readback, answer, self._settings)
        settled = self._persist(
            lambda conn: claims.settle_readback(
                conn,
                readback,
                decisions,
                health=health,
                server_now_ms=answer.server_now_ms,
                trusted_clock=self._trusted_clock,
            ),
            began_ms,
        )
        for decision in decisions:
            log.info(
                "readback",
                goal=f"goal_{decision.goal.goal.id}",
                destination=destination.name,
                state=decision.settlement.state.value if settled.written else "lease_over",
                reason=decision.settlement.reason,
            )
        self._log_change(destination, settled, health)

    def _log_change(self, destination: Destination, settled: Settled, settlement: Settlement) -> None:
        """Log one alert when a pause begins, and one when it ends."""
        if settled.news == "paused":
            log.warning("destination.paused", destination=destination.name, reason=settlement.message)
        elif settled.news == "reopened":
            log.info("destination.reopened", destination=destination.name)
        elif settled.news == "none_known":
            log.warning("destination.none_known", destination=destination.name, visitors=pauses.UNKNOWN_IN_ROW)
        elif settled.news == "known":
            log.info("destination.known", destination=destination.name)

    def sweep(self) -> None:
        """Take over the work of vanished workers, and expire goals that have become too old."""
        with self._store.read() as conn:
            if not claims.anything_to_sweep(conn):
                return
        freed, doubtful, expired = self._store.run(
            lambda conn: claims.sweep(
                conn, settling_ms=self._settings.bridge_readback[0], expiry_clock=self._expiry_clock
            )
        )
        log.info("sweep", freed=len(freed), in_doubt=len(doubtful), expired=len(expired))


def _idle_ms(not_yet: NotYet) -> int:
    """How long to wait, in ms: at most 1000, because other processes may create work."""
    if not_yet.until_ms is None:
        return 1_000
    return max(1, min(not_yet.until_ms - not_yet.now_ms, 1_000))
