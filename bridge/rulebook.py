"""The rules in force: loaded from a folder, watched, and saved, so that a broken file never stops the bridge.

The files form one set: a change is accepted once two looks a moment apart agree. A broken, empty or vanished file never
replaces a working set, nor does a set whose own `tests:` fail; the reason is kept for `/status`. Every accepted set is
stored under its hash, and a start with a broken folder uses the last good one; if there is none, a set that only fails
its tests is better than no rules. A set includes the shipped files that its layers extend, so that the last good one
continues with its own versions of them. The rulebook has no clock: its owner calls `poll` periodically.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from bridge import loading, logs, rules
from bridge.errors import MappingError, StoreError
from bridge.store import Store, rulesets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bridge.rules import RuleSet

PROBLEMS_SHOWN: Final = 3  # in the sentence of /status; the log line and `check` name every one
log = logs.get("rules")


class Rulebook:
    """Holds the current rule set. `current` and `poll` may be used from any thread.

    failed_tests: runs the `tests:` of a set and returns a sentence for each that fails.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        presets: Mapping[str, Any],
        store: Store,
        *,
        failed_tests: Callable[[RuleSet], Sequence[str]],
    ) -> None:
        self._failed_tests = failed_tests
        self._untested = False  # the current set is in force although its tests fail
        self._folder = folder
        self._environ = environ
        self._presets = presets
        self._store = store
        self._lock = threading.Lock()
        self._seen: dict[str, str] | None = None
        self.problem: str | None = None
        self._refused_problems: tuple[str, ...] = ()
        self.current = self._initial()
        _warn(self.current)
        self._handled: dict[str, str] | None = rules.own(self.current.files)

    def poll(self) -> None:
        """Look at the folder once, and accept a change that was there at the previous look, too."""
        with self._lock:
            self._poll()

    def _poll(self) -> None:
        try:
            files = rules.read_files(self._folder)
        except MappingError as error:
            self._refuse(error.problems)
            self._seen = self._handled = None  # what comes back is looked at again
            return
        settled = files == self._seen
        self._seen = files
        if not settled or files == self._handled:
            if settled and not self._untested and files == rules.own(self.current.files):
                self.problem = None
            return
        self._try_files(files)
        self._handled = files

    def _initial(self) -> RuleSet:
        """The folder's rules, or the last good ones. Raises MappingError if there are none either.

        A set that was accepted before is not tested again: an upgrade must not stop what worked.
        """
        try:
            current = self._load(rules.read_files(self._folder))
        except MappingError as error:
            return self._fall_back(error)
        last = self._last_accepted_if_reachable()
        problems = [] if current.files == last else self._failed_tests(current)
        if not problems:
            self._remember(current)
            return current
        self._refuse(tuple(problems))
        last_good = self._load_accepted(last)
        self._untested = last_good is None
        return last_good or current

    def _fall_back(self, error: MappingError) -> RuleSet:
        """The last good rules in place of a folder that cannot be loaded; raises its error if there are none."""
        last_good = self._load_accepted(self._last_accepted())
        if last_good is None:
            raise error
        self._refuse(error.problems)
        return last_good

    def _last_accepted_if_reachable(self) -> dict[str, str] | None:
        """None also if the database cannot be reached yet: a good folder does not need it."""
        try:
            return self._last_accepted()
        except StoreError:
            return None

    def _load(self, files: Mapping[str, str]) -> RuleSet:
        return loading.load(files, self._environ, self._presets, folder=self._folder.name)

    def _last_accepted(self) -> dict[str, str] | None:
        with self._store.read() as conn:
            return rulesets.last_accepted(conn)

    def _load_accepted(self, files: dict[str, str] | None) -> RuleSet | None:
        try:
            return self._load(files) if files is not None else None
        except MappingError:
            return None  # it was accepted by a release with another grammar

    def _try_files(self, files: dict[str, str]) -> None:
        try:
            successor = self._successor(files)
        except MappingError as error:
            self._refuse(error.problems)
            return
        self.current = successor
        self._untested = False
        self.problem = None
        self._remember(successor)
        _warn(successor)
        log.info("rules.reloaded", rules=successor.hash[:12], sources=sorted(successor.sources))

    def _successor(self, files: dict[str, str]) -> RuleSet:
        """The set that these files make. Raises MappingError, also if a current file vanished or a test fails."""
        missing = sorted(set(rules.own(self.current.files)) - set(files))
        if missing:
            advice = "put it back, or restart the bridge to go on without it"
            raise MappingError([f"{self._folder.name}/{name}: the file has disappeared; {advice}" for name in missing])
        successor = self._load(files)
        if problems := self._failed_tests(successor):
            raise MappingError(problems)
        return successor

    def _remember(self, accepted: RuleSet) -> None:
        try:
            self._store.run(lambda conn: rulesets.accept(conn, accepted.hash, accepted.files))
        except StoreError as error:
            log.warning("rules.not_stored", reason=str(error))

    def _refuse(self, problems: tuple[str, ...]) -> None:
        if self.problem is None or problems != self._refused_problems:
            log.warning("rules.refused", faults=list(problems))
        self._refused_problems = problems
        more = [f"and {len(problems) - PROBLEMS_SHOWN:,} more"] if len(problems) > PROBLEMS_SHOWN else []
        self.problem = "; ".join([*problems[:PROBLEMS_SHOWN], *more])


def _warn(rule_set: RuleSet) -> None:
    """Log problems that are not errors but keep something from working: an unset secret, a likely misspelling."""
    for warning in (*rule_set.problems, *rule_set.warnings):
        log.warning("rules.warning", warning=warning)
