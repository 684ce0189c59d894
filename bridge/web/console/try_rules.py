"""`/console/rules/try`: edit one mapping file, see what it would make, and download or save it.

Checking, comparing and downloading store nothing. Saving writes the file as an editor would, and waits until the bridge
has loaded it; if the disk is not permanent, the page says what to do instead.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, redirect, request, url_for

from bridge import sources
from bridge.errors import EditRefused, FileChanged, MappingError
from bridge.masking import hidden, without_addresses
from bridge.rules import RuleSet, read_file
from bridge.rules.reading.folder import shipped
from bridge.settings import TABLE
from bridge.store.operator import history
from bridge.web.console.rendering import Done, change, fragment, notice, page
from bridge.workbench import drafts, editing, explain, trace

if TYPE_CHECKING:
    from bridge.app import Bridge
    from bridge.model import Event
    from bridge.workbench.backtest import Backtest
    from bridge.workbench.editing import StoredFile, Trial
    from bridge.workbench.explain import Explained
    from bridge.workbench.unseen import UnseenPath

_EVENT: Final = re.compile(r"\s*(?:ev_)?([0-9]{1,18})\s*")
_NO_COMPARISON: Final[dict[str, Any]] = {"compared": None, "paths": (), "problem": None}
_LOAD_CHECKS: Final = 12  # between looks at the folder, after a save
_LOAD_CHECK_S: Final = 0.25


@dataclass(frozen=True)
class Edit:
    """The page's state for one file: the text being edited, and the contents on the disk."""

    stored: StoredFile
    text: str
    event: Event | None = None
    event_name: str = ""  # as it was requested

    @property
    def is_new(self) -> bool:
        return self.stored.digest == editing.NO_FILE

    @property
    def source(self) -> str:
        return Path(self.stored.name).stem


class EditPage:
    """The page's questions to one bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.folder = Path(bridge.settings.bridge_mappings)

    def known(self) -> list[str]:
        """The secrets in use, which no page may show."""
        bridge = self.bridge
        of_settings = (getattr(bridge.settings, setting.field) for setting in TABLE if setting.secret)
        of_sources = (secret for source in bridge.rules.sources.values() for secret in source.secrets)
        return [text for text in (*of_settings, *of_sources) if isinstance(text, str)]

    def requested(self) -> Edit | None:
        """The attempt that the URL requests; None if there is none yet."""
        wanted, layer, event = request.args.get("file", ""), request.args.get("layer", ""), self.event()
        names = editing.file_names(self.folder)
        if not wanted and layer:
            wanted = f"{layer}.yaml"
        if not wanted and event is not None:
            wanted = next((name for name in names if Path(name).stem == event.source), f"{event.source}.yaml")
        if not wanted:
            return None
        stored = editing.read(self.folder, wanted, self.known())
        text = stored.text
        if layer in shipped():
            if stored.digest != editing.NO_FILE:
                raise EditRefused(f"{wanted} already exists: choose another name for the new layer, or edit it.")
            text = drafts.layer(layer)
        if event is not None and request.args.get("new"):
            found = self.explained(self.bridge.rules, event)
            text = drafts.with_rule(text, found) if found is not None else text
        return Edit(stored, text, event, request.args.get("event", ""))

    def submitted(self) -> Edit:
        """The attempt in the form, whatever is on the disk now."""
        name, text = request.form.get("file", "").strip(), editing.with_lf(request.form.get("text", ""))
        stored = editing.read(self.folder, name, self.known())
        editing.require_acceptable(name, text, self.known())
        return Edit(stored, text, self.event(), request.values.get("event", ""))

    def event(self) -> Event | None:
        """The requested stored event."""
        match = _EVENT.fullmatch(request.values.get("event", ""))
        if match is None:
            return None
        with self.bridge.store.read() as conn:
            return next(iter(history.events_by_id(conn, [int(match[1])])), None)

    def check(self, edit: Edit) -> Trial:
        """The result of `check` for the folder with this text."""
        now_ms = time.time_ns() // 1_000_000
        return editing.check(self.folder, edit.stored.name, edit.text, self.bridge.settings, now_ms)

    def explained(self, rule_set: RuleSet | None, event: Event | None) -> Explained | None:
        """What these rules would make of the event."""
        if rule_set is None or event is None:
            return None
        return editing.explain(self.bridge.store, rule_set, self.bridge.settings, event)

    def compare(self, edit: Edit, trial: Trial) -> tuple[Backtest | None, Sequence[UnseenPath]]:
        """Compare the text with the rules in force over the last events, and list its paths that none of them has.

        (None, ()): it cannot be loaded.
        """
        rules, bridge = trial.rule_set, self.bridge
        if rules is None:
            return None, ()
        compared = editing.compare(bridge.store, bridge.settings, edit.source, bridge.rules, rules)
        return compared, editing.unseen_paths(bridge.store, rules, bridge.settings, edit.source)

    def show(self, edit: Edit | None, code: int = 200, **values: Any) -> Response:
        """The page. values: trial, problem, on_disk, compared, paths."""
        trial: Trial | None = values.get("trial")
        rule_set = trial.rule_set if trial is not None else self.bridge.rules
        explained = self.explained(rule_set, edit.event) if edit is not None else None
        return page(
            "try.html",
            title="Try an edit",
            here="rules",
            code=code,
            edit=edit,
            names=editing.file_names(self.folder),
            shipped=sorted(shipped()),
            unsavable=editing.unsavable(self.folder, self.bridge.settings.environ),
            folder=self.folder.name,
            summary=explain.summary(explained) if explained is not None else None,
            goals=_goals(explained),
            hidden=self.hider(values.get("compared"), explained),
            events=editing.EVENTS,
            **{**_NO_COMPARISON, "trial": None, "on_disk": None, **values},
        )

    def hider(self, compared: Backtest | None, explained: Explained | None = None) -> Callable[[str], str]:
        """A function that removes from sentences the secrets and personal data of the shown events."""
        shown = {example.event_id for rule in (compared.rules if compared else ()) for example in rule.examples}
        with self.bridge.store.read() as conn:
            events = history.events_by_id(conn, sorted(shown)) if shown else []
        secrets = set().union(*(self._unshowable(event, {event.envelope.type}) for event in events))
        if explained is not None:
            secrets |= self._unshowable(explained.event, explained.ids)
        ordered = tuple(sorted(secrets, key=len, reverse=True))
        return lambda text: without_addresses(hidden(text, ordered))

    def _unshowable(self, event: Event, ids: set[str]) -> frozenset[str]:
        return sources.unshowable(self.bridge.rules.sources.get(event.source), event.body, ids)

    def answer(self, work: Callable[[], Response]) -> Response:
        """The answer to a request, or the reason why the file cannot be shown or accepted."""
        try:
            return work()
        except EditRefused as error:
            if _is_part():
                return fragment("_backtest.html", **{**_NO_COMPARISON, "problem": str(error)})
            return self.show(None, 400, problem=str(error))

    # -------------------------------------------------------------------------------------------------------- saving

    def save(self, edit: Edit) -> Response:
        """Save the text if it has no problem and the file is unchanged; otherwise the page says why it is not saved."""
        name = edit.stored.name
        stored = replace(edit.stored, digest=request.form.get("digest", editing.NO_FILE))
        trial = self.check(edit)
        try:
            editing.require_savable(self.folder, self.bridge.settings.environ)
            editing.require_sound(trial)
            is_changed = editing.save(self.folder, stored, edit.text)
        except FileChanged as error:
            return self.show(edit, 409, trial=trial, problem=str(error), on_disk=edit.stored.text)
        except EditRefused as error:
            # The form's digest of the file stays decisive until a person has seen both versions.
            return self.show(replace(edit, stored=stored), 400, trial=trial, problem=str(error))
        if is_changed:
            sentence = f"{name} is saved{'' if stored.digest else ' as a new file'}{self._wait_until_loaded(name)}"
            change(self.bridge, "rules", lambda _conn: Done(name, sentence))
        else:
            notice(f"{name} is unchanged: there is nothing to save.")
        return redirect(url_for("console.try_rules", file=name, event=edit.event_name or None), 303)  # type: ignore[return-value]

    def _wait_until_loaded(self, name: str) -> str:
        """Wait until the bridge has loaded the file, and say so."""
        for look in range(_LOAD_CHECKS):
            self.bridge.poll_rules()
            try:
                if self.bridge.rules.files.get(name) == read_file(self.folder / name):
                    return ", and its rules are in force."
            except MappingError:
                break  # somebody has removed it again
            if look > 2 and self.bridge.rules_fault:
                return f", but the previous rules stay in force: {self.bridge.rules_fault}"
            time.sleep(_LOAD_CHECK_S)
        return ". The bridge loads it within a few seconds."


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""
    edit_page = EditPage(bridge)

    @routes.get("/rules/try")
    def try_rules() -> Response:
        return edit_page.answer(lambda: edit_page.show(edit_page.requested()))

    @routes.post("/rules/try")
    def try_rules_sent() -> Response:
        return edit_page.answer(lambda: _sent(edit_page))

    @routes.post("/rules/try/backtest")
    def try_backtest() -> Response:
        return edit_page.answer(lambda: _compared(edit_page))


def _sent(edit_page: EditPage) -> Response:
    edit = edit_page.submitted()
    match request.form.get("action"):
        case "save":
            return edit_page.save(edit)
        case "patch":
            return _download(edit_page, edit)
    stored = replace(edit.stored, digest=request.form.get("digest", editing.NO_FILE))  # a save compares it
    return edit_page.show(replace(edit, stored=stored), trial=edit_page.check(edit))


def _compared(edit_page: EditPage) -> Response:
    edit = edit_page.submitted()
    trial = edit_page.check(edit)
    compared, paths = edit_page.compare(edit, trial)
    if _is_part():
        hidden = edit_page.hider(compared)
        return fragment("_backtest.html", edit=edit, compared=compared, paths=paths, problem=None, hidden=hidden)
    return edit_page.show(edit, trial=trial, compared=compared, paths=paths)


def _is_part() -> bool:
    """Whether an open page requests only the comparison."""
    return request.endpoint == "console.try_backtest" and bool(request.headers.get("HX-Request"))


def _download(edit_page: EditPage, edit: Edit) -> Response:
    patch = editing.patch(edit_page.folder, edit.stored, edit.text)
    if not patch:
        return edit_page.show(edit, 400, problem="The text is the same as the file on the disk, so there is no patch.")
    answer = Response(patch.encode("utf-8", "surrogateescape"), mimetype="text/x-patch")
    answer.headers["Content-Disposition"] = f'attachment; filename="{edit.stored.name}.patch"'
    return answer


def _goals(explained: Explained | None) -> list[dict[str, Any]]:
    """The goals as they would be sent."""
    if explained is None:
        return []
    return [
        {
            "name": draft.planned.name,
            "fields": draft.planned.metadata,
            **explain.as_sent(explained, draft),
            "called": trace.with_origin(draft.planned.rule_id, draft.planned.origin),
        }
        for draft in (*explained.drafts, *explained.following)
    ]
