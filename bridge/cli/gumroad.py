"""How to make Gumroad send each event: its settings offer an endpoint for sales only.

Everything else takes one call of its API for each event, with an OAuth token of the seller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.rules.globs import compile_glob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.model import Source

PING: Final = "sale"
RESOURCES: Final = (
    "sale", "refund", "dispute", "dispute_won", "cancellation",
    "subscription_updated", "subscription_ended", "subscription_restarted",
)  # fmt: skip
_CALL: Final = (
    'curl -X PUT https://api.gumroad.com/v2/resource_subscriptions -d "access_token=$GUMROAD_ACCESS_TOKEN"'
    ' -d resource_name={event} --data-urlencode "post_url={url}?token={secret}"'
)


def commands(source: Source, url: str, events: Iterable[str]) -> tuple[str, ...]:
    """The call for each event that the Ping endpoint does not send, ready for a shell that knows the two secrets."""
    secret = f"${source.secret_names[0]}" if source.secret_names else "YOUR-SECRET"
    globs = [compile_glob(event) for event in events]
    wanted = [name for name in RESOURCES if name != PING and any(glob.matches(name) for glob in globs)]
    return tuple(_CALL.format(event=name, url=url, secret=secret) for name in wanted)
