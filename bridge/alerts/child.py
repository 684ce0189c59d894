"""Send one message with apprise, or see which URLs it can read: the program that `targets` runs.

It reads a request as JSON from standard input, and writes the answer as JSON to standard output. It imports nothing of
the bridge, and says whether anything may have left: only then could a second attempt send the message twice.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import signal
import socket
import sys
from typing import Any, ClassVar, Final

_STATUS: Final = re.compile(r"\berror=(\d{3})\b")


class WatchedSocket(socket.socket):
    """A socket that remembers whether any of them has ever been connected, and why the last one was not."""

    reached: ClassVar[bool] = False
    refusal: ClassVar[str] = ""

    def connect(self, address: Any) -> None:
        """Connect, and remember whether it succeeded."""
        try:
            super().connect(address)
        except BlockingIOError:  # whether it succeeds is known only later
            WatchedSocket.reached = True
            raise
        except OSError as error:
            WatchedSocket.refusal = (error.strerror or "no answer in time").lower()
            raise
        WatchedSocket.reached = True

    def connect_ex(self, address: Any) -> int:
        """Connect. Whether it succeeds may be known only later, so the target counts as reached."""
        WatchedSocket.reached = True
        return super().connect_ex(address)

    def sendto(self, *values: Any) -> int:
        """Send without a connection. The target counts as reached."""
        WatchedSocket.reached = True
        return super().sendto(*values)


class _Status(logging.Handler):
    """Keeps the HTTP status of a refusal, and nothing else of the log."""

    status = ""

    def emit(self, record: logging.LogRecord) -> None:
        found = _STATUS.search(record.getMessage())
        if found is not None:
            self.status = found[1]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what the request asks."""
    socket.socket = WatchedSocket  # type: ignore[misc] # before apprise and whatever it loads import it
    import apprise  # noqa: PLC0415 - see above

    asset = apprise.AppriseAsset(
        app_id="DataFast Bridge", app_desc="DataFast Bridge", app_url="", image_url_mask="", image_url_logo=""
    )

    def service(url: str) -> Any:
        return apprise.Apprise.instantiate(url, asset=asset)

    if "read" in request:
        return {"readable": [service(url) is not None for url in request["read"]]}
    target = service(request["url"])
    if target is None:
        return {"ok": False, "left": False, "reason": "apprise cannot read its URL (`python -m bridge check`)"}
    handler = _Status(logging.WARNING)
    logging.getLogger("apprise").addHandler(handler)
    kinds = {
        "begin": apprise.NotifyType.FAILURE,
        "over": apprise.NotifyType.SUCCESS,
        "news": apprise.NotifyType.SUCCESS,
    }
    sender = apprise.Apprise(asset=asset)
    sender.add(target)
    ok = bool(
        sender.notify(
            title=request["title"],
            body=request["body"],
            notify_type=kinds.get(request["kind"], apprise.NotifyType.INFO),
            body_format=apprise.NotifyFormat.TEXT,
        )
    )
    return {"ok": ok, "left": ok or WatchedSocket.reached, "reason": "" if ok else _reason(handler.status)}


def _reason(status: str) -> str:
    """In our own words: apprise's may quote a URL."""
    if status:
        return f"it answered {status}"
    if WatchedSocket.reached:
        return "it was reached, but did not take the message"
    return f"it could not be reached: {WatchedSocket.refusal or 'its name was not found'}"


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    signal.setitimer(signal.ITIMER_REAL, float(request.get("limit_s", 30.0)))
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            found = answer(request)
        except ImportError:
            found = {"ok": False, "left": False, "reason": "the package apprise cannot be loaded: install it again"}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
