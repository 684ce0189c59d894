"""The keys of a mapping file: one strict pydantic model per map, which reports every error at once.

The models define which keys exist and the shape of each value; the compiler checks what the strings mean (paths,
templates, conditions). Field descriptions are the reference that people read, and the JSON Schema for editors.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictStr,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bridge.limits import PAYMENT
from bridge.model import KEY_FORMS, VERIFY_TYPES
from bridge.text import text_of


def _shape(value: Any) -> str | None:
    """Which member of a union a value is meant to be; tags begin with ~, so that they never equal a place in a file."""
    if isinstance(value, str):
        return "~text"
    if isinstance(value, (list, tuple)):
        return "~list"
    return "~map" if isinstance(value, (dict, BaseModel)) else None


def _either(expected: str) -> Discriminator:
    return Discriminator(_shape, custom_error_type="shape", custom_error_message=f"must be {expected}")


def _scalar(value: Any) -> Any:
    if isinstance(value, (str, bool, int, float)):
        return value
    raise PydanticCustomError("shape", "must be a string, a number, true or false")


Scalar = Annotated[Any, BeforeValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})]
T = TypeVar("T")
_Text = Annotated[T, Tag("~text")]  # the members of a union, by their shape in a file
_List = Annotated[list[T], Tag("~list")]
_Map = Annotated[T, Tag("~map")]
Texts = Annotated[_Text[StrictStr] | _List[StrictStr], _either("a string or a list of strings")]
Scalars = Annotated[
    Any,
    BeforeValidator(lambda value: [_scalar(v) for v in value] if isinstance(value, list) else _scalar(value)),
    WithJsonSchema({"type": ["string", "number", "boolean", "array"]}),
]
Listed = Annotated[Texts, AfterValidator(lambda texts: [texts] if isinstance(texts, str) else texts)]
Sent = Annotated[  # as it is sent or read: `true` in a file is the string "true"
    dict[str, Scalar], AfterValidator(lambda found: {name: text_of(value) or "" for name, value in found.items()})
]


def _enabled(value: Any) -> Any:
    if value is True or value is False or value == "dry":
        return value
    raise PydanticCustomError("shape", "must be true, false or dry")


Enabled = Annotated[Any, BeforeValidator(_enabled), WithJsonSchema({"enum": [True, False, "dry"]})]
When = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "description": "path: expectation"})]


def optional(description: str, **more: Any) -> Any:
    """A key that may be omitted."""
    return Field(default=None, description=description, **more)


class Strict(BaseModel):
    """A map with known keys. `called` is its name in messages."""

    # defer_build: builds one validator, for the first file, instead of a dozen whenever a command starts.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, defer_build=True)
    called: ClassVar[str] = "the file"


class DestinationStanza(Strict):
    """Another DataFast website."""

    called: ClassVar[str] = "datafast"

    name: StrictStr = Field(description="what the website is called here; it stays the same with a new key")
    api_key: StrictStr | None = optional("`${NAME}` of its `df_…` or `dft_…` key")
    website_id: StrictStr | None = optional("needed with a `dft_…` key")


OtherWebsite = Annotated[
    _Text[StrictStr] | _Map[DestinationStanza], _either("the name of a website, or {name, api_key, website_id}")
]


class PaymentStanza(Strict):
    """A payment, for a provider that DataFast does not connect. A value of the same name is a field's default."""

    called: ClassVar[str] = "payment"

    amount: Scalar | None = optional("in whole units (29.00), zero or more; default: `value.amount`")
    currency: Scalar | None = optional("three letters; default: `value.currency`")
    transaction_id: Scalar | None = optional(
        "DataFast records each once; default: `value.transaction_id`, else `value.transaction`"
    )
    customer_id: Scalar | None = optional("default: `value.customer_id`")
    email: Scalar | None = optional("the customer's; sent only if it is written here")
    name: Scalar | None = optional("the customer's; sent only if it is written here")
    renewal: Scalar | None = optional("true or false; default: `value.renewal`")
    refunded: Scalar | None = optional("true or false; default: `value.refunded`")
    is_free_trial: Scalar | None = optional("true or false; default: `value.is_free_trial`")
    timestamp: Scalar | None = optional("when it was paid; default: the event's time")


def _named_payment(written: Any) -> Any:
    """Turn a rule or an expectation with `payment:` into one with `goal:`."""
    return {"goal": PAYMENT, **written} if isinstance(written, dict) and "payment" in written else written


def _goal_or_payment(schema: dict[str, Any]) -> None:
    """Tell editors that one of the two is needed."""
    schema["required"] = [name for name in schema["required"] if name != "goal"]
    schema["oneOf"] = [{"required": ["goal"]}, {"required": ["payment"]}]


class GoalStanza(Strict):
    """One rule."""

    called: ClassVar[str] = "a goal"

    goal: StrictStr = Field(description="the goal's name in DataFast; may be a template; or `payment` instead")
    payment: PaymentStanza | None = optional("instead of `goal`: this money, sent as a payment")
    event: Texts = Field(description="the event type, a list, or a glob such as `customer.*`")
    when: When | None = optional("conditions, in addition to those of the file")
    visitor: Texts | None = optional("paths of the visitor id, tried before the file's")
    once_per: Texts | None = optional("a path, a list, or a template: at most one goal of this name per value")
    description: StrictStr | None = optional("a template; default: the source and the event's id")
    metadata: (
        Annotated[
            _Text[StrictStr] | _List[StrictStr] | _Map[dict[str, Scalar]],
            _either('a map of names to templates, a list of values, or one template of an object ("{data.metadata}")'),
        ]
        | None
    ) = optional("name: template; or a list of names of `values`; or one template of an object")
    follows: StrictStr | None = optional("only if a goal of this name with the same `once_per` value was made before")
    max_age: StrictStr | None = optional("a goal older than this is not sent (`7d`)")
    wait: StrictStr | None = optional("how long it waits for its visitor (`96h`)")
    datafast: OtherWebsite | None = optional("another DataFast website for this rule")
    enabled: Enabled = Field(
        default=True,
        description="`false` switches the rule off, `dry` keeps its goals for `goals send`; its tests still run",
    )
    notify: StrictBool = Field(
        default=False, description="`true`: BRIDGE_ALERTS is notified when a goal of this rule is delivered"
    )
    id: StrictStr | None = optional(
        "default: the goal's name; two rules of a file need different ones. In a layer, the id of a shipped"
        " rule changes that rule: `when` is added, `metadata` merged by name (`name: false` takes one away), other keys"
        " replace"
    )
    like: StrictStr | None = optional(
        "in a new rule of a layer, a shipped rule (its id or goal), on or off: takes its `event`, `when`,"
        " `once_per`, `follows` and `metadata`, and adds its own `when` and `metadata`"
    )

    _payment = model_validator(mode="before")(_named_payment)


class ExpectedGoalStanza(Strict):
    called: ClassVar[str] = "an expected goal"

    model_config = ConfigDict(json_schema_extra=_goal_or_payment)

    goal: StrictStr = Field(description="the goal's name; or `payment` instead")
    payment: Sent | None = optional("a payment of exactly these fields")
    metadata: Sent | None = optional("if given: exactly this metadata")
    visitor: StrictStr | None = optional("if given: this visitor id")
    description: StrictStr | None = optional("if given: this description")

    _payment = model_validator(mode="before")(_named_payment)


class TestCaseStanza(Strict):
    __test__ = False  # pytest must not collect it
    called: ClassVar[str] = "a test"

    name: StrictStr = Field(description="a sentence")
    event: Any = Field(description="the body that the provider would send")
    goals: list[ExpectedGoalStanza] = Field(default_factory=list, description="the goals that it must make; `[]`: none")
    headers: Annotated[Sent, AfterValidator(lambda sent: {name.lower(): text for name, text in sent.items()})] = Field(
        default_factory=dict, description="headers of the request"
    )
    query: Sent = Field(default_factory=dict, description="parameters of the URL")
    key: Sent = Field(default_factory=dict, description="what `key.…` reads: `{subscription: sub_1}`")
    after: Listed | None = optional("names of goals that were made before, for rules with `follows`")
    only: Listed | None = optional("ids of rules: the test runs only these, switched on or not")


class Signature(Strict):
    called: ClassVar[str] = "signature"

    in_: Texts | None = optional(
        "`header:X-Signature`, `query:…`, `body:…`, `form:…`; or a list. Needed, unless a preset has it", alias="in"
    )
    split: StrictStr | None = optional("what separates several signatures")
    prefix: StrictStr = Field(default="", description="only elements that begin with this count")
    encoding: Literal["hex", "base64"] = Field(default="hex", description="`hex` or `base64`")


class Timestamp(Strict):
    called: ClassVar[str] = "timestamp"

    in_: Texts | None = optional("as for `signature`; or `signature`: an element of its text", alias="in")
    prefix: StrictStr = Field(default="", description="what the element begins with")
    form: Literal["seconds", "milliseconds", "iso"] | None = optional(
        "its exact form: `seconds`, `milliseconds` or `iso`; for a `signed` without separators"
    )
    tolerance: Annotated[int, Field(ge=1, le=86_400)] = Field(default=300, description="seconds, in both directions")


class Scheme(Strict):
    """One way to prove who sent a request."""

    called: ClassVar[str] = "an entry of or"

    type: StrictStr | None = optional("one of: " + ", ".join(f"`{t}`" for t in VERIFY_TYPES))
    key: Texts | None = optional(
        "form of the secret: " + ", ".join(f"`{k}`" for k in KEY_FORMS) + "; if there are several, any may match"
    )
    signature: Signature | None = optional("where the signature is")
    timestamp: Timestamp | None = optional("where the time of the signature is")
    id: Texts | None = optional("where the `{id}` of the signed text is")
    signed: StrictStr | None = optional(
        "what is signed: `{body}` (default) `{timestamp}` `{id}` `{url}` `{header:X}` …"
    )


class Verify(Scheme):
    """How the sender proves who it is."""

    called: ClassVar[str] = "verify"

    preset: StrictStr | None = optional("take what is not given here from this preset")
    or_: list[Scheme] | None = optional(
        "other schemes that this sender uses, each written in full with the keys above; any may match", alias="or"
    )


class TestFlag(Strict):
    __test__ = False
    called: ClassVar[str] = "test"

    path: Texts = Field(description="where the flag is")
    is_: Any = Field(
        default=True, alias="is", description="the value that marks a test event (default: true), or a list"
    )
    prefix: StrictStr | None = optional("instead of `is`: what the value of a test event begins with", min_length=1)


class EnvelopeStanza(Strict):
    """Where the sender keeps what every event has."""

    called: ClassVar[str] = "envelope"

    type: Texts | None = optional('the type of the event; a template of its parts: `"{object_type}.{action|lower}"`')
    id: Texts | None = optional("the id of the event (not of its object)")
    time: Texts | None = optional("when it happened")
    order: Texts | None = optional("a time that is only good for ordering events")
    test: (
        Annotated[
            _Text[StrictStr] | _List[StrictStr] | _Map[TestFlag], _either("a path, {path, is}, or {path, prefix}")
        ]
        | None
    ) = optional("the flag of a test event: a path (true marks a test), `{path, is}` or `{path, prefix}`")
    account: Texts | None = optional("the connected account")


class LinkStanza(Strict):
    called: ClassVar[str] = "a link"

    kind: StrictStr = Field(description="what the key names: subscription, order, customer …")
    path: Texts = Field(description="where the id is; if there are several paths, each gives a key")
    event: Texts = Field(default="*", description="only for events of these types (globs)")


class PersonStanza(Strict):
    """Where a preset finds people. A path to an object (metadata) stands for its fields named like user ids."""

    called: ClassVar[str] = "an entry of people"

    kind: Literal["user", "email", "reference"]
    path: Texts
    event: Texts = "*"
    when: When | None = None


class HandoverStanza(Strict):
    """Events by which a site can hand its visitor over: a checkout or a sign-up, not a renewal."""

    called: ClassVar[str] = "an entry of handover"

    event: Texts = Field(description="event types (globs)")
    when: When | None = optional("conditions that the event must meet")
    kind: Literal["purchase", "sign-up", "booking", "form"] | None = optional(
        "what the goals are called: `purchase`, `sign-up`, `booking` or `form`"
    )


class Chosen(Strict):
    """One way to compute a value, for some event types."""

    called: ClassVar[str] = "an entry of a value"

    event: Texts = Field(default="*", description="only for events of these types (globs)")
    value: Scalar | None = optional("a template")
    builtin: StrictStr | None = optional("built-in code instead of a template, for presets")
    means: StrictStr | None = optional("what it means, for the table in docs/rules.md")


NamedValue = Annotated[
    _Text[StrictStr] | _Map[Chosen] | _List[Chosen], _either("a template, or a list of {event, value}")
]


class IgnoredStanza(Strict):
    """Messages of a provider that report nothing."""

    called: ClassVar[str] = "an entry of ignore"

    event: Texts = "*"
    when: When | None = None
    because: StrictStr | None = None


class JsonField(Strict):
    called: ClassVar[str] = "body"

    json_field: StrictStr = Field(description="the form field that holds the JSON")


class HandshakeStanza(Strict):
    """A message with which a sender sets up a webhook, and its answer."""

    called: ClassVar[str] = "a handshake"

    method: Texts = Field(default="POST", description="`GET`, `HEAD` or `POST` (default), or a list")
    when: dict[str, Scalars] | None = optional(
        'place: value, or a list of values (`""`: it is missing); a handshake has all of them'
    )
    echo: StrictStr | None = optional(
        "the place of the value to send back, such as `query:challenge` or `body:challenge`"
    )
    json_: dict[str, StrictStr] | None = optional(
        'send it as JSON, such as `{challenge: "{value}"}`; default: plain text', alias="json"
    )
    signed: StrictBool | None = optional(
        "whether its own signature must verify first; default: yes for `POST`, no for other methods"
    )
    verify_token: StrictStr | None = optional(
        "the place of a value that must equal the variable `<SOURCE>_VERIFY_TOKEN`"
    )
    body: StrictStr | None = optional("in presets: the whole body; `{digits}` stands for a number")
    hmac: StrictStr | None = optional("in presets: the place of a token to be signed")
    keep: StrictStr | None = optional("in presets: the place of a value that a person must read")
    answer: Literal["empty", "no_content"] | None = optional(
        "in presets: `empty` (200 without a body) or `no_content` (204)"
    )


class Stanzas(Strict):
    """What a preset and a mapping file have in common."""

    visitor: Texts | None = optional("paths of the visitor id, tried in order; then what the bridge remembers")
    verify: Annotated[_Text[StrictStr] | _Map[Verify], _either("the name of a preset, or a map")] | None = optional(
        "how the sender proves who it is; needed with `provider: custom`"
    )
    envelope: EnvelopeStanza | None = optional("where type, id, time and test flag are")
    body: (
        Annotated[_Text[Literal["json", "form"]] | _Map[JsonField], _either("json, form, or {json_field: name}")] | None
    ) = optional("`json`, `form`, or `{json_field: data}`")
    require: dict[str, Scalars] | None = optional(
        "paths and the values that must be there, for senders that sign nothing"
    )
    public_url: StrictStr | None = optional("the URL as you registered it at the sender")
    handshake: Annotated[_Map[HandshakeStanza] | _List[HandshakeStanza], _either("a map, or a list of maps")] | None = (
        optional("messages that set up the webhook; with `provider: custom`, echoes only")
    )
    challenge: Any = optional('does nothing and is accepted for old files; use "handshake"')
    links: (
        Annotated[
            _Map[dict[str, Texts]] | _List[LinkStanza],
            _either("a map of kind to path, or a list of {event, path, kind}"),
        ]
        | None
    ) = optional("ids to remember, so that later events find their visitor")
    handover: list[HandoverStanza] | None = optional(
        "events that can hand a visitor over; if most of their goals have none, that is an alarm"
    )
    each: StrictStr | None = optional("the path of a list: one event per element")
    values: dict[str, NamedValue] = Field(
        default_factory=dict,
        description="templates by name, read as `{value.name}`; or a list of {event, value}, of which the first whose"
        " event type matches is used. They are added to the preset's, and replace those of the same name",
    )


class Former(Strict):
    """How the previous release read the parts of its dedupe keys; a key that is not set is read as now."""

    type: Texts | None = None
    id: Texts | None = None


class Preset(Stanzas):
    """The defaults of a provider; other keys of a preset are for people.

    - borrowed: fields that are borrowed for the visitor id (UTM tags, reference ids) and often hold something else.
    - people: where it names users of the app and e-mail addresses (`bridge.identity.people`).
    - links_named_by: whether the keys of its links carry the name of the provider or that of the source.
    - object_ids: prefixes of its price and product ids.
    - payments_by: who sends its payments to DataFast, so that a rule with `payment` would count the same money twice.
    - not_the_secret: prefixes of what people paste by mistake.
    - event_names: separated by white space.
    - decimals: currencies whose minor units this provider counts differently from `bridge.rules.language.values`.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, populate_by_name=True)

    id_is_signed: StrictBool = True
    formerly: Former | None = None
    retry_fields: list[StrictStr] = Field(default_factory=list)
    borrowed: Texts | None = None
    people: list[PersonStanza] = Field(default_factory=list)
    links_named_by: Literal["provider", "source"] = "provider"
    acknowledge: Literal[200, 204] = 200
    cannot_be_set_up: StrictStr | None = None
    secret_form: Texts | None = None
    not_the_secret: dict[str, StrictStr] = Field(default_factory=dict)
    ignore: list[IgnoredStanza] = Field(default_factory=list)
    fingerprint: Literal["lemonsqueezy"] | None = None
    objects: Literal["stripe"] | None = None
    object_ids: list[StrictStr] = Field(default_factory=list)
    payments_by: StrictStr | None = None
    event_names: StrictStr = ""
    decimals: dict[str, Annotated[int, Field(ge=0, le=4)]] = Field(default_factory=dict)


class MappingFile(Stanzas):
    """One source: one sender, its secrets, its rules."""

    extends: StrictStr | None = optional(
        "first line of a layer: the name of the shipped file that this one changes (`stripe`). A layer"
        " needs neither `provider` nor `goals`"
    )
    use: list[StrictStr] | None = optional(
        "in a layer, by goal name, exactly the shipped goals that are on (`[]`: none); default: those that"
        " are on in the shipped file"
    )
    in_layers: list[StrictStr] | None = optional(
        "in shipped files, the ids of the rules that are on in a layer without `use`, as the first release"
        " had them: what comes later is off there"
    )
    provider: StrictStr = Field(description="`stripe`, `lemonsqueezy`, any preset, or `custom`")
    secret: Texts | None = optional("default: `${<STEM>_WEBHOOK_SECRET}`, and `…_OLD` beside it")
    when: When | None = optional("conditions of all rules")
    maps: dict[str, dict[str, Scalar]] = Field(default_factory=dict, description="tables for the filter `map`")
    datafast: OtherWebsite | None = optional("another DataFast website for all rules")
    goals: list[GoalStanza] = Field(description="the rules")
    tests: list[TestCaseStanza] = Field(default_factory=list, description="events, and the goals that they must make")


MODELS: Final[dict[tuple[str, ...], type[Strict]]] = {
    (): MappingFile,
    ("goals", "*"): GoalStanza,
    ("goals", "*", "datafast"): DestinationStanza,
    ("goals", "*", "payment"): PaymentStanza,
    ("datafast",): DestinationStanza,
    ("tests", "*"): TestCaseStanza,
    ("tests", "*", "goals", "*"): ExpectedGoalStanza,
    ("verify",): Verify,
    ("verify", "signature"): Signature,
    ("verify", "timestamp"): Timestamp,
    ("verify", "or", "*"): Scheme,
    ("verify", "or", "*", "signature"): Signature,
    ("verify", "or", "*", "timestamp"): Timestamp,
    ("envelope",): EnvelopeStanza,
    ("envelope", "test"): TestFlag,
    ("links", "*"): LinkStanza,
    ("handover", "*"): HandoverStanza,
    ("handshake",): HandshakeStanza,
    ("handshake", "*"): HandshakeStanza,
    ("body",): JsonField,
}
