"""A `Source` is what a mapping file says about its sender, compiled. A `Request` is what the sender said."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from bridge.model.event import Derived, Document, Json, Path


class BodyForm(StrEnum):
    JSON = "json"
    FORM = "form"  # application/x-www-form-urlencoded; a[b]=c nests
    JSON_FIELD = "json_field"  # a form whose one field holds the JSON (Ko-fi, Slack interactivity)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a request a string is: `header:X-Signature`, `query:token`, `body:a.b`, `form:field`."""

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
    places: tuple[Place, ...]  # empty: an element of the signature's value
    prefix: str = ""
    tolerance_s: int = 300
    form: str | None = None  # seconds | milliseconds | iso: its exact form, if nothing separates it from the body


UNSIGNED_TYPES: Final = ("token", "basic")  # these compare the secret itself
VERIFY_TYPES: Final = (
    "hmac-md5", "hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512", "sha256", *UNSIGNED_TYPES,
    "ed25519", "ecdsa-sha256", "rsa-sha256", "rsa-sha1",
)  # fmt: skip
SHARED_KEY_FORMS: Final = ("text", "whsec", "base64", "hex")
KEY_FORMS: Final = (*SHARED_KEY_FORMS, "pem", "der", "whpk")


@dataclass(frozen=True, slots=True)
class VerifySpec:
    """One signature scheme, as data (contracts: the vocabulary of `verify`)."""

    type: str  # one of VERIFY_TYPES; `sha256` is unkeyed
    key: tuple[str, ...] = ("text",)  # forms of the secret (KEY_FORMS), any may match
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
    """Where the type, id, time and test flag of an event are: for each, the first non-empty of several paths.

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
    """Where the previous release read an event's type and id, and whether it took that id for a signed one."""

    type: tuple[Path, ...] = ()
    id: tuple[Path, ...] = ()
    id_is_signed: bool = True


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Remember the values at these paths as keys of this kind, for events whose type matches one of the globs."""

    kind: str
    paths: tuple[Path, ...]  # each of them gives a key (not the first only)
    events: tuple[str, ...] = ("*",)


class EventCases(Protocol):
    """What is true of some events of a source, such as `handover:` (made by `bridge.rules.language.conditions`)."""

    def first_match(self, document: Document) -> str | None:
        """What the first case that fits this event says; None: no case fits."""


@dataclass(frozen=True, slots=True)
class PersonSpec:
    """Where a person's id is: kind `user`, `email`, or `reference` (a user's id, if others name that user).

    only: the conditions beside the type; own: the mapping file itself names the path.
    """

    kind: str
    paths: tuple[Path, ...]
    events: tuple[str, ...] = ("*",)
    only: EventCases | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Requirement:
    """An equality check for senders that sign nothing. secret: only the sender may know what is expected."""

    path: Path
    expected: tuple[str, ...] = field(repr=False)
    secret: bool = False


class ReplyKind(StrEnum):
    """What a handshake does with the value at its place, or without one."""

    ECHO = "echo"  # say it back
    HMAC = "hmac"  # say HMAC-SHA256 of it by the source's secret
    KEEP = "keep"  # it is a secret to be read by a person, once
    EMPTY = "empty"  # 200 without a body
    NO_CONTENT = "no_content"  # 204


@dataclass(frozen=True, slots=True)
class Handshake:
    """One message with which a sender sets up or tries a webhook, and its answer.

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
    """The answer to a handshake. kind: the body's media type, None without one; kept: what a person must read."""

    body: bytes = b""
    kind: str | None = None
    status: int = 200
    kept: str | None = field(default=None, repr=False)


class NamedValues(Protocol):
    """The `values:` of a source (made by `bridge.rules.language.templates`)."""

    def derive(self, event_type: str, hash_key: bytes, decimals: Mapping[str, int]) -> Derived:
        """What to compute for one event of this type. decimals: see `Source.decimals`."""

    @property
    def keyed(self) -> bool:
        """Whether one of them may read `key.`."""


@dataclass(frozen=True, slots=True)
class Source:
    """One inbound endpoint, compiled from its preset and its mapping file.

    secrets: the usable ones; without any the source is off. secret_names: the variables to name to the user.
    old_secrets: the numbers, from 1, of those that come from `<NAME>_OLD`.
    secret_problems: a sentence for each value that is evidently not a secret, also where another secret is usable.
    people: where it names users and e-mail addresses, which all sources of a website share.
    links_named_by_provider: key names carry provider, account and mode; otherwise the source's name.
    borrowed: fields for other purposes that may carry a visitor: with `dfv_` before it, or if the destination knows it.
    id_is_signed: False where the event id stands outside what is signed, so that the body's hash is a second key.
    named_types: those that its rules and links name, by name or glob; the same bytes under two of them are two events.
    former: how the previous release read type and id, if differently; only for recognising what it stored.
    retry_fields: form fields by which a retry differs from the first delivery.
    decimals: currencies whose minor units the provider counts differently, code -> decimals.
    values: what `values:` of the preset and the file name, compiled.
    quiet: accepted events are answered with 204 and no body instead of 200.
    reads: the headers and parameters that its file or preset names: `header.idempotency-key`, in lower case.
    handovers: events by which a visitor can be handed over (`purchase`, `sign-up`, `booking`, `form` or `goal`).
    ignored: the events that no rule ever sees, each with the reason.
    fingerprint: the code that makes dedupe keys, for a provider whose events have no id.
    objects: the code that knows the objects of a provider, where no path can name all their keys and visitors.
    object_ids: what the provider's ids of prices and products begin with: they have no place in a goal's name.
    """

    name: str
    provider: str
    verify: VerifySpec
    secrets: tuple[str, ...] = field(default=(), repr=False)
    secret_names: tuple[str, ...] = ()
    old_secrets: frozenset[int] = frozenset()
    secret_error: str | None = None
    secret_problems: tuple[str, ...] = ()
    envelope: EnvelopeSpec = EnvelopeSpec()
    id_is_signed: bool = True
    named_types: Container[str] = frozenset()
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
    people: tuple[PersonSpec, ...] = ()
    links_named_by_provider: bool = False
    destination: str = "default"
    decimals: Mapping[str, int] = field(default_factory=dict)
    values: NamedValues | None = None
    reads: frozenset[str] = frozenset()
    handovers: EventCases | None = None
    ignored: EventCases | None = None
    fingerprint: str | None = None
    objects: str | None = None
    object_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """An inbound request as it came: header names lower-case, query undecoded, body in bytes.

    url: as the client asked for it; signatures over a URL use the source's `public_url` when it is set.
    address: of the client that connected, for people.
    """

    method: str
    url: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes
    address: str = ""
