"""The values that flow through the bridge. Frozen, without I/O, without a clock.

A request becomes a `NewEvent` (receive), a stored `Event` becomes `PlannedGoal`s (route), a stored `Goal`
becomes an `Outcome` (deliver). A `Source` is what a mapping file says about its sender, compiled.
Times are milliseconds since 1970 UTC (`_ms`), durations say their unit in their name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Json: TypeAlias = Any  # what json.loads gives: dict, list, str, int, float, bool, None


class ExactFloat(float):
    """A JSON number with a point or an exponent, whose `repr` is its text: `4.10` stays `4.10` (for `parse_float`)."""

    __slots__ = ("text",)
    text: str

    def __repr__(self) -> str:
        return self.text

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)


class Missing(Enum):
    """What a path reads where nothing is. `null` in a body reads as this, too."""

    MISSING = "missing"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING

VISITOR_PREFIX: Final = "dfv_"  # our snippets write it before the id in a field that is not the visitor's
UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)


# ---------------------------------------------------------------------------------------------------- documents


@dataclass(frozen=True, slots=True)
class Document:
    """What paths are read from: the body and the roots beside it.

    body: the parsed body (or one element of it, with `each`); root: the whole parsed body;
    header: lower-case names; query: the last value of each parameter;
    envelope: `type`, `id`, `time`, `test`, `account`; key: what identity extracted, kind -> bare id.
    derived: what rules compute of the document when they first need it.
    """

    body: Json
    header: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    envelope: Mapping[str, Json] = field(default_factory=dict)
    key: Mapping[str, str] = field(default_factory=dict)
    root: Json = None
    derived: Derived | None = field(default=None, compare=False, repr=False)


class Derived(Protocol):
    """Of one document: its named values and the document as it was before the change, each computed once."""

    def has(self, name: str) -> bool:
        """Whether `values:` has this name for the document's event type or any other."""

    def value(self, name: str, document: Document) -> Json | Missing:
        """The value of that name. Never raises."""

    def was(self, document: Document) -> Document:
        """The document before the change."""


class EventTypes(Protocol):
    """Event types, told apart by name or by glob (`bridge.rules.globs` compiles them)."""

    def __contains__(self, event_type: object, /) -> bool: ...


class Path(Protocol):
    """A compiled path of the rule language (`bridge.rules.paths` makes them)."""

    @property
    def text(self) -> str:
        """The path as the user wrote it."""

    def read(self, document: Document) -> Json | Missing:
        """The value there, or MISSING (also for null); an object with an `id` reads as that id. Never raises."""

    def whole(self, document: Document) -> Json | Missing:
        """Like `read`, but an object stays the object, whether it has an `id` or not. Never raises."""


# ------------------------------------------------------------------------------------------------------ sources


class BodyForm(StrEnum):
    JSON = "json"
    FORM = "form"  # application/x-www-form-urlencoded; a[b]=c nests
    JSON_FIELD = "json_field"  # a form whose one field holds the JSON (Ko-fi, Slack interactivity)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text of a request is: `header:X-Signature`, `query:token`, `body:a.b`, `form:field`."""

    where: str  # header | query | body | form
    name: str


@dataclass(frozen=True, slots=True)
class SignatureSpec:
    places: tuple[Place, ...]
    split: str | None = None
    prefix: str = ""
    encoding: str = "hex"  # hex | base64


@dataclass(frozen=True, slots=True)
class TimestampSpec:
    places: tuple[Place, ...]  # empty: an element of the signature's text
    prefix: str = ""
    tolerance_s: int = 300
    form: str | None = None  # seconds | milliseconds | iso: its exact form, for schemes that put nothing behind it


@dataclass(frozen=True, slots=True)
class VerifySpec:
    """One signature scheme, as data (contracts: the vocabulary of `verify`)."""

    type: str  # hmac-md5|sha1|sha256|sha384|sha512, sha256 (unkeyed), token, basic, ed25519, ecdsa-sha256, rsa-sha*
    key: tuple[str, ...] = ("text",)  # forms of the secret, any may match: text|whsec|base64|hex|pem|der|whpk
    signature: SignatureSpec = SignatureSpec(())
    timestamp: TimestampSpec | None = None
    id: tuple[Place, ...] = ()
    signed: str = "{body}"
    alternatives: tuple[VerifySpec, ...] = ()  # other schemes that the sender uses; any may match

    @property
    def schemes(self) -> tuple[VerifySpec, ...]:
        """This scheme and its alternatives."""
        return (self, *self.alternatives)


@dataclass(frozen=True, slots=True)
class EnvelopeSpec:
    """Where type, id, time and test flag of an event are; each the first non-empty of several paths.

    test_is: the value of `test` that marks a test event (Stripe: `livemode` is false).
    """

    type: tuple[Path, ...] = ()
    id: tuple[Path, ...] = ()
    time: tuple[Path, ...] = ()
    order: tuple[Path, ...] = ()  # a time good for order only (Lemon Squeezy's updated_at)
    test: tuple[Path, ...] = ()
    test_is: Json = True
    account: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class FormerSpec:
    """Where the previous release read type and id of an event, and whether it took that id for a signed one."""

    type: tuple[Path, ...] = ()
    id: tuple[Path, ...] = ()
    id_is_signed: bool = True


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Remember the values at these paths as keys of this kind, for events whose type matches one of the globs."""

    kind: str
    paths: tuple[Path, ...]  # each of them gives a key (not the first only)
    events: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Requirement:
    """An equality check for senders that sign nothing. secret: it is with what nobody else may know."""

    path: Path
    expected: tuple[str, ...] = field(repr=False)
    secret: bool = False


class ReplyKind(StrEnum):
    """What a hand-shake does with the value at its place, or without one."""

    ECHO = "echo"  # say it back
    HMAC = "hmac"  # say HMAC-SHA256 of it by the source's secret
    KEEP = "keep"  # it is a secret to be read by a person, once
    EMPTY = "empty"  # 200 without a body
    NO_CONTENT = "no_content"  # 204


@dataclass(frozen=True, slots=True)
class Handshake:
    """One message with which a sender sets up or tries a webhook, and what it is answered.

    when: all of these places hold one of these values; body: the whole body is this, `{digits}` standing for a number.
    signed: answered only to a request that verifies like an event. verify_token: the place of what must equal
    `expected`, which is None as long as `variable` is not set. fields: the answer's JSON, name -> template of
    `{value}`, `{hex}`, `{base64}`; without any the answer is plain text.
    """

    does: ReplyKind
    methods: tuple[str, ...] = ("POST",)
    when: tuple[tuple[Place, tuple[str, ...]], ...] = ()
    body: str | None = None
    signed: bool = True
    place: Place | None = None
    fields: tuple[tuple[str, str], ...] = ()
    verify_token: Place | None = None
    variable: str | None = None
    expected: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a hand-shake is answered. kind: the body's media type, None without one; kept: what a person must read."""

    body: bytes = b""
    kind: str | None = None
    status: int = 200
    kept: str | None = field(default=None, repr=False)


class NamedValues(Protocol):
    """The `values:` of a source (`bridge.rules.named` makes them)."""

    def of(self, event_type: str, hash_key: bytes, counted: Mapping[str, int]) -> Derived:
        """What is to be computed of one event of this type."""


class Handovers(Protocol):
    """The events of a source where a visitor can be handed over (`bridge.rules.handover` makes them)."""

    def of(self, document: Document) -> str | None:
        """What this one is (`purchase`, `sign-up`, `booking`, `form` or `goal`); None: nobody hands anything over."""


@dataclass(frozen=True, slots=True)
class Source:
    """One inbound endpoint, compiled from its preset and its mapping file.

    secrets: the usable ones; without any the source is off. secret_names: the variables to name to the user.
    secret_problems: what is evidently no secret, a sentence each, also where another secret is usable.
    links_named_by_provider: key names carry provider, account and mode; otherwise the source's name.
    borrowed: fields of others that may carry a visitor: with the prefix `dfv_`, or where the destination knows it.
    id_is_signed: False where the event id stands outside what is signed, so that the body's hash is a second key.
    named_types: those that its rules and links name; the same bytes under two of them are two events.
    former: how the previous release read type and id, if otherwise; only for recognising what it stored.
    retry_fields: form fields by which a retry differs from the first delivery.
    decimals: currencies whose minor units the provider counts in its own way, code -> decimals.
    values: what `values:` of the preset and the file name, compiled.
    quiet: what is taken is answered 204 without a body, not 200.
    reads: the headers and parameters that its file or preset names: `header.idempotency-key`, in small letters.
    """

    name: str
    provider: str
    verify: VerifySpec
    secrets: tuple[str, ...] = field(default=(), repr=False)
    secret_names: tuple[str, ...] = ()
    secret_fault: str | None = None
    secret_problems: tuple[str, ...] = ()
    envelope: EnvelopeSpec = EnvelopeSpec()
    id_is_signed: bool = True
    named_types: EventTypes = frozenset()
    former: FormerSpec | None = None
    retry_fields: tuple[str, ...] = ()
    body: BodyForm = BodyForm.JSON
    body_field: str | None = None
    each: Path | None = None
    require: tuple[Requirement, ...] = ()
    public_url: str | None = None
    handshakes: tuple[Handshake, ...] = ()
    quiet: bool = False
    visitor: tuple[Path, ...] = ()
    borrowed: tuple[Path, ...] = ()
    links: tuple[LinkSpec, ...] = ()
    links_named_by_provider: bool = False
    destination: str = "default"
    decimals: Mapping[str, int] = field(default_factory=dict)
    values: NamedValues | None = None
    reads: frozenset[str] = frozenset()
    handovers: Handovers | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An inbound request as it came: header names lower-case, query undecoded, body in bytes.

    url: as the client asked for it; signatures over a URL use the source's `public_url` when it is set.
    address: of whoever connected, for people.
    """

    method: str
    url: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes
    address: str = ""


# ------------------------------------------------------------------------------------------------------- events


class EventState(StrEnum):
    RECEIVED = "received"
    ROUTED = "routed"
    QUARANTINED = "quarantined"


class Verdict(StrEnum):
    MATCHED = "matched"
    UNMATCHED = "unmatched"
    IGNORED = "ignored"


class Ack(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every provider has under another name.

    time_ms: the time of the event as the provider states it (None: not stated); order_ms: good for order only.
    """

    type: str
    id: str | None = None
    time_ms: int | None = None
    order_ms: int | None = None
    test: bool = False
    account: str | None = None

    @property
    def mode(self) -> str:
        """`test` or `live`."""
        return "test" if self.test else "live"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A verified webhook on its way into the store.

    dedupe_keys: one or two strings; the event is a duplicate if any of them was seen for this source.
    former_keys: what the previous release would have stored, each with its type of the event: (type, key). They are
    looked up and never written, and one counts only for a row of that type.
    quarantine: why it cannot be read (None: it can). headers, query: without secrets.
    """

    source: str
    provider: str
    envelope: Envelope
    dedupe_keys: tuple[str, ...]
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes = field(repr=False)
    quarantine: str | None = None
    former_keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A stored webhook. `id` is ours (`ev_12` for people)."""

    id: int
    source: str
    provider: str
    envelope: Envelope
    received_at_ms: int
    state: EventState
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes | None = field(repr=False)  # None once retention took it
    tries: int = 0  # how often routing began
    verdict: Verdict | None = None
    reason: str | None = None
    duplicates: int = 0

    @property
    def name(self) -> str:
        """How people call it: `ev_12`."""
        return f"ev_{self.id}"

    @property
    def happened_at_ms(self) -> int:
        """The event's own time, if the provider states one; one in the future counts as arrival (Design 6)."""
        stated = self.envelope.time_ms
        return self.received_at_ms if stated is None else min(stated, self.received_at_ms)

    @property
    def ordered_at_ms(self) -> int:
        """The best time for order among events of one visitor or customer."""
        order = self.envelope.order_ms
        return self.happened_at_ms if order is None else min(order, self.received_at_ms)


# --------------------------------------------------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True)
class Key:
    """A remembered name of a thing of the provider: `stripe:live:sub_1`, kind `subscription`.

    Strong keys (all but `customer`) join into one thread of a purchase; weak ones only point to visitors.
    """

    text: str
    kind: str
    id: str

    @property
    def strong(self) -> bool:
        return self.kind != "customer"


# -------------------------------------------------------------------------------------------------------- goals


class GoalState(StrEnum):
    PARKED = "parked"
    PENDING = "pending"
    LEASED = "leased"
    SENDING = "sending"
    UNCONFIRMED = "unconfirmed"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNATTRIBUTED = "unattributed"
    HELD = "held"
    DRY = "dry"
    CANCELLED = "cancelled"


FINAL: Final = frozenset(
    {
        GoalState.DELIVERED,
        GoalState.REJECTED,
        GoalState.EXPIRED,
        GoalState.UNATTRIBUTED,
        GoalState.DRY,
        GoalState.CANCELLED,
    }
)


class Candidate(NamedTuple):
    """A value that may be the visitor: where it was found and what it is (any JSON value that is not missing).

    borrowed: the field is not the visitor's, and often holds the app's own user id.
    """

    path: str
    value: Json
    borrowed: bool = False


class Follows(NamedTuple):
    """The goal that must have been made before another: its name, its once key at the same destination, their value."""

    goal: str
    once_key: str
    value: str

    @property
    def text(self) -> str:
        """How people call it: `payment_failed with in_1`."""
        return f"{self.goal} with {self.value}"


class PlannedGoal(NamedTuple):
    """What one rule wants sent for one event; the visitor is still to be resolved.

    once_key: unique within the destination (Design 5). max_age_ms, wait_ms: None means the setting's.
    candidates: what the rule's own visitor paths gave; the event's, by the file's paths, come after them.
    notes: what was changed to fit DataFast's limits, for the trace. follows: without this goal there is none.
    """

    rule_id: str
    name: str
    description: str | None
    metadata: Mapping[str, str]
    once_key: str
    destination: str
    candidates: tuple[Candidate, ...] = ()
    max_age_ms: int | None = None
    wait_ms: int | None = None
    notes: tuple[str, ...] = ()
    follows: Follows | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """A claimed goal, with all that sending it needs."""

    id: int
    destination: str
    visitor: str
    name: str
    description: str
    metadata: Mapping[str, str]
    once_key: str
    event_id: int
    happened_at_ms: int
    time_is_stated: bool
    created_at_ms: int
    expires_at_ms: int
    attempts: int  # those that count towards back-off
    unknown_visitor_tries: int = 0
    first_try_at_ms: int | None = None


# ------------------------------------------------------------------------------------------------- destinations


@dataclass(frozen=True, slots=True)
class Destination:
    """One DataFast website, known by its configured name, which survives a new key."""

    name: str
    api_key: str | None = field(repr=False)
    website_id: str | None = None


class OutcomeKind(StrEnum):
    """The classes of DataFast's answers (Design 6)."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    CONFIGURATION = "configuration"
    UNKNOWN_VISITOR = "unknown_visitor"
    THROTTLED = "throttled"
    NOT_SENT = "not_sent"
    REFUSED_FOR_NOW = "refused_for_now"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request to DataFast. `message` is for people: no secret, no markup, at most 300 characters.

    server_now_ms: DataFast's clock by its `Date` header, if it sent one.
    """

    kind: OutcomeKind
    status: int | None = None
    message: str = ""
    event_id: str | None = None
    retry_after_ms: int | None = None
    server_now_ms: int | None = None


@dataclass(frozen=True, slots=True)
class CompletedGoal:
    """One entry of a visitor's goal list, as DataFast tells it (both documented shapes)."""

    name: str
    at_ms: int | None
    description: str | None = None
    by_server: bool | None = None  # None: not said
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class VisitorGoals:
    """The answer to a read-back: the visitor's goals, `known` False for a 404; or why it cannot be told."""

    known: bool
    goals: tuple[CompletedGoal, ...] = ()
    failure: Outcome | None = None
    server_now_ms: int | None = None


class Health(StrEnum):
    """What an answer says about its destination."""

    SUCCESS = "success"  # it took a goal
    ANSWERED = "answered"  # it works, though this goal was refused
    FAILURE = "failure"  # not sent, refused for now, unconfirmed
    THROTTLED = "throttled"
    CONFIGURATION = "configuration"
    UNKNOWN_VISITOR = "unknown_visitor"
    KNOWN_VISITOR = "known_visitor"  # it took no goal, but said that it knows the visitor
    SILENT = "silent"  # says nothing


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to become of a goal after a try; the store writes it if the try still owns the goal.

    due_in_ms: until the next try or look. counts: the try spends an attempt (a probe never does, the store sees to it).
    """

    state: GoalState
    health: Health
    due_in_ms: int = 0
    reason: str | None = None
    message: str | None = None
    counts: bool = False
    unknown_visitor: bool = False  # it counts towards the end of an unknown visitor's tries
    pause_ms: int = 0  # of a throttled destination


@dataclass(frozen=True, slots=True)
class Claim:
    """A goal that this worker alone may send, until the lease ends.

    probe: it goes through a paused destination to see whether it works again.
    """

    goal: Goal
    token: str
    claimed_at_ms: int
    paused_ms: int = 0
    probe: bool = False


@dataclass(frozen=True, slots=True)
class UnconfirmedGoal:
    """One goal of a group whose answers were lost, with the attempts that may have arrived.

    windows: (started_at_ms, ended_at_ms) of each attempt in doubt, by DataFast's clock as far as known.
    """

    goal: Goal
    looks: int
    absent: int
    windows: tuple[tuple[int, int], ...]
    restored: bool = False  # in doubt because a back-up was put in place, not because an answer was lost


@dataclass(frozen=True, slots=True)
class OwnedGoal:
    """A goal that the ledger knows to be delivered: its entry in a read-back is nobody else's. windows: as above."""

    description: str
    event_id: str | None
    windows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class LookClaim:
    """All unconfirmed goals of one visitor and name, for one read-back.

    owned: what the ledger already knows to be delivered for the same visitor and name. server_ms: what DataFast's clock
    says now, as far as we know.
    """

    destination: str
    visitor: str
    name: str
    token: str
    goals: tuple[UnconfirmedGoal, ...]
    owned: tuple[OwnedGoal, ...] = ()
    probe: bool = False
    server_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ProofClaim:
    """A visitor of a borrowed field, about whom this worker alone may ask. failures: how often it told nothing."""

    destination: str
    visitor: str
    token: str
    failures: int = 0
    probe: bool = False


@dataclass(frozen=True, slots=True)
class LookRuling:
    """What a read-back decides for one goal.

    looked: it counts as a look that could not tell; absent: it was not found; remote_id: DataFast's id of it;
    at_ms: when DataFast recorded it, by its own clock.
    """

    goal: UnconfirmedGoal
    settlement: Settlement
    looked: bool = False
    absent: bool = False
    remote_id: str | None = None
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NotYet:
    """Nothing can be claimed now. until_ms: by the database's clock; None: nothing waits. now_ms: that clock."""

    until_ms: int | None
    now_ms: int
