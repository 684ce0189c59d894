"""`goals`: what will be sent, was sent, or could not be sent. Lists goals, shows one, sends some again, cancels some.

Sending again is safe: a goal that was not delivered stays the same goal. For a delivered one, the command asks first
and sends a new generation with a key of its own, once, however often the command runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli import parameters, printing, resources
from bridge.cli.catalogue import Section
from bridge.cli.screen import current_screen
from bridge.errors import BridgeError, UsageError
from bridge.model import RETRIABLE, GoalState
from bridge.store import Store, clock
from bridge.store.goals.parking import DRY_RULE
from bridge.store.operator import actions, changes, queries
from bridge.text import count, listing, when_short
from bridge.workbench import describe
from bridge.workbench.describe import CANCELLED, Moment, resend_question, retried, why_or_when

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.operator.queries import GoalLine


@click.group(
    cls=Section,
    examples=[
        ("goals", "the newest goals and their states"),
        ("goals --state held", "goals that wait for your decision"),
        ("goals show goal_7", "one goal, with every attempt"),
        ("goals retry goal_7", "sends it now"),
        ("goals send --rule upgrade", "sends the goals that a rule with `enabled: dry` has kept"),
        ("goals cancel goal_7", "makes sure that it is never sent"),
    ],
)
def goals() -> None:
    """List, show, retry, send and cancel goals and payments."""


@goals.command("list", examples=[("goals list --state rejected --since 7d", "what DataFast rejected this week")])
@click.option("--state", type=click.Choice([state.value for state in GoalState]), help="Only goals in this state.")
@click.option("--name", metavar="NAME", help="Only goals of this name, such as refund.")
@parameters.SOURCE
@click.option("--destination", metavar="NAME", help="Only goals for this destination.")
@click.option("--visitor", metavar="ID", help="Only goals of this visitor.")
@click.option(
    "--event", "event_id", type=parameters.event, metavar="EVENT", help="Only goals that this event (ev_12) made."
)
@parameters.SINCE
@click.option("--before", type=parameters.goal, metavar="GOAL", help="Only goals before this one (goal_7).")
@parameters.LIMIT
def list_(since: int | None, limit: int, **filters: Any) -> None:
    """List goals, newest first, with their states."""
    screen = current_screen()
    with resources.store() as store, store.read() as conn:
        wanted = queries.GoalFilter(since_ms=resources.since_ms(conn, since), limit=limit, **filters)
        lines = queries.list_goals(conn, wanted)
        printing.hide_goals(screen, conn, lines if screen.as_json else ())  # the table shows nothing of a body
        moment = describe.moment(conn, resources.environ())
    heads = ("GOAL", "MADE (UTC)", "SOURCE", "NAME", "VISITOR", "STATE", "WHY OR WHEN")
    none = "No goal has been made yet." if wanted == queries.GoalFilter(limit=limit) else "No goal like that."
    printing.print_page(screen, heads, lines, partial(_row, moment=moment), limit=limit, none=none)


def _row(line: GoalLine, moment: Moment) -> tuple[str, ...]:
    made = when_short(line.created_at_ms)
    return (line.label, made, line.source, line.called, line.visitor or "", line.state, why_or_when(line, moment))


@goals.command(examples=[("goals show goal_7", "its visitor and how it was found, its attempts, what happens next")])
@click.argument("goal", type=parameters.goal, metavar="GOAL")
def show(goal: int) -> None:
    """Show one goal: its visitor and how it was found, its event, every attempt, what happens next."""
    screen = current_screen()
    with resources.store() as store, store.read() as conn:
        detail = queries.show_goal(conn, goal)
        printing.hide_goals(screen, conn, [detail.goal] if detail else [])
        moment = describe.moment(conn, resources.environ())
    if detail is None:
        raise BridgeError(f"There is no goal_{goal}. `python -m bridge goals` lists the newest.")
    screen.write_json(describe.as_json(detail))
    printing.print_goal_in_full(screen, detail, moment)


# ----------------------------------------------------------------------------------------------- retry and cancel


@goals.command(
    examples=[
        ("goals retry goal_7", "sends one goal now"),
        (
            "goals retry --state rejected --since 1d --yes",
            "all goals that were rejected in the last day, without asking",
        ),
    ]
)
@click.argument("ids", type=parameters.goal, metavar="[GOAL]...", nargs=-1)
@click.option("--state", type=click.Choice([state.value for state in RETRIABLE]), help="All goals in this state.")
@click.option(
    "--since", type=parameters.duration, metavar="DURATION", help="With --state: only goals of the last 30min, 6h …"
)
@click.option("--yes", is_flag=True, help="Do not ask; also send delivered goals again.")
def retry(ids: Sequence[int], state: str | None, since: int | None, yes: bool) -> int:
    """Send goals now: rejected, expired, held or cancelled goals, or pending goals before their time.

    A delivered goal is sent a second time only after you confirm it, because DataFast counts both.
    """
    with resources.store() as store:
        with store.read() as conn:
            chosen, delivered = _chosen(conn, ids, state, since)
        _confirm(chosen, delivered, yes=yes, named=bool(ids))

        def act(conn: Connection, goal_id: int) -> tuple[str, str]:
            outcome, number = actions.retry(conn, goal_id, again=goal_id in delivered)
            return outcome.value, retried(outcome.value, number)

        return _apply_to_each(store, "retry", chosen, act, actions.DONE, "are sent now")


def _chosen(
    conn: Connection, ids: Sequence[int], state: str | None, since: int | None
) -> tuple[Sequence[int], frozenset[int]]:
    """The ids of the selected goals, and of those among them that were delivered."""
    if bool(ids) == bool(state):
        raise UsageError("Name goals (goals retry goal_7), or select them with --state.")
    if ids:
        goals = queries.goals_by_id(conn, ids)
        return ids, frozenset(goal.id for goal in goals if goal.state == GoalState.DELIVERED)
    wanted = queries.GoalFilter(state=state, since_ms=resources.since_ms(conn, since))
    return [line.id for line in resources.all_matching(partial(queries.list_goals, conn), wanted)], frozenset()


def _confirm(chosen: Sequence[int], delivered: frozenset[int], *, yes: bool, named: bool) -> None:
    if delivered:
        parameters.confirm(resend_question([f"goal_{goal_id}" for goal_id in sorted(delivered)]), yes=yes)
    elif chosen and not named:
        parameters.confirm(f"Send {count(len(chosen), 'goal')}?", yes=yes)


_SEND_SENTENCES: Final = {
    "queued": "is due now",
    "looked_for": "has no visitor yet; the bridge looks for one",
    "over_age": "is older than its max_age and was left alone; `goals retry` sends it anyway",
    "unknown": "is not dry any more",
}


@goals.command(examples=[("goals send --rule upgrade", "the goals that the rule kept while it had `enabled: dry`")])
@click.option(
    "--rule", metavar="ID", required=True, help="The id of the rule: its goal's name, unless it has an id of its own."
)
@click.option("--source", metavar="NAME", help="The source, if rules of several sources have this id.")
@parameters.YES
def send(rule: str, source: str | None, yes: bool) -> int:
    """Send the goals that a rule with `enabled: dry` has kept.

    The command says how many goals there are, and asks before it sends them. Goals that are older than their max_age
    stay as they are, because DataFast would date them today. To have the rule's future goals sent, set it to
    `enabled: true`.
    """
    wanted = queries.GoalFilter(state="dry", reason=DRY_RULE, rule_id=rule, source=source)
    with resources.store() as store:
        with store.read() as conn:
            lines = resources.all_matching(partial(queries.list_goals, conn), wanted)
            now_ms = clock.read_ms(conn)
        if not lines:
            name = f"{rule} of {source}" if source else rule
            hint = "`python -m bridge goals list --state dry` shows all goals that are kept"
            raise BridgeError(f"No goal of the rule {name} is kept; {hint}.")
        if len(sources := sorted({line.source for line in lines})) > 1:
            raise UsageError(f"Rules of several sources have this id; name one with --source: {listing(sources)}.")
        over_age = sum(line.expires_at_ms <= now_ms for line in lines)
        if len(lines) > over_age:
            left_alone = f" ({over_age} more: older than max_age, left alone)" if over_age else ""
            parameters.confirm(f"Send {count(len(lines) - over_age, 'goal')} of {rule}{left_alone}?", yes=yes)
        ids, became = [line.id for line in lines], f"of the dry rule {rule} are sent now"

        def act(conn: Connection, goal_id: int) -> tuple[str, str]:
            outcome = actions.send_dry(conn, goal_id).value
            return outcome, _SEND_SENTENCES[outcome]

        return _apply_to_each(store, "send", ids, act, ("queued", "looked_for"), became, also_fine=("over_age",))


@goals.command(examples=[("goals cancel goal_7 goal_8", "makes sure that these two are never sent")])
@click.argument("ids", type=parameters.goal, metavar="GOAL...", nargs=-1, required=True)
def cancel(ids: Sequence[int]) -> int:
    """Never send these goals. A cancelled goal can still be sent with `goals retry`."""

    def act(conn: Connection, goal_id: int) -> tuple[str, str]:
        outcome = actions.cancel(conn, goal_id).value
        return outcome, CANCELLED[outcome]

    with resources.store() as store:
        return _apply_to_each(store, "cancel", ids, act, ("cancelled",), "will never be sent")


def _apply_to_each(
    store: Store,
    what: str,
    ids: Sequence[int],
    act: Callable[[Connection, int], tuple[str, str]],
    fine: Collection[str],
    became: str,
    also_fine: Sequence[str] = (),
) -> int:
    """Apply the action to each, record the change, and print each result. Exit code 1 if one was left unchanged.

    fine: outcomes that changed something. also_fine: outcomes where nothing had to be changed.
    """
    labels = [(goal_id, f"goal_{goal_id}") for goal_id in ids]
    done = changes.act_on_each(store, what, labels, act, lambda found: found[1] if found[0] in fine else None, became)
    rows = [(goal_id, outcome, text) for goal_id, (outcome, text) in zip(ids, done, strict=True)]
    failed = [row for row in rows if row[1] not in (*fine, *also_fine)]
    as_json = [{"goal": f"goal_{goal_id}", "outcome": outcome, "message": text} for goal_id, outcome, text in rows]
    sentences = [f"goal_{goal_id} {text}." for goal_id, _outcome, text in rows] or ["No goal like that."]
    current_screen().answer({"ok": not failed, "goals": as_json}, *sentences)
    return 1 if failed or not rows else 0
