"""What the owner is told: a problem while it is remembered, and a message to the targets of `BRIDGE_ALERTS`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of `/status`. gone_at_ms: the first look that no longer saw it; None: it holds.

    told: a message said that it began, and none yet that it is over. told_at_ms: when the last such message was made.
    """

    key: str
    sentence: str
    detail: str
    began_at_ms: int
    gone_at_ms: int | None = None
    told: bool = False
    told_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """One message. about: unique, so that it is made once. kind: begin | over | news | test. goal_id: of good news."""

    about: str
    kind: str
    title: str
    body: str
    goal_id: int | None = None


@dataclass(frozen=True, slots=True)
class AlertClaim:
    """A message to one target, which only this process may send. tries: with this one."""

    id: int
    target: str
    place: str
    kind: str
    title: str
    body: str
    goal_id: int | None
    tries: int
