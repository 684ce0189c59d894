"""Look up: ask Stripe who bought, for customers who predate the bridge. Off without `STRIPE_API_KEY`.

A worker of its own runs it, beside the one that routes and delivers. A parked goal's keys become questions (`asking`),
one question per step goes to Stripe (`client`, which imports the SDK, and is imported only then), and the answer is
learned like an event, so that threads join and goals wake as usual. Nothing else waits for it.
"""
