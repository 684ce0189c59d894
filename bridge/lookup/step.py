"""One step of the lookup: choose a question, ask it, write the result. Workers share rate limit, pauses and answers.

`Lookup.step` asks at most one question and returns how many it asked. It holds no transaction while it asks, its
failures are rows (`bridge.store.links.lookups`) and never exceptions, and nothing waits for it: if a goal's visitor is
found otherwise meanwhile, the goal has left the state from which the answer would wake it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge import logs
from bridge.lookup import asking
from bridge.lookup.asking import AnswerKind
from bridge.masking import fingerprint
from bridge.store import clock
from bridge.store.goals import parking
from bridge.store.links import lookups

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from bridge.lookup.asking import Question, StripeAnswer
    from bridge.lookup.client import StripeClient
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store import Store
    from bridge.store.links.lookups import GoalToLookUp, LookupPause

STRIPE_URL: Final = "https://api.stripe.com"
DEADLINE_MS: Final = 5_000
PER_MINUTE: Final = 120  # Stripe allows 100 per second
LEASE_MS: Final = 60_000  # after which a question whose worker vanished is asked again
GRACE_MS: Final = 30_000  # the event that names the visitor is usually on its way
BATCH: Final = 20
_FAILED_MS: Final = (3_600_000, 6 * 3_600_000, 24 * 3_600_000)
_MODE: Final = re.compile(r"[a-z]+_(live|test)_")

log = logs.get("lookup")


@dataclass(frozen=True, slots=True)
class LeasedQuestion:
    """A question leased to this worker, and the goal it is for."""

    question: Question
    waiting: GoalToLookUp


def is_test(api_key: str) -> bool:
    """Whether the key is for test mode. One that does not say so counts as live."""
    found = _MODE.match(api_key)
    return found is not None and found[1] == "test"


class Lookup:
    """For one thread. new_api: makes the client when the first question is asked, because importing it is expensive."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        rules: Callable[[], RuleSet],
        *,
        url: str = STRIPE_URL,
        deadline_ms: int = DEADLINE_MS,
        new_api: Callable[[str, str, int], StripeClient] | None = None,
    ) -> None:
        assert settings.stripe_api_key is not None
        self._key = settings.stripe_api_key
        self._store, self._settings, self._rules = store, settings, rules
        self._url, self._deadline_ms = url, deadline_ms
        self._new_api = new_api or _client
        self._fingerprint = fingerprint(self._key)
        self._test = is_test(self._key)
        self._grace_ms = min(GRACE_MS, settings.bridge_weak_after // 4)
        self._api: StripeClient | None = None

    def step(self) -> int:
        """Ask one question, if there is one; return how many were asked. After a StoreError, try again later."""
        with self._store.read() as conn:
            if not lookups.any_due(conn, self._fingerprint):
                return 0
        asked = self._store.run(self._choose)
        if asked is None:
            return 0
        if self._api is None:
            self._api = self._new_api(self._key, self._url, self._deadline_ms)
        answer = self._api.ask(asked.question, asked.waiting.account)
        outcome = self._store.run(lambda conn: self._settle(conn, asked, answer))
        question, goal_id = asked.question, asked.waiting.goal_id
        log.info("lookup", key=question.key.text, question=question.target, goal_id=goal_id, outcome=outcome)
        return 1

    def close(self) -> None:
        """Close kept connections."""
        if self._api is not None:
            self._api.close()

    # ---------------------------------------------------------------------------------------------- the next question

    def _choose(self, conn: Connection) -> LeasedQuestion | None:
        """The first question that may be asked now; goals that have none are put off."""
        now, paused = clock.read_ms(conn), lookups.paused(conn, self._fingerprint)
        if lookups.ALL in paused:
            return None
        for waiting in lookups.due(conn, BATCH):
            chosen = self._question(conn, waiting, paused, now)
            if not isinstance(chosen, int):
                return self._begin(conn, chosen, waiting, now)
            lookups.put_off(conn, waiting.goal_id, chosen)
        return None

    def _begin(self, conn: Connection, question: Question, waiting: GoalToLookUp, now: int) -> LeasedQuestion | None:
        if not lookups.take_turn(conn, self._fingerprint, PER_MINUTE):
            return None
        if not lookups.begin(conn, question.key.text, question.target, waiting.goal_id, now, LEASE_MS):
            return None
        lookups.put_off(conn, waiting.goal_id, now + LEASE_MS)
        return LeasedQuestion(question, waiting)

    def _question(
        self, conn: Connection, waiting: GoalToLookUp, paused: dict[str, LookupPause], now: int
    ) -> Question | int:
        """The question to ask for this goal, or the time of its next turn."""
        starts_at_ms = waiting.created_at_ms + self._grace_ms
        source = self._rules().sources.get(waiting.source)
        if waiting.provider != "stripe" or waiting.test is not self._test or source is None:
            return max(waiting.parked_until_ms, now + lookups.DAY_MS)
        if starts_at_ms > now:
            return starts_at_ms
        questions = asking.questions(waiting.own, waiting.thread, waiting.event_type)
        again_at_ms = lookups.again_at(conn, {question.key.text for question in questions})
        times_ms = []
        for question in questions:
            pause_ends_ms = [paused[scope].until_ms for scope in _pause_scopes(question, waiting) if scope in paused]
            at_ms = max([again_at_ms.get((question.key.text, question.target), 0), *pause_ends_ms])
            if at_ms <= now:
                return question
            times_ms.append(at_ms)
        return min(times_ms, default=now + lookups.DAY_MS)

    # ----------------------------------------------------------------------------------------------------- answers

    def _settle(self, conn: Connection, asked: LeasedQuestion, answer: StripeAnswer) -> str:
        """Write the result. Learning comes first, because its lock must be taken before any other."""
        now = clock.read_ms(conn)
        outcome, detail, again_at = self._outcome(conn, asked, answer, now)
        key, target = asked.question.key.text, asked.question.target
        lookups.answered(conn, key, target, outcome=outcome, detail=detail, again_at_ms=again_at)
        lookups.put_off(conn, asked.waiting.goal_id, now)
        return outcome

    def _outcome(
        self, conn: Connection, asked: LeasedQuestion, answer: StripeAnswer, now: int
    ) -> tuple[str, str | None, int]:
        """(outcome, detail, when it may be asked again)."""
        question, waiting = asked.question, asked.waiting
        match answer.kind:
            case AnswerKind.FOUND | AnswerKind.MISSING:
                outcome = self._learn(conn, waiting, answer, now)
                lookups.reopen(conn, _pause_scopes(question, waiting))
                detail = ", ".join(str(obj.get("id")) for obj in answer.objects[:3]) or None
                return outcome, detail, now + lookups.DAY_MS
            case AnswerKind.REFUSED:
                log.warning("lookup.refused", question=question.target, key=question.key.text, reason=answer.message)
                failures = lookups.failures(conn, question.key.text, question.target)
                return "failed", answer.message, now + _FAILED_MS[min(failures, len(_FAILED_MS) - 1)]
        until = self._pause(conn, question, waiting, answer)
        return "failed", answer.message, until

    def _learn(self, conn: Connection, waiting: GoalToLookUp, answer: StripeAnswer, now: int) -> str:
        source = self._rules().sources.get(waiting.source)
        form = self._settings.bridge_visitor_id
        learned = [] if source is None else asking.observations(source, answer.objects, waiting, form, now)
        links = parking.learn(conn, learned, self._settings, now)
        for key, why in links.stopped.items():
            log.warning("link.stopped", key=key, reason=why)
        if any(observation.named for observation in learned):
            return "visitor"
        return "keys" if learned else "nothing"

    def _pause(self, conn: Connection, question: Question, waiting: GoalToLookUp, answer: StripeAnswer) -> int:
        scope = {
            AnswerKind.PERMISSION: f"permission:{question.permission}",
            AnswerKind.ACCOUNT: f"account:{waiting.account}",
        }.get(answer.kind, lookups.ALL)
        cause = answer.kind.value
        until = lookups.pause(conn, scope, cause, answer.message, self._fingerprint, answer.retry_after_ms)
        log.warning("lookup.paused", what=scope, reason=answer.message)
        return until


def _pause_scopes(question: Question, waiting: GoalToLookUp) -> list[str]:
    """The pauses that hold up this question, and that an answer to it ends."""
    return [lookups.ALL, f"account:{waiting.account}" if waiting.account else f"permission:{question.permission}"]


def _client(api_key: str, url: str, deadline_ms: int) -> StripeClient:
    from bridge.lookup import client  # noqa: PLC0415 - it imports stripe: 32 MB and 0.3 s

    return client.StripeClient(api_key, url, deadline_ms)
