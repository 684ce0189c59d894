"""The values that flow through the bridge. Frozen, without I/O, without a clock.

A request becomes a `NewEvent` (receive), a stored `Event` becomes `GoalDraft`s (route), a stored `Goal` becomes an
`Outcome` (deliver). A `Source` is what a mapping file says about its sender, compiled. Times are milliseconds since
1970 UTC (`_ms`); a duration's name states its unit.
"""

from bridge.model.delivery import (
    Claim,
    CompletedGoal,
    DeliveredGoal,
    Destination,
    Health,
    NotYet,
    Outcome,
    OutcomeKind,
    ProofClaim,
    ReadbackClaim,
    ReadbackDecision,
    ReadbackOutcome,
    Readiness,
    Settled,
    Settlement,
    UnconfirmedGoal,
    VisitorGoals,
)
from bridge.model.event import (
    MISSING,
    Ack,
    Derived,
    Document,
    Envelope,
    Event,
    EventState,
    ExactFloat,
    Json,
    Missing,
    NewEvent,
    Path,
    Verdict,
)
from bridge.model.goal import (
    FINAL,
    IDEMPOTENT,
    RETRIABLE,
    TO_SEND,
    UNDER_WAY,
    UNFINAL,
    VISITOR_OPTIONAL,
    Candidate,
    Follows,
    Goal,
    GoalDraft,
    GoalState,
    PlannedGoal,
)
from bridge.model.link import (
    PERSON_KINDS,
    UUID4,
    VISITOR_PREFIX,
    Key,
    NamedVisitor,
)
from bridge.model.source import (
    KEY_FORMS,
    SHARED_KEY_FORMS,
    UNSIGNED_TYPES,
    VERIFY_TYPES,
    BodyForm,
    EnvelopeSpec,
    EventCases,
    FormerSpec,
    Handshake,
    LinkSpec,
    NamedValues,
    PersonSpec,
    Place,
    Reply,
    ReplyKind,
    Request,
    Requirement,
    SignatureSpec,
    Source,
    TimestampSpec,
    VerifySpec,
)

__all__ = [
    "FINAL", "IDEMPOTENT", "KEY_FORMS", "MISSING", "PERSON_KINDS", "RETRIABLE", "SHARED_KEY_FORMS", "TO_SEND",
    "UNDER_WAY", "UNFINAL", "UNSIGNED_TYPES", "UUID4", "VERIFY_TYPES", "VISITOR_OPTIONAL", "VISITOR_PREFIX", "Ack",
    "BodyForm", "Candidate", "Claim", "CompletedGoal", "DeliveredGoal", "Derived", "Destination", "Document",
    "Envelope", "EnvelopeSpec", "Event", "EventCases", "EventState", "ExactFloat", "Follows", "FormerSpec", "Goal",
    "GoalDraft", "GoalState", "Handshake", "Health", "Json", "Key", "LinkSpec", "Missing", "NamedValues",
    "NamedVisitor", "NewEvent", "NotYet", "Outcome", "OutcomeKind", "Path", "PersonSpec", "Place", "PlannedGoal",
    "ProofClaim", "ReadbackClaim", "ReadbackDecision", "ReadbackOutcome", "Readiness", "Reply", "ReplyKind",
    "Request", "Requirement", "Settled", "Settlement", "SignatureSpec", "Source", "TimestampSpec",
    "UnconfirmedGoal", "Verdict", "VerifySpec", "VisitorGoals",
]  # fmt: skip
