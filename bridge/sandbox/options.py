"""The settings of the stand-in: its keys, and a switch for every rule of DataFast that could not be looked up.

The defaults are the documented behaviour, and where the documentation is silent, the likelier one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import types

WEBSITE_ID: Final = "665f0b3c4d2e1a0012345678"


@dataclass(frozen=True, slots=True)
class Token:
    """An account token (`dft_…`): what it may do, and on which websites (empty: all)."""

    text: str = field(repr=False)
    scopes: tuple[str, ...] = ("*",)
    websites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """Switches; those that stand for a guess about DataFast say so.

    keys: website keys, one website each; the first website has the id `website_id`, to which account tokens point.
    known: visitors that were not seeded are unknown (`seeded`, as at DataFast) or known (`any`, for a demo).
    """

    keys: tuple[str, ...] = field(default=("df_sandbox",), repr=False)
    tokens: tuple[Token, ...] = field(default=(), repr=False)
    website_id: str = WEBSITE_ID
    domain: str = "shop.example"
    known: Literal["seeded", "any"] = "seeded"

    # rate limit
    rate_per_minute: int = 60  # 0: none
    rate_window: Literal["sliding", "fixed"] = "sliding"  # guess
    rate_counts_goals: bool = True  # inferred: POST /goals shares the bucket
    reset_in: Literal["ms", "s"] = "ms"  # observed: ms; the example in the documentation has s
    rate_envelope: bool = True  # guess: the error envelope around limit, remaining, reset
    rate_headers_always: bool = False  # observed: a 2xx usually has none
    retry_after: bool = False  # not documented

    # refusals
    suspended: bool = False
    token_without_website: int = 400  # guess
    error_form: Literal["envelope", "text"] = "envelope"

    # POST /goals
    order: tuple[str, ...] = ("visitor", "uuid", "name", "reserved", "metadata", "bot", "known")  # guess
    uuid_only: bool = True  # guess
    trim_names: bool = True  # guess
    upper_case_keys: Literal["refuse", "lower"] = "refuse"  # guess
    long_values: Literal["refuse", "cut"] = "refuse"  # guess
    other_values: Literal["text", "refuse"] = "text"  # guess
    clean_values: bool = True  # strips markup; documented, but the details are those of the SDK
    count: Literal["utf16", "characters"] = "utf16"  # guess: lengths as JavaScript counts them
    extra_fields: Literal["ignore", "refuse"] = "ignore"  # guess
    legacy: Literal["", "2025"] = ""  # 2025: names to 32 without colon, metadata keys to 32

    # the rest
    goals_shape: Literal["new", "old"] = "new"  # completedGoals, or completedCustomGoals with isServer
    tell_description: bool = True  # inferred
    tell_event_id: bool = False  # guess
    duplicate_payment: int = 200  # guess: the status for a transaction that already exists
    unknown_payer: Literal["refuse", "accept"] = "refuse"  # guess
    delete_knows_old_range: bool = False  # startAt, endAt: documented as ignored

    # faults by chance
    fault_percent: float = 0.0
    fault_kinds: tuple[str, ...] = ()
    fault_path: str = "/goals"
    fault_hang_ms: int = 30_000
    fault_retry_after_s: int = 0  # the Retry-After of a fault by chance; 0: none
    seed: int = 0


def changed(options: Options, changes: dict[str, Any]) -> Options:
    """Options with other values, as in JSON; ValueError names a switch or a value that does not exist."""
    known = {item.name for item in fields(options)} - {"keys", "tokens"}
    hints = get_type_hints(Options)
    values = {}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"there is no option {name!r}; there are: {', '.join(sorted(known))}")
        values[name] = _value(name, value, hints[name])
    return replace(options, **values)


def _value(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{name} must be a list of strings")
        return tuple(value)
    wanted: type | types.UnionType = int | float if hint is float else hint
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{name} must be a {hint.__name__}")
    return value
