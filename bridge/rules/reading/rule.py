"""One entry of `goals:` → a `Rule`. What DataFast would always refuse is reported here as an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bridge import limits
from bridge.globs import compile_glob, is_glob
from bridge.rules.language.conditions import ALWAYS, All
from bridge.rules.language.paths import CompiledPath, compile_path
from bridge.rules.language.templates import NO_VALUES, Placeholder, Template, Values, compile_template, template_of
from bridge.rules.reading.named import check_template, check_text, check_when
from bridge.rules.reading.report import Reporter, below, listed, numbered, paths
from bridge.rules.reading.schema import GoalStanza, PaymentStanza
from bridge.rules.reading.strict_yaml import KEY
from bridge.rules.reading.when import compile_when
from bridge.rules.ruleset import Rule
from bridge.settings import duration_ms
from bridge.text import did_you_mean, text_of

if TYPE_CHECKING:
    from bridge.model import Json

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_NO_NAME: Final = template_of("", ())
_PAYMENT: Final = template_of(limits.PAYMENT, (limits.PAYMENT,))
_ANY_AGE_MS: Final = (
    10 * 365 * 86_400_000
)  # a payment has its own time, so DataFast dates it correctly, however late it is sent


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What a rule is compiled with, besides its own keys. line, origin: of the rule."""

    maps: Mapping[str, Mapping[str, Json]]
    destination: str
    line: int
    values: Values = NO_VALUES
    origin: str = ""


def compile_rule(goal: GoalStanza, context: RuleContext, problem: Reporter) -> Rule:
    """Compile a rule; every error goes to `problem`, and the result may be used only if there are none."""
    payment = goal.payment is not None
    name = _PAYMENT if payment else _name(goal.goal, context, below(problem, "goal"))
    events = listed(goal.event)
    if not events:
        problem(("event",), 'a list without an event type matches nothing; "*" means every type')
    for where, text in numbered(goal.event):
        if not text.strip():
            problem(("event", *where), 'an event type is empty; "*" means every type')
    metadata = _payment(goal, context, problem) if payment else _metadata(goal, context, below(problem, "metadata"))
    return Rule(
        id=_id(goal, name, problem),
        goal=goal.goal,
        name=name,
        events=events,
        globs=tuple(compile_glob(text) for text in events if is_glob(text)),
        when=_when(goal, context, below(problem, "when")),
        visitor=paths(goal.visitor, below(problem, "visitor")),
        once_per=_once_per(goal, context, problem),
        follows=_follows(goal, below(problem, "follows")),
        description=_template(goal.description, context, below(problem, "description")),
        metadata=metadata,
        max_age_ms=_duration(goal.max_age, below(problem, "max_age")) or (_ANY_AGE_MS if payment else None),
        wait_ms=_duration(goal.wait, below(problem, "wait")),
        destination=context.destination,
        enabled=goal.enabled is not False,
        dry=goal.enabled == "dry",
        notify=goal.notify,
        line=context.line,
        origin=context.origin,
        kind=limits.PAYMENT if payment else "goal",
    )


def _when(goal: GoalStanza, context: RuleContext, problem: Reporter) -> All:
    if goal.when is None:
        return ALWAYS
    check_when(goal.when, context.values, problem)
    return compile_when(goal.when, problem)


def _template(text: str | None, context: RuleContext, problem: Reporter, payment_field: str = "") -> Template | None:
    if text is None:
        return None
    try:
        template = compile_template(text, context.maps)
        if payment_field and template.literal is not None:
            _check_payment(payment_field, template.literal)
    except ValueError as error:
        problem((), str(error))
        return None
    check_template(template, context.values, problem)
    return template


def _name(text: str, context: RuleContext, problem: Reporter) -> Template:
    """A literal name is normalised and checked as a whole; of a template, its literal pieces are checked."""
    template = _template(text, context, problem)
    if template is None:
        return _NO_NAME
    try:
        if template.literal is not None:
            return template_of(text, (limits.goal_name(template.literal),))
        for literal in template.literals:
            limits.check_goal_letters(literal)
        limits.check_goal_length("".join(template.literals))
    except ValueError as error:
        problem((), f"{error} (a path in a name has single braces)" if "{{" in text else str(error))
    return template


def _id(goal: GoalStanza, name: Template, problem: Reporter) -> str:
    if goal.id is not None:
        if not _ID.fullmatch(goal.id):
            problem(("id",), f'id "{goal.id[:60]}" may hold only letters, digits, "-", "_" and "."')
        return goal.id
    if name.literal is None:
        problem(("goal",), 'a rule whose goal is a template needs an "id", because its name is not known in advance')
        return ""
    return name.literal


def _once_per(goal: GoalStanza, context: RuleContext, problem: Reporter) -> tuple[CompiledPath | Template, ...]:
    found: list[CompiledPath | Template] = []
    for where, text in numbered(goal.once_per):
        if "{" in text:
            template = _template(text, context, below(problem, "once_per", *where))
            if template is not None and template.literal is not None:
                problem(("once_per", *where), f'"{text}" is the same for every event; put a path in single braces')
            found += [template] if template is not None else []
            continue
        try:
            found.append(compile_path(text))
        except ValueError as error:
            problem(("once_per", *where), str(error))
        check_text(text, context.values, below(problem, "once_per", *where))
    return tuple(found)


def _follows(goal: GoalStanza, problem: Reporter) -> str | None:
    """The name, as DataFast writes it, of the goal that must have been made before."""
    if goal.follows is None:
        return None
    if goal.once_per is None:
        problem((), '"follows" needs "once_per": the goal before is the one with the same once_per value')
    try:
        return limits.goal_name(goal.follows)
    except ValueError as error:
        problem((), str(error))
        return None


def _duration(text: str | None, problem: Reporter) -> int | None:
    try:
        return None if text is None else duration_ms(text)
    except ValueError as error:
        problem((), f'"{text}" must be {error}')
        return None


# ------------------------------------------------------------------------------------------------------ metadata


def _metadata(
    goal: GoalStanza, context: RuleContext, problem: Reporter
) -> tuple[tuple[str, Template], ...] | Placeholder:
    if goal.metadata is None:
        return ()
    if isinstance(goal.metadata, str):
        return _object_placeholder(goal.metadata, context, problem)
    if isinstance(goal.metadata, list):
        return _named_values(goal.metadata, context, problem)
    _check_keys(goal.metadata, problem)
    found = [(key, _value(value, context, below(problem, key))) for key, value in goal.metadata.items()]
    return tuple((key, template) for key, template in found if template is not None)


def _object_placeholder(text: str, context: RuleContext, problem: Reporter) -> Placeholder | tuple[()]:
    """`metadata: "{data.metadata}"`: the first scalar entries of this object."""
    template = _template(text, context, problem)
    if template is None:
        return ()
    placeholder = template.parts[0] if len(template.parts) == 1 else None
    if not isinstance(placeholder, Placeholder) or placeholder.filters:
        problem((), 'metadata is a map of names to templates, or one template of an object such as "{data.metadata}"')
        return ()
    return placeholder


def _named_values(names: list[str], context: RuleContext, problem: Reporter) -> tuple[tuple[str, Template], ...]:
    """`metadata: [amount, plan]`: the values with these names."""
    known = context.values.choices
    for i, name in enumerate(names):
        if name not in known:
            more = did_you_mean(name, known) if known else "; this file and its preset name no values"
            problem((i,), f'"{name[:60]}" is not the name of a value{more}')
        elif name in names[:i]:
            problem((i,), f'"{name}" is listed twice')
    _check_keys(dict.fromkeys(names, ""), lambda where, text: problem((names.index(str(where[0])),), text))
    return tuple((name, compile_template(f"{{value.{name}}}")) for name in names if name in known)


def _check_keys(metadata: Mapping[str, Any], problem: Reporter) -> None:
    seen: dict[str, str] = {}
    for position, key in enumerate(metadata):
        try:
            limits.check_metadata_key(key)
        except ValueError as error:
            problem((key, KEY), str(error))
            continue
        if key.lower() in seen:
            problem(
                (key, KEY),
                f'metadata keys "{seen[key.lower()]}" and "{key}" are the same: DataFast stores them in lower case',
            )
        seen[key.lower()] = key
        if position == limits.KEYS_MAX:
            problem((key, KEY), f"metadata has {len(metadata)} entries; DataFast takes at most {limits.KEYS_MAX}")


def _value(value: Any, context: RuleContext, problem: Reporter) -> Template | None:
    template = _template(text_of(value), context, problem)
    if template is None:
        return None
    written = limits.length("".join(template.literals))  # sent for every event
    if written > limits.VALUE_MAX:
        problem((), f"this value has {written} characters; DataFast takes at most {limits.VALUE_MAX}")
    if template.literal == "":
        problem((), "an empty value is never sent; leave the entry out")
    return template


# ------------------------------------------------------------------------------------------------------ payments

DEFAULTS: Final[Mapping[str, tuple[str, ...]]] = {  # by the names of values; nothing personal is sent by default
    "amount": ("amount",),
    "currency": ("currency",),
    "transaction_id": ("transaction_id", "transaction"),
    "customer_id": ("customer_id",),
    "renewal": ("renewal",),
    "refunded": ("refunded",),
    "is_free_trial": ("is_free_trial",),
}


def _payment(goal: GoalStanza, context: RuleContext, problem: Reporter) -> tuple[tuple[str, Template], ...]:
    """The fields of a payment, in the order of DataFast's documentation."""
    if goal.goal != limits.PAYMENT:
        problem(("goal", KEY), 'a rule has either "goal" or "payment"')
    for key in ("metadata", "description"):
        if getattr(goal, key) is not None:
            problem((key, KEY), f'DataFast takes no {key} with a payment; what it takes is in "payment"')
    fields = []
    for name in PaymentStanza.model_fields:
        written, values = getattr(goal.payment, name), DEFAULTS.get(name, ())
        if written is False and name not in limits.PAYMENT_FLAGS:
            written, values = None, ()
        default = next((value for value in values if value in context.values.choices), None)
        if written is not None:
            template = _template(text_of(written) or "", context, below(problem, "payment", name), payment_field=name)
        else:
            template = None if default is None else compile_template(f"{{value.{default}}}")
        if template is not None:
            fields.append((name, template))
        elif written is None and name in limits.PAYMENT_NEEDS:
            sentence = f'a payment needs "{name}": write it, because this file and its preset name no value {name}'
            problem(("payment",), sentence)
    return tuple(fields)


def _check_payment(name: str, literal: str) -> None:
    if name == "transaction_id":
        raise ValueError(f'"{literal[:40]}" is the same for every event; put a path in braces')
    if name == "timestamp":
        raise ValueError("a timestamp is a template of the event's, such as {data.paid_at}")
    try:
        limits.payment_field(name, literal)
    except ValueError as error:
        raise ValueError(f"{error}; a path is written in braces") from None
