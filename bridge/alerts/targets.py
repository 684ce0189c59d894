"""The targets of `BRIDGE_ALERTS`: what may be shown of them, whether apprise can read them, and sending to one.

Apprise runs in a process of its own for each message (`child`): it takes 50 MB and the time of its import, which the
process that receives webhooks must not have to give, and a target that hangs can be ended. A URL holds secrets: it goes
to that process through a pipe, and nothing shows more of it than its number and its service.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bridge.masking import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.store.operator.alerting import AlertClaim, AlertMessage

LIMIT_S: Final = 30.0  # for one message; the process ends itself a little earlier
_CHILD: Final = Path(__file__).with_name("child.py")
_UNKNOWN: Final = {"ok": False, "left": True, "reason": "its process ended without an answer"}


@dataclass(frozen=True, slots=True)
class Target:
    """One URL. place: the part that may be shown. fingerprint: its representation in the database."""

    url: str
    place: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """The outcome of a message. left: something may have reached the target. reason: why it failed, without secrets."""

    ok: bool
    left: bool = True
    reason: str = ""


def targets(urls: Sequence[str]) -> tuple[Target, ...]:
    """The targets, each once."""
    return tuple(
        Target(url, f"{scheme(url)} ({number})", fingerprint(url)[:32])
        for number, url in enumerate(dict.fromkeys(urls), 1)
    )


def scheme(url: str) -> str:
    """The service of a URL: `slack`."""
    return url.partition("://")[0].lower()[:20]


def summary(urls: Sequence[str]) -> str:
    """The targets in a sentence: `BRIDGE_ALERTS has 2 targets: slack (1), mailto (2)`."""
    places = [target.place for target in targets(urls)]
    return f"BRIDGE_ALERTS has {len(places)} target{'' if len(places) == 1 else 's'}: {', '.join(places)}"


def send(target: Target, message: AlertClaim | AlertMessage, limit_s: float = LIMIT_S) -> Delivery:
    """Send a message to one target; it takes no longer than `limit_s`."""
    request = {"url": target.url, "kind": message.kind, "title": message.title, "body": message.body}
    try:
        answer = _ask({**request, "limit_s": limit_s * 0.9}, limit_s)
    except OSError:
        return Delivery(ok=False, left=False, reason="its process could not be started")
    except subprocess.TimeoutExpired:
        return Delivery(ok=False, reason=f"no answer within {limit_s:g} s")
    return Delivery(ok=answer["ok"] is True, left=answer["left"] is True, reason=str(answer["reason"])[:200])


def unreadable(urls: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each URL that apprise cannot read."""
    found = targets(urls)
    try:
        readable = _ask({"read": [target.url for target in found]}, LIMIT_S).get("readable")
    except (OSError, subprocess.TimeoutExpired):
        readable = None
    if not isinstance(readable, list) or len(readable) != len(found):
        return ("BRIDGE_ALERTS could not be read, because the package apprise cannot be loaded: install it again",)
    return tuple(
        f"BRIDGE_ALERTS: apprise cannot read target {number} of {len(found)} ({scheme(target.url)}://…): its"
        " documentation says what the URL of this service must hold"
        for number, (target, good) in enumerate(zip(found, readable, strict=True), 1)
        if not good
    )


def _ask(request: dict[str, Any], limit_s: float) -> dict[str, Any]:
    """Run the process with this request and return its answer. Raises OSError, TimeoutExpired."""
    run = subprocess.run(  # noqa: S603 - our own program, and no argument from outside
        [sys.executable, "-P", str(_CHILD)],
        input=json.dumps(request).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # apprise's log, which may name what a URL holds
        timeout=limit_s,
        check=False,
        start_new_session=True,
    )
    try:
        answer = json.loads(run.stdout)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) and answer else dict(_UNKNOWN)
