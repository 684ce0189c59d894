"""The tables, for SQLite and PostgreSQL alike. Times are milliseconds since 1970 UTC in BIGINT columns.

Text contains no NUL, which PostgreSQL refuses: bodies are bytes, and everything else is cleaned before it gets here.
JSON is stored as text that only this project writes and reads: the databases never need to parse it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    event,
    false,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection
    from sqlalchemy.dialects import postgresql, sqlite

    Insert: TypeAlias = sqlite.Insert | postgresql.Insert

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_partial_indexes: list[tuple[Index, ColumnElement[bool]]] = []


def _partial_index(name: str, *columns: Column[Any], where: ColumnElement[bool]) -> None:
    """Add an index over the rows for which `where` is true."""
    _partial_indexes.append((Index(name, *columns), where))


def with_dialect_options(*dialects: str) -> MetaData:
    """The tables with the DDL options of these databases. Call it late: an option loads its dialect (30 to 40 ms).

    The options are sorted by name, so that a migration comes out the same whatever was loaded before.
    """
    for index, where in _partial_indexes:
        options = index.dialect_options
        for dialect in sorted({*options, *dialects}):
            options.pop(dialect, None)
            options[dialect]["where"] = where
    return metadata


@event.listens_for(metadata, "before_create")
def _add_dialect_options(_metadata: MetaData, conn: Connection, **_options: Any) -> None:
    with_dialect_options(conn.dialect.name)


def insert(table: Table, dialect: str) -> Insert:
    """INSERT … ON CONFLICT: the same for both databases, but in two modules of SQLAlchemy.

    A process loads only its own database's module: PostgreSQL's costs 40 ms and 4 MB for drivers that are not used.
    """
    made: Insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    return made


_as_alembic = MetaData(naming_convention={"pk": "%(table_name)s_pkc"})
bridge_version = Table("bridge_version", _as_alembic, Column("version_num", String(32), primary_key=True))
alembic_version = Table("alembic_version", _as_alembic, Column("version_num", String(32)))  # of another application

BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite assigns ids automatically only for INTEGER

# One row per verified webhook. The two dedupe keys outlive the body: they are the only protection against replay.
events = Table(
    "events",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("source", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("provider_event_id", Text),
    Column("account", Text),
    Column("test", Boolean, nullable=False),
    Column("stated_at_ms", BigInteger),  # the event's own time, if the provider states one
    Column("order_at_ms", BigInteger),  # only for ordering
    Column("received_at_ms", BigInteger, nullable=False),
    Column("dedupe_key", Text, nullable=False),
    Column("dedupe_key_2", Text),
    Column("duplicates", Integer, nullable=False, server_default="0"),
    Column("headers", Text, nullable=False),  # JSON
    Column("query", Text, nullable=False),  # JSON
    Column("body", LargeBinary),  # raw bytes; NULL after retention deleted them
    Column("state", Text, nullable=False),
    Column("verdict", Text),
    Column("reason", Text),  # of a quarantine or an `ignored`
    Column("trace", Text),  # JSON, see bridge.route
    Column("rules_hash", Text),
    Column("routed_at_ms", BigInteger),
    Column("tries", Integer, nullable=False, server_default="0"),  # how often routing was begun
    Column("lease_token", Text),
    Column("lease_until_ms", BigInteger),
    Column("signature", Text),  # JSON: how it was verified; NULL: stored by a release that did not record it
    UniqueConstraint("source", "dedupe_key"),
    UniqueConstraint("source", "dedupe_key_2"),
    Index("ix_events_state_id", "state", "id"),
    Index("ix_events_provider_event_id", "provider_event_id"),
    Index("ix_events_received_at_ms", "received_at_ms"),
    Index("ix_events_source_state_verdict", "source", "state", "verdict"),
)
_partial_index(  # bodies that retention has not deleted yet
    "ix_events_with_body", events.c.received_at_ms, where=events.c.body.is_not(None)
)
_partial_index(  # events for which a rule failed and made no goal
    "ix_events_failed",
    events.c.verdict,  # its only value, but SQLite prefers an index that begins with it
    events.c.received_at_ms,
    where=and_(events.c.verdict == "unmatched", events.c.reason.is_not(None)),
)

# One row per goal: unique by (destination, once key). A goal sent again by a person is a new generation with its own
# once key (`…#2`).
goals = Table(
    "goals",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("event_id", BigInteger, ForeignKey("events.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("rule_id", Text, nullable=False),
    Column("rules_hash", Text),
    Column("destination", Text, nullable=False),
    Column("once_key", Text, nullable=False),
    Column("test", Boolean, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("metadata", Text, nullable=False),  # JSON: {key: text}
    Column("visitor", Text),
    Column("provenance", Text),  # JSON, see bridge.identity
    Column("state", Text, nullable=False),
    Column("reason", Text),  # one word: unknown_visitor, max_age, no_visitor, …
    Column("message", Text),  # a sentence for a person
    Column("happened_at_ms", BigInteger, nullable=False),  # of the event, for max_age and order
    Column("time_is_stated", Boolean, nullable=False),
    Column("ordered_at_ms", BigInteger, nullable=False),  # of the event, for order within a visitor
    Column("created_at_ms", BigInteger, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("due_at_ms", BigInteger, nullable=False),  # the next send or read-back, or the end of parking
    Column("expires_at_ms", BigInteger, nullable=False),  # max_age
    Column("wait_ms", BigInteger, nullable=False),  # how long it may be parked
    Column("parked_until_ms", BigInteger),  # the end of the wait, while parked
    Column("weak_at_ms", BigInteger),  # from when the customer's key may decide; NULL: at once (no strong key)
    Column("look_up_at_ms", BigInteger, nullable=False, server_default="0"),  # when to ask its provider, while parked
    Column("first_try_at_ms", BigInteger),
    Column("attempts", Integer, nullable=False, server_default="0"),  # those that count towards back-off
    Column("paused_ms", BigInteger, nullable=False, server_default="0"),  # time not counted towards the 72 h
    Column("unknown_visitor_tries", Integer, nullable=False, server_default="0"),
    Column("looks", Integer, nullable=False, server_default="0"),  # read-backs since it became unconfirmed
    Column("absent", Integer, nullable=False, server_default="0"),  # how many of them did not find it
    Column("lease_token", Text),
    Column("lease_until_ms", BigInteger),
    Column("delivered_at_ms", BigInteger),
    Column("datafast_event_id", Text),
    Column("generation", Integer, nullable=False, server_default="1"),
    Column("unknown_at_ms", BigInteger, nullable=False, server_default="0"),  # when its visitor last got a 404
    Column("to_prove", Text),  # while parked: the borrowed id to ask DataFast about first
    Column("handover", Text),  # what its event is, if a visitor can be handed over there: purchase, …; not of a test
    Column("kind", Text, nullable=False, server_default="goal"),  # of the action (bridge.datafast.actions)
    Column("notify", Text),  # BRIDGE_ALERTS: wanted (on delivery) | queued | missed; NULL: its rule does not ask for it
    Column("told_at_ms", BigInteger),  # when the first target accepted it
    UniqueConstraint("destination", "once_key"),
    Index("ix_goals_destination_state_due_at_ms_id", "destination", "state", "due_at_ms", "id"),
    Index("ix_goals_state_due_at_ms", "state", "due_at_ms"),
    Index("ix_goals_state_lease_until_ms", "state", "lease_until_ms"),
    Index("ix_goals_state_expires_at_ms", "state", "expires_at_ms"),
    Index("ix_goals_destination_visitor_state_ordered_at_ms", "destination", "visitor", "state", "ordered_at_ms"),
    Index("ix_goals_visitor", "visitor"),
    Index("ix_goals_event_id", "event_id"),
    Index("ix_goals_created_at_ms", "created_at_ms"),
)

_partial_index(  # the next goal to look up
    "ix_goals_look_up",
    goals.c.state,  # its only value, but SQLite prefers an index that begins with it
    goals.c.look_up_at_ms,
    where=goals.c.state == "parked",
)

_partial_index(  # while no visitor is known: those never asked about first, then those asked longest ago
    "ix_goals_unknown",
    goals.c.destination,
    goals.c.state,  # its only value, but SQLite prefers an index that begins with destination and state
    goals.c.unknown_at_ms,
    goals.c.due_at_ms,
    goals.c.id,
    where=goals.c.state == "pending",
)
_partial_index("ix_goals_to_prove", goals.c.to_prove, where=goals.c.to_prove.is_not(None))

_partial_index(  # goals for which a visitor could be handed over
    "ix_goals_handover", goals.c.source, goals.c.created_at_ms, where=goals.c.handover.is_not(None)
)
_partial_index(  # other goals without a visitor
    "ix_goals_unattributed",
    goals.c.source,
    goals.c.created_at_ms,
    where=and_(goals.c.state == "unattributed", goals.c.handover.is_(None)),
)
_partial_index(  # payments and other rows that are not goals: few, and counted separately
    "ix_goals_payments", goals.c.destination, goals.c.state, where=goals.c.kind != "goal"
)
_partial_index(  # goals to tell the owner about; the few that were delivered come first
    "ix_goals_notify", goals.c.state, goals.c.delivered_at_ms, where=goals.c.notify == "wanted"
)

# One row per send attempt, written before the request is sent; one per read-back, written with its answer.
attempts = Table(
    "attempts",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("goal_id", BigInteger, ForeignKey("goals.id"), nullable=False),
    Column("kind", Text, nullable=False),  # send | readback
    Column("started_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("server_started_at_ms", BigInteger),  # DataFast's clock, by its Date header
    Column("outcome", Text),  # send: an OutcomeKind, NULL while it is under way; readback: a ReadbackOutcome
    Column("status", Integer),
    Column("message", Text),
    Column("lease_token", Text, nullable=False),
    Index("ix_attempts_goal_id", "goal_id"),
    Index("ix_attempts_started_at_ms", "started_at_ms"),
)

# One row per destination: its pause and what led to it.
destinations = Table(
    "destinations",
    metadata,
    Column("name", Text, primary_key=True),
    Column("not_before_ms", BigInteger, nullable=False, server_default="0"),
    Column("pause_kind", Text),  # throttled | failures | configuration | unknown_visitors; NULL: open
    Column("pause_reason", Text),
    Column("paused_since_ms", BigInteger),
    Column("pause_step_ms", BigInteger, nullable=False, server_default="0"),  # doubles up to 5 min
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row
    Column("unknown_visitors", Text, nullable=False, server_default="[]"),  # JSON: hashes of different ones in a row
    Column("slots", BigInteger, nullable=False, server_default="0"),  # used so far: every fifth goes to the newest goal
    Column("probe_token", Text),  # lease token of the goal that is sent as a probe
    Column("key_fingerprint", Text),  # SHA-256 of the key in use: a new key ends a pause
    Column("last_success_at_ms", BigInteger),
    Column("clock_skew_ms", BigInteger),  # DataFast's clock minus ours
    Column("unknown_since_ms", BigInteger),  # since then: none of the last ten visitors known, nothing delivered
    Column("unknown_turn_at_ms", BigInteger, nullable=False, server_default="0"),  # when the next may be asked about
)

# One row per API token (only its SHA-256): GCRA by the database's clock.
pace = Table(
    "pace",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("next_at_us", BigInteger, nullable=False),  # theoretical arrival time of the next request, microseconds
)

# Every accepted set of mapping files, under its hash.
rule_sets = Table(
    "rule_sets",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("files", Text, nullable=False),  # JSON: {name: text}
    Column("accepted_at_ms", BigInteger, nullable=False),
)

# The processes, and the last heartbeat of each.
workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # inline | worker | web
    Column("started_at_ms", BigInteger, nullable=False),
    Column("seen_at_ms", BigInteger, nullable=False),
    Column("rules_hash", Text),
    Column("rules_fault", Text),  # why a reload was refused
)

# Counters per source; refusals are summed in the process and written at most once per second.
source_counters = Table(
    "source_counters",
    metadata,
    Column("source", Text, primary_key=True),
    Column("accepted", BigInteger, nullable=False, server_default="0"),
    Column("duplicates", BigInteger, nullable=False, server_default="0"),
    Column("refused", BigInteger, nullable=False, server_default="0"),
    Column("refused_in_row", BigInteger, nullable=False, server_default="0"),
    Column("last_refusal", Text),
    Column("last_refused_at_ms", BigInteger),
    Column("last_accepted_at_ms", BigInteger),
    Column("row_began_at_ms", BigInteger),  # the first refusal in a row
    Column("longest_gap_ms", BigInteger),  # between two accepted events, since gaps_began_at_ms
    Column("longest_gap_before_ms", BigInteger),  # the same for the 30 days before that
    Column("gaps_began_at_ms", BigInteger),
)

# How many rows retention has removed, by what they were, so that counters never decrease.
totals = Table(
    "totals",
    metadata,
    Column("what", Text, primary_key=True),  # events | goals | attempts
    Column("a", Text, primary_key=True),  # source | destination | kind
    Column("b", Text, primary_key=True),  # state | state | outcome
    Column("c", Text, primary_key=True),  # verdict, or empty
    Column("removed", BigInteger, nullable=False),
)

# What a sender sent before its source had a secret (Notion's verification_token), kept for an hour, for people only.
first_messages = Table(
    "first_messages",
    metadata,
    Column("source", Text, primary_key=True),
    Column("token", Text, primary_key=True),
    Column("sender", Text, nullable=False),  # its address, for people
    Column("at_ms", BigInteger, nullable=False),
    Index("ix_first_messages_at_ms", "at_ms"),
)

# The bridge's own facts: the key of the filter `hash`, the current rule set.
facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# --- identity (statements in store/links/) ----------------------------------------------------------------------------

# One row per remembered key. Strong keys of one thread share its label (one of them, as text); a customer has none,
# and a person (kinds `user`, `email`) neither.
link_keys = Table(
    "link_keys",
    metadata,
    Column("key", Text, primary_key=True),  # stripe:live:sub_1
    Column("kind", Text, nullable=False),
    Column("ref", Text, nullable=False),  # the bare id, for people who search for it
    Column("thread", Text),  # NULL: a customer, which is weak, or a key that was stopped
    Column("created_at_ms", BigInteger, nullable=False),
    Column("used_at_ms", BigInteger, nullable=False),  # renewed on use, kept for 400 days
    Column("uses", BigInteger, nullable=False),
    Column("stopped_at_ms", BigInteger),  # it would have joined a third visitor, and no longer joins anything
    Column("stopped_reason", Text),
    Column("certain_at_ms", BigInteger),  # of a person's key: since when it certainly is one; mute before
    Index("ix_link_keys_thread", "thread"),
    Index("ix_link_keys_ref", "ref"),
    Index("ix_link_keys_used_at_ms", "used_at_ms"),
)

# Which visitors were named together with a key: the first and the last time by the events' own clocks.
link_visitors = Table(
    "link_visitors",
    metadata,
    Column("key", Text, primary_key=True),
    Column("visitor", Text, primary_key=True),
    Column("sure", Boolean, nullable=False),  # False: from a bare client_reference_id only
    Column("first_at_ms", BigInteger, nullable=False),
    Column("first_event_id", BigInteger),  # NULL: a hint from outside
    Column("first_event", Text, nullable=False),  # checkout.session.completed evt_1
    Column("last_at_ms", BigInteger, nullable=False),
    Column("last_event_id", BigInteger),
    Column("last_event", Text, nullable=False),
    Column("borrowed", Boolean, nullable=False, server_default=false()),  # must be proved before it counts
    Index("ix_link_visitors_visitor", "visitor"),
)

# Which keys one event (or one element of it) named together.
link_events = Table(
    "link_events",
    metadata,
    Column("key", Text, primary_key=True),
    Column("event_id", BigInteger, primary_key=True, autoincrement=False),
    Column("element", Integer, primary_key=True, autoincrement=False),
    Column("named", Boolean),  # whether the event named a visitor; NULL: written by a release that did not record it
    Index("ix_link_events_event_id", "event_id"),
)

# The keys of a goal's events: what it waits for while it is parked.
goal_keys = Table(
    "goal_keys",
    metadata,
    Column("goal_id", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Index("ix_goal_keys_key", "key"),
)

# Visitors that a destination never knew (404 until the end): they are no longer candidates there.
unknown_visitors = Table(
    "unknown_visitors",
    metadata,
    Column("visitor", Text, primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Index("ix_unknown_visitors_at_ms", "at_ms"),
)

# Whether a destination knows the visitor of a borrowed field: asked once and remembered.
visitor_proofs = Table(
    "visitor_proofs",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("visitor", Text, primary_key=True),
    Column("known", Boolean),  # NULL: not known yet
    Column("made_at_ms", BigInteger, nullable=False),
    Column("again_at_ms", BigInteger, nullable=False),  # when it may be asked (again)
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row
    Column("message", Text),  # why there was no answer
    Column("lease_token", Text),
    Index("ix_visitor_proofs_visitor", "visitor"),
    Index("ix_visitor_proofs_made_at_ms", "made_at_ms"),
)
_partial_index(
    "ix_visitor_proofs_open",
    visitor_proofs.c.destination,
    visitor_proofs.c.again_at_ms,
    where=visitor_proofs.c.known.is_(None),
)

# --- lookups at Stripe (statements in store/links/lookups.py) -------------------------------------------------------

# The questions asked about a key and their outcome, including "nothing": not asked again before they are due.
lookups = Table(
    "lookups",
    metadata,
    Column("key", Text, primary_key=True),
    Column("question", Text, primary_key=True),  # sessions | object | invoices
    Column("goal_id", BigInteger, nullable=False),  # the goal for which it was last asked
    Column("asked_at_ms", BigInteger, nullable=False),
    Column("again_at_ms", BigInteger, nullable=False),
    Column("outcome", Text),  # visitor | keys | nothing | failed; NULL: under way
    Column("detail", Text),  # for people: what was found, or why it failed
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row
    Index("ix_lookups_goal_id", "goal_id"),
    Index("ix_lookups_again_at_ms", "again_at_ms"),
)

# Why questions pause for a while: all of them, those about one kind of object, or about one connected account.
lookup_pauses = Table(
    "lookup_pauses",
    metadata,
    Column("what", Text, primary_key=True),  # all | permission:<name> | account:<id>
    Column("key_fingerprint", Text, nullable=False),  # of the key in use then: a pause does not apply to another key
    Column("until_ms", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("failures", Integer, nullable=False),  # in a row
)

# --- alerts (statements in store/operator/alerting.py) --------------------------------------------------------------

# A problem of /status, from the first check that found it.
alert_problems = Table(
    "alert_problems",
    metadata,
    Column("key", Text, primary_key=True),  # its name and subject: `paused default`
    Column("sentence", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("began_at_ms", BigInteger, nullable=False),
    Column("gone_at_ms", BigInteger),  # the first check that no longer found it
    Column("told", Boolean, nullable=False, server_default=false()),  # that it began, but not yet that it is over
    Column("told_at_ms", BigInteger),  # when the last message that it began was made
)

# A separate outbox: one row per message and target, unique, so that no crash can make a second one.
alerts = Table(
    "alerts",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("about", Text, nullable=False),  # the message's identity: problem, when it began, begin or over; or the goal
    Column("target", Text, nullable=False),  # fingerprint of its URL, which is never stored
    Column("place", Text, nullable=False),  # for people: `slack (1)`
    Column("kind", Text, nullable=False),  # begin | over | news
    Column("goal_id", BigInteger),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),  # due | sending | sent | failed | unknown (may have been sent) | dropped
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("made_at_ms", BigInteger, nullable=False),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("message", Text),  # why it was not sent
    UniqueConstraint("about", "target"),
    Index("ix_alerts_state_changed_at_ms", "state", "changed_at_ms"),
    Index("ix_alerts_goal_id", "goal_id"),
    Index("ix_alerts_made_at_ms", "made_at_ms"),
)

# --- the console (statements in store/operator/sessions.py and changes.py) ------------------------------------------

# One row per signed-in browser. The cookie's value is in neither column: `id` is its SHA-256, and `proof` the HMAC of
# the admin token keyed with that value, so that a new token ends the session.
sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("proof", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("seen_at_ms", BigInteger, nullable=False),
    Column("notice", Text),  # shown once, on the next page
)

# Changes made by people: one row per action, however many goals or events it touched.
changes = Table(
    "changes",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("what", Text, nullable=False),  # replay, retry, cancel, …
    Column("about", Text, nullable=False),  # ev_12, goal_7, stripe.yaml, …
    Column("sentence", Text, nullable=False),
    Index("ix_changes_at_ms", "at_ms"),
)
