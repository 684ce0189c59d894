"""A rule that holds → the goal it plans: name, description, metadata, once key, visitor candidates, notes.

Whatever DataFast would refuse is fitted here, and every change is a note for the trace.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge import limits
from bridge.model import MISSING, Candidate, Document, Follows, Path, PlannedGoal, Source
from bridge.rules.language.filters import Scope, instant, slug
from bridge.rules.language.templates import Placeholder, Template
from bridge.rules.language.values import json_in_text
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.rules.language.paths import CompiledPath
    from bridge.rules.ruleset import Rule

ONCE_VALUE_MAX: Final = 200
_UUID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)
_PRICE_ID: Final = re.compile(  # elsewhere `price_changed` is a word
    r"\b(?:price|prod)_(?=[A-Za-z]*[0-9])(?=[a-z0-9]*[A-Z])[A-Za-z0-9]{14,}\b", re.ASCII
)


class RuleFailedError(Exception):
    """A rule cannot make its goal of this event; the message says why."""


class Making:
    """One event, of which rules make goals."""

    __slots__ = ("document", "event_name", "mode", "scope", "source")

    def __init__(self, source: Source, document: Document, event_name: str, mode: str, hash_key: bytes) -> None:
        self.source, self.document = source, document
        self.event_name, self.mode, self.scope = event_name, mode, Scope(document, hash_key, source.decimals)

    def goal(self, rule: Rule) -> PlannedGoal:
        """RuleFailedError where there can be none."""
        name, notes = self._name(rule)
        metadata, more = self._payment(rule) if rule.kind == limits.PAYMENT else self._fitted(rule)
        description, cut = self._description(rule)
        once_key, once, value = self._once_key(rule, name, metadata)
        return PlannedGoal(
            rule_id=rule.id,
            name=name,
            description=description,
            metadata=metadata,
            once_key=once_key,
            destination=rule.destination,
            candidates=candidates(rule.visitor, self.document) if rule.visitor else (),
            max_age_ms=rule.max_age_ms,
            wait_ms=rule.wait_ms,
            notes=(*notes, *more, *cut, *once),
            kind=rule.kind,
            origin=rule.origin,
            dry=rule.dry,
            notify=rule.notify,
            follows=None if rule.follows is None else self._follows(rule.follows, value),
        )

    def _name(self, rule: Rule) -> tuple[str, tuple[str, ...]]:
        text = rule.name.render(self.scope)
        if text is None:
            raise RuleFailedError(f"the goal's name needs {rule.name.first_missing(self.scope)}, which has no value")
        if rule.name.literal is not None:
            return text, ()
        self._refuse_ids(rule.name)
        try:
            return limits.fit_goal_name(text)
        except ValueError as error:
            raise RuleFailedError(f"{error}") from None

    def _refuse_ids(self, name: Template) -> None:
        """An id in a name would be a goal of its own for every price or person, and say nothing."""
        for placeholder in name.placeholders:
            path, bar, filters = placeholder.text[1:-1].partition("|")
            found = self._spelt_otherwise(placeholder) if filters else None
            if found is not None:
                advised = f"{path}|map:names{bar}{filters}"
            else:
                found = id_in(text_of(placeholder.value(self.scope)) or "", self.source.object_ids)
                advised = f"{placeholder.text[1:-1]}|map:names"
            if found is not None:
                raise RuleFailedError(
                    f"the goal's name would hold the id {found}: give it a name in maps and write"
                    f" {{{advised}}}, with maps: {{names: {{{found}: pro}}}}"
                )

    def _spelt_otherwise(self, placeholder: Placeholder) -> str | None:
        """The id that is still there behind the filters, as it is or as `slug` writes it: price_1Lab as price-1lab."""
        found = id_in(text_of(placeholder.unfiltered(self.scope)) or "", self.source.object_ids)
        kept = found is not None and slug(found) in slug(text_of(placeholder.value(self.scope)) or "")
        return found if kept else None

    def _fitted(self, rule: Rule) -> tuple[dict[str, str], tuple[str, ...]]:
        return limits.fit_metadata(self._metadata(rule.metadata))

    def _payment(self, rule: Rule) -> tuple[dict[str, str], tuple[str, ...]]:
        """The fields of a payment; RuleFailedError where one is not there or is wrong that DataFast needs."""
        fields = dict(rule.metadata) if isinstance(rule.metadata, tuple) else {}
        texts = {name: text for name, template in fields.items() if (text := template.render(self.scope)) is not None}
        for name in limits.PAYMENT_NEEDS:
            if name not in texts:
                raise RuleFailedError(
                    f"the payment's {name} needs {fields[name].first_missing(self.scope)}, which has no value"
                )
        if "timestamp" in texts:
            moment = instant(texts["timestamp"])
            texts["timestamp"] = "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            return limits.fit_payment(texts.items())
        except ValueError as error:
            raise RuleFailedError(f"{error}") from None

    def _metadata(self, metadata: tuple[tuple[str, Template], ...] | Placeholder) -> Iterable[tuple[str, str]]:
        if isinstance(metadata, Placeholder):
            return _entries(metadata, self.document)
        scope = self.scope
        return [(key, text) for key, template in metadata if (text := template.render(scope)) is not None]

    def _description(self, rule: Rule) -> tuple[str | None, tuple[str, ...]]:
        if rule.description is None:
            return None, ()
        text, notes = limits.fit_description(rule.description.render(self.scope, missing="") or "")
        return text or None, notes

    def _once_key(self, rule: Rule, name: str, metadata: Mapping[str, str]) -> tuple[str, tuple[str, ...], str | None]:
        """*source : mode : goal name : value*; without a value *source : event : rule id*. Notes, and the value.

        A payment is unique by its transaction and, because both are sent, whether it is a refund; no goal is so named.
        """
        if rule.kind == limits.PAYMENT:
            name = f"{name} refunded" if "refunded" in metadata else name
            if not rule.once_per:
                return self._key_of(name, metadata["transaction_id"]), (), metadata["transaction_id"]
        for alternative in rule.once_per:
            value = self._once_value(alternative)
            if value:
                return self._key_of(name, value), (), value
        reason = "once_per has no value" if rule.once_per else "the rule has no once_per"
        return f"{self.source.name}:{self.event_name}:{rule.id}", (f"{reason}: at most one goal per event",), None

    def _key_of(self, name: str, value: str) -> str:
        return f"{self.source.name}:{self.mode}:{name}:{bounded(value)}"

    def _follows(self, name: str, value: str | None) -> Follows:
        """The goal that has to be there already: the same source, mode and once value under another name."""
        if value is None:
            raise RuleFailedError(f"once_per has no value, so it is not known which {name} this goal follows")
        return Follows(name, self._key_of(name, value), value)

    def _once_value(self, alternative: CompiledPath | Template) -> str | None:
        if isinstance(alternative, Template):
            return alternative.render(self.scope)
        return text_of(alternative.read(self.document))


def id_in(text: str, object_ids: tuple[str, ...]) -> str | None:
    """The id in a string that is to be (a part of) a goal's name: a UUID, or what a price or a product is called by."""
    uuid = _UUID.search(text)
    if uuid is not None:
        return uuid[0]
    found = _beginning_with(object_ids).search(text) if object_ids else None
    return (found or _PRICE_ID.search(text) or (None,))[0]


@lru_cache(maxsize=64)
def _beginning_with(object_ids: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, object_ids))})\w+", re.ASCII)


def candidates(paths: Iterable[Path], document: Document) -> tuple[Candidate, ...]:
    """The values at visitor paths, in their order."""
    found = ((path.text, path.read(document)) for path in paths)
    return tuple(Candidate(text, value) for text, value in found if value is not MISSING)


def _entries(placeholder: Placeholder, document: Document) -> list[tuple[str, str]]:
    """The scalar entries of the first of the objects that is there."""
    for path in placeholder.paths:
        value = path.whole(document)
        if isinstance(value, str):
            value = json_in_text(value)
        if isinstance(value, dict) and value:
            pairs = ((key, text_of(inner)) for key, inner in value.items())
            return [(key, text) for key, text in pairs if text]
    return []


def bounded(value: str) -> str:
    """A once value of any length as one that an index takes: the rest of a long one becomes its hash."""
    if len(value) <= ONCE_VALUE_MAX:
        return value
    return value[:ONCE_VALUE_MAX] + "…" + hashlib.sha256(value.encode()).hexdigest()[:32]
