"""The first run: what there must be before a goal is delivered, in order, and what to do next for each.

It judges what the store has seen (`bridge.store.operator.overview`) and how the sources are set up; what is wrong is
told by the alarms and notes of `/status`, which the caller hands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.identity.sentences import advice
from bridge.text import listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bridge.model import Destination
    from bridge.store.operator.overview import Progress
    from bridge.workbench.setting_up import Setup


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One step. sentence: what is there, or what to do next. setups: the sources whose URL or secret is part of it.

    wrong: what keeps it from being done, as far as anybody can see.
    """

    title: str
    done: bool
    sentence: str
    setups: tuple[Setup, ...] = ()
    wrong: tuple[str, ...] = ()


def steps(
    seen: Progress,
    *,
    database: str,
    destinations: Mapping[str, Destination],
    setups: Sequence[Setup],
    wrong: Mapping[str, Sequence[str]],
) -> tuple[FirstStep, ...]:
    """Every step of the first run. wrong: of the steps `secret`, `event`, `visitor` and `goal`, what is wrong there."""
    ready = tuple(one for one in setups if one.secret_is_set)
    said = {name: tuple(sentences) for name, sentences in wrong.items()}
    return (
        FirstStep("Database", done=True, sentence=f"{database} answers, and its schema is current."),
        _key(destinations),
        _secret(setups, ready),
        FirstStep("First event", seen.event, _event(seen, ready), () if seen.event else ready, said.get("event", ())),
        FirstStep("First visitor", seen.visitor, _visitor(seen, ready or setups), (), said.get("visitor", ())),
        FirstStep("First goal", seen.goal, _goal(seen), (), () if seen.goal else said.get("goal", ())),
    )


def _key(destinations: Mapping[str, Destination]) -> FirstStep:
    with_key = sorted(name for name, destination in destinations.items() if destination.api_key)
    if with_key:
        sentence = f"Set for {listing(with_key)}. Whether DataFast takes it, `python -m bridge doctor` asks."
        return FirstStep("DataFast key", done=True, sentence=sentence)
    sentence = (
        "Set `DATAFAST_API_KEY` to the API key of your website (df_…), which DataFast shows in the website's settings,"
        " and restart the bridge. Until then goals are made and wait; none is lost."
    )
    return FirstStep("DataFast key", done=False, sentence=sentence)


def _secret(setups: Sequence[Setup], ready: tuple[Setup, ...]) -> FirstStep:
    if ready:
        return FirstStep("Secret of a source", True, f"Set for {listing([one.source for one in ready])}.")
    if not setups:
        return FirstStep(
            "Secret of a source",
            False,
            "There is no mapping file yet: `python -m bridge init` writes one for each of your tools.",
        )
    sentence = (
        "Enter one of these URLs at its provider, set the setting beside it to the secret that the provider shows, and"
        " restart the bridge."
    )
    return FirstStep("Secret of a source", False, sentence, tuple(setups))


def _event(seen: Progress, ready: tuple[Setup, ...]) -> str:
    if seen.event:
        return "An event came, its signature is genuine, and it is stored."
    if not ready:
        return "As soon as a source has its secret, send a test event from the provider's page."
    return "Send a test event from the provider's page, or sell something: the provider posts it to this URL."


def _visitor(seen: Progress, setups: Sequence[Setup]) -> str:
    if seen.visitor:
        return "An event named a visitor of your website."
    asked = advice(setups[0].provider, ()) if setups else "put the cookie datafast_visitor_id into the checkout"
    return f"Hand the visitor over, so that an event names one: {asked}."


def _goal(seen: Progress) -> str:
    if seen.goal:
        return "DataFast took a goal."
    return (
        "The first event that names a visitor and matches a rule makes a goal, which is sent at once; what became of"
        " each event is below."
    )
