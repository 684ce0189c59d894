"""`payment:` of a rule → its fields as templates. What a file does not say is the value of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge import limits
from bridge.rules.language.templates import Template, compile_template
from bridge.rules.reading.named import check_template
from bridge.rules.reading.report import below
from bridge.text import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Json
    from bridge.rules.language.named import Values
    from bridge.rules.reading.report import Fault
    from bridge.rules.reading.schema import PaymentStanza

DEFAULTS: Final[Mapping[str, tuple[str, ...]]] = {  # by the names of values; nothing personal is sent unasked
    "amount": ("amount",),
    "currency": ("currency",),
    "transaction_id": ("transaction_id", "transaction"),
    "customer_id": ("customer_id",),
    "renewal": ("renewal",),
    "refunded": ("refunded",),
    "is_free_trial": ("is_free_trial",),
}


def compile_payment(
    payment: PaymentStanza, maps: Mapping[str, Mapping[str, Json]], values: Values, fault: Fault
) -> tuple[tuple[str, Template], ...]:
    """The fields of a payment, in the order of DataFast's documents."""
    fields = []
    for name in type(payment).model_fields:
        written = getattr(payment, name)
        if written is False and name not in limits.PAYMENT_FLAGS:
            written, default = None, None
        else:
            default = next((value for value in DEFAULTS.get(name, ()) if value in values.choices), None)
        if written is not None:
            template = _written(name, text_of(written) or "", maps, values, below(fault, name))
        else:
            template = None if default is None else compile_template(f"{{value.{default}}}")
        if template is not None:
            fields.append((name, template))
        elif written is None and name in limits.PAYMENT_NEEDS:
            fault((), f'a payment needs "{name}": write it, because this file and its preset name no value {name}')
    return tuple(fields)


def _written(
    name: str, text: str, maps: Mapping[str, Mapping[str, Json]], values: Values, fault: Fault
) -> Template | None:
    try:
        template = compile_template(text, maps)
        if template.literal is not None:
            _check_literal(name, template.literal)
    except ValueError as error:
        fault((), str(error))
        return None
    check_template(template, values, fault)
    return template


def _check_literal(name: str, literal: str) -> None:
    if name == "transaction_id":
        raise ValueError(f'"{literal[:40]}" is the same for every event; put a path in braces')
    if name == "timestamp":
        raise ValueError("a timestamp is a template of the event's, such as {data.paid_at}")
    try:
        limits.payment_field(name, literal)
    except ValueError as error:
        raise ValueError(f"{error}; a path is written in braces") from None
