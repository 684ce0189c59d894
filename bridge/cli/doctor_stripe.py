"""`doctor` on lookups: may the Stripe key read what they need, and is asking paused for a moment?

Each finding is (level, about, sentence). Nothing is changed: the probe asks for one element of each of five lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.cli.formatting import ago, listing, when
from bridge.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.lookup.asking import StripeAnswer
    from bridge.settings import Settings
    from bridge.store import Store

ABOUT: Final = "Stripe lookups"
CREATE: Final = "https://dashboard.stripe.com/apikeys"


def findings(settings: Settings, store: Store | None, url: str | None = None) -> Iterator[tuple[str, str, str]]:
    """All findings; none without STRIPE_API_KEY. url: Stripe's API, or a stand-in for it."""
    key = settings.stripe_api_key
    if key is None:
        return
    from bridge.lookup import STRIPE_URL, asking
    from bridge.lookup.client import StripeClient
    from bridge.lookup.step import DEADLINE_MS, is_test

    client = StripeClient(key, url or STRIPE_URL, DEADLINE_MS)
    missing = []
    try:
        for permission, name in asking.PERMISSIONS.items():
            answer = client.may_read(permission)
            if (stopped := _stopped(answer)) is not None:
                yield stopped
                return
            if answer.kind == "permission":
                missing.append(name)
    finally:
        client.close()
    kind = f"the key ({'_'.join(key.split('_')[:2])}_…)"
    mode = "test events, and those only where DATAFAST_TEST_API_KEY is set" if is_test(key) else "live events"
    if missing:
        yield "warn", ABOUT, f'{kind} may not read {listing(missing)}: give it "Read" there, at {CREATE}'
    else:
        yield "ok", ABOUT, f"{kind} may read all that is needed; goals of {mode} are looked up"
    yield from _pauses(store, key)


def _stopped(answer: StripeAnswer) -> tuple[str, str, str] | None:
    """Why nothing more can be said."""
    if answer.kind == "key":
        return "fail", ABOUT, answer.message
    if answer.kind in ("unreachable", "rate", "refused"):
        return "warn", ABOUT, f"cannot be tried just now: {answer.message}"
    return None


def _pauses(store: Store | None, key: str) -> Iterator[tuple[str, str, str]]:
    """The short pauses; a lasting one is an alarm."""
    from bridge.lookup.step import fingerprint
    from bridge.store import clock
    from bridge.store.links import lookups

    if store is None:
        return
    try:
        with store.read() as conn:
            now_ms, paused = clock.read_ms(conn), lookups.paused(conn, fingerprint(key))
            alarmed = {pause.what for pause in lookups.lasting_pauses(conn, fingerprint(key))}
    except StoreError:  # the finding about the database says so already
        return
    for pause in paused.values():
        if pause.what not in alarmed:
            since, again = when(pause.since_ms), ago(pause.until_ms, now_ms)
            yield "warn", ABOUT, f"paused since {since}: {pause.reason}; asked again {again}"
