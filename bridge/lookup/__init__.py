"""Look up: ask Stripe who bought, for customers from before the bridge. Off without `STRIPE_API_KEY`.

A step of the worker beside route and deliver: a parked goal's keys become questions (`asking`), one question a step
goes to Stripe (`client`, which imports the SDK and is itself imported only then), and what comes back is learned as
events are, so that threads join and goals wake by the ordinary mechanism. Nothing ever waits for it.
"""

from bridge.lookup.step import STRIPE_URL, Lookup

__all__ = ["STRIPE_URL", "Lookup"]
