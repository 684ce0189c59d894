"""Store verified webhooks durably: the future of `Inbox.post` is done when the event's commit is on the disk.

Requests that wait at the same moment share one transaction, run by one committer thread, because a commit costs far
more than a row. A batch that fails is retried row by row, so one bad event fails alone. A caller waits at most 3 s;
after that its event may or may not be stored, and if the sender repeats it, it is recognised as a duplicate. This
module has nothing to do with signatures or rules.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from bridge import logs
from bridge.errors import BridgeError, StoreError, StoreUnavailable
from bridge.model import Ack, EventState
from bridge.store.inbox import statements
from bridge.text import storable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.model import NewEvent
    from bridge.store.database.driver import Driver
    from bridge.store.database.engine import Store

log = logs.get("inbox")

PATIENCE_S: Final = 2.5  # how long a caller waits, so that it can still answer within 3 s
LATE_S: Final = 3.0  # a webhook that has waited this long, or was refused this recently, makes the bridge unready
_BATCH: Final = 64  # rows per commit
_BATCH_BYTES: Final = 4 << 20  # of bodies per commit
_ROW_BY_ROW_S: Final = 1.0  # how long a failed batch is retried row by row while its callers wait

_Row = tuple[Any, ...]
_Entry = tuple["NewEvent", "Future[Ack]"]
_FormerKeys = tuple[tuple[str, str], ...]  # the (type, key) pairs that the previous release would have stored


class _Waiting:
    """An event waiting to be stored. Once its future is done or cancelled, no reference to either is kept."""

    __slots__ = ("content", "since_s")

    def __init__(self, event: NewEvent, ack: Future[Ack]) -> None:
        self.content: _Entry | None = (event, ack)
        self.since_s = time.monotonic()

    def release(self, _ack: Future[Ack]) -> None:
        self.content = None


class Inbox:
    """The way into the store. Thread-safe; in each process its committer thread starts with the first event.

    on_stored: called by the committer after each commit that holds new events (to wake a worker).
    """

    def __init__(self, store: Store, on_stored: Callable[[], None] | None = None) -> None:
        self._store = store
        self._on_stored = on_stored or (lambda: None)
        self._starting = threading.Lock()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._oldest_s: float | None = None  # since when the oldest event being stored has waited
        self._refused: tuple[float, StoreError] | None = None  # when and why storing failed; None once it works again

    def post(self, event: NewEvent) -> Future[Ack]:
        """Store an event, or recognise it as a duplicate: the future holds which, or why neither is certain.

        The future's callbacks run in the committer thread, so they must be quick. A caller that has waited for
        PATIENCE_S cancels the future; if the event is still waiting, it is not stored.
        """
        if self._pid != os.getpid():
            self._start()
        ack: Future[Ack] = Future()
        waiting = _Waiting(event, ack)
        ack.add_done_callback(waiting.release)
        self._queue.put(waiting)
        return ack

    def require_flowing(self) -> None:
        """Raise StoreUnavailable while webhooks wait too long or are refused, even if other connections still work."""
        now_s, oldest_s, refused = time.monotonic(), self._oldest_s, self._refused
        if oldest_s is not None and now_s - oldest_s > LATE_S:
            raise StoreUnavailable(f"a webhook has waited for {now_s - oldest_s:.0f} s for the database to store it")
        if refused is not None and now_s - refused[0] < LATE_S:
            raise refused[1].with_traceback(None)

    def close(self) -> None:
        """Store the waiting events, then end the committer. A later `post` starts a new one."""
        with self._starting:
            if self._pid != os.getpid() or self._thread is None:
                return
            self._pid = 0
            self._queue.put(None)
            ending = self._thread
        ending.join(timeout=PATIENCE_S)  # without the lock: the server's loop may post now and must not wait

    def _start(self) -> None:
        with self._starting:
            if self._pid == os.getpid():
                return
            self._queue = SimpleQueue()  # the old one's contents belong to the parent process
            self._oldest_s = self._refused = None
            self._thread = threading.Thread(
                target=self._commit_forever, args=(self._queue,), name="bridge-inbox", daemon=True
            )
            self._thread.start()
            self._pid = os.getpid()

    def _commit_forever(self, queue: SimpleQueue[_Waiting | None]) -> None:
        while (first := queue.get()) is not None:
            self._oldest_s = first.since_s
            batch, closing = _gather(first, queue)
            if batch:
                self._commit(batch, time.monotonic() + _ROW_BY_ROW_S)
            self._oldest_s = None
            if closing:
                return

    def _commit(self, batch: list[_Entry], until_s: float) -> Exception | None:
        """Store a batch in one transaction; if it fails, row by row until `until_s`. Returns the last error, if any."""
        rows = [_row(event) for event, _ in batch]
        former_keys = [_former_keys(event) for event, _ in batch]
        try:
            answers = self._store.run_driver(lambda driver: store_rows(driver, rows, former_keys))
        except Exception as failure:  # noqa: BLE001 - any error is passed to the callers
            return self._store_one_by_one(batch, failure, until_s)
        self._refused = None
        for (_, ack), answer in zip(batch, answers, strict=True):
            if ack.set_running_or_notify_cancel():
                ack.set_result(answer)
        if Ack.ACCEPTED in answers:
            self._wake()
        return None

    def _store_one_by_one(self, batch: list[_Entry], failure: Exception, until_s: float) -> Exception:
        for event, ack in batch:
            if len(batch) > 1 and time.monotonic() < until_s:
                failure = self._commit([(event, ack)], until_s) or failure
                continue
            if isinstance(failure, StoreError):
                self._refused = time.monotonic(), failure
            if ack.set_running_or_notify_cancel():
                ack.set_exception(_as_bridge_error(failure))
        return failure

    def _wake(self) -> None:
        """Call `on_stored`. Its errors must not end the committer, or nothing would be acknowledged any more."""
        try:
            self._on_stored()
        except Exception as error:  # noqa: BLE001 - as above
            log.error("on_stored.failed", fault=logs.where(error))  # noqa: TRY400 - no stack in logs


def _gather(first: _Waiting, queue: SimpleQueue[_Waiting | None]) -> tuple[list[_Entry], bool]:
    """The waiting events, limited to one commit, and whether the inbox is being closed."""
    batch: list[_Entry] = []
    size = 0
    waiting: _Waiting | None = first
    while waiting is not None:
        entry = waiting.content
        if entry is not None:
            batch.append(entry)
            size += len(entry[0].body)
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            return batch, False
        try:
            waiting = queue.get_nowait()
        except Empty:
            return batch, False
    return batch, True


def _as_bridge_error(failure: Exception) -> Exception:
    """Any error as one that makes the sender try again, because its event is not stored."""
    if isinstance(failure, BridgeError):
        return failure
    unavailable = StoreUnavailable(f"the event could not be stored ({type(failure).__name__})")
    unavailable.__cause__ = failure
    return unavailable


# --------------------------------------------------------------------------------------------------------- rows

_SOURCE: Final = statements.NEW_COLUMNS.index("source")
_KEY: Final = statements.NEW_COLUMNS.index("dedupe_key")  # and the second one after it
_KEY_MAX: Final = 200  # characters; longer keys are hashed, because an index entry has to fit into a page
_TEXT_MAX: Final = 500
_MS_MAX: Final = 1 << 53


def _row(event: NewEvent) -> _Row:
    """The event as values for `NEW_COLUMNS`. An authentic event is never refused because of its strings.

    A lone dedupe key is stored in both columns, so that it also collides with the second key of an earlier event:
    omitting an unsigned id does not turn a duplicate into a new event.
    """
    keys = [_key(key) for key in event.dedupe_keys]
    envelope = event.envelope
    return (
        event.source,
        event.provider,
        keys[0],
        keys[-1],
        _text(envelope.type),
        _text(envelope.id),
        _text(envelope.account),
        envelope.test,
        _ms(envelope.time_ms),
        _ms(envelope.order_ms),
        json.dumps(dict(event.headers)),
        json.dumps(dict(event.query)),
        event.body,
        (EventState.RECEIVED if event.quarantine is None else EventState.QUARANTINED).value,
        _text(event.quarantine),
        event.signature,
    )


def _former_keys(event: NewEvent) -> _FormerKeys:
    return tuple((_text(event_type) or "", _key(key)) for event_type, key in event.former_keys)


def _key(key: str) -> str:
    if len(key) > _KEY_MAX:
        return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return storable(key)


def _text(text: str | None) -> str | None:
    return None if text is None else storable(text[:_TEXT_MAX])


def _ms(value: int | None) -> int | None:
    return value if value is not None and -_MS_MAX < value < _MS_MAX else None


# ------------------------------------------------------------------------------------------------------ a batch


def store_rows(driver: Driver, rows: Sequence[_Row], former_keys: Sequence[_FormerKeys] = ()) -> list[Ack]:
    """Insert rows, except those with a known key for their source; return the result for each, in order.

    former_keys: per row, the keys that the previous release would have stored; they are only looked up. If two
    processes store the same event simultaneously, the unique index lets one insert, and the other waits for that commit
    and finds a duplicate. All insert in key order, which prevents deadlocks.
    """
    stored_before = _stored_before(driver, rows, former_keys)
    answers = dict.fromkeys(stored_before, Ack.DUPLICATE)
    remaining = [index for index in range(len(rows)) if index not in answers]
    remaining.sort(key=lambda index: _identity(rows[index]))
    while remaining:
        distinct = {_identity(rows[index]): index for index in reversed(remaining)}
        values = [value for index in reversed(distinct.values()) for value in rows[index]]
        inserted = set(driver.execute_raw(statements.insert_text(len(distinct), driver.dialect), values))
        for identity, index in distinct.items():
            answers[index] = Ack.ACCEPTED if identity in inserted else Ack.DUPLICATE
        remaining = [index for index in remaining if index not in answers]
    _count(driver, rows, answers, stored_before)
    return [answers[index] for index in range(len(rows))]


def _stored_before(driver: Driver, rows: Sequence[_Row], former_keys: Sequence[_FormerKeys]) -> dict[int, int]:
    """The rows that the previous release stored under another key: position -> id of the event."""
    keys_by_source: dict[str, set[str]] = {}
    for row, pairs in zip(rows, former_keys, strict=False):
        keys_by_source.setdefault(row[_SOURCE], set()).update(key for _, key in pairs)
    known = {
        (source, event_type, key): event_id
        for source, keys in sorted(keys_by_source.items())
        for statement in (statements.BY_KEY, statements.BY_KEY_2)
        for event_id, event_type, key in (driver.execute_in(statement, sorted(keys), (source,)) if keys else ())
    }
    return {
        index: known[former_key]
        for index, pairs in enumerate(former_keys)
        for event_type, key in pairs
        if (former_key := (rows[index][_SOURCE], event_type, key)) in known
    }


def _identity(row: _Row) -> _Row:
    return row[_SOURCE], row[_KEY]


def _count(driver: Driver, rows: Sequence[_Row], answers: dict[int, Ack], stored_before: dict[int, int]) -> None:
    counts: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        duplicate = answers[index] is Ack.DUPLICATE
        counts.setdefault(row[_SOURCE], [0, 0])[duplicate] += 1
        if index in stored_before:
            driver.execute(statements.REPEATED_ID, (stored_before[index],))
        elif duplicate:
            driver.execute(statements.REPEATED, (row[_SOURCE], row[_KEY], row[_SOURCE], row[_KEY + 1]))
    for source in sorted(counts):
        driver.execute(statements.STORED, (source, *counts[source]))
