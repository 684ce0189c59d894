"""Look up: ask Stripe who bought, for customers who predate the bridge. Off without `STRIPE_API_KEY`.

It is a step of the worker beside route and deliver. A parked goal's keys become questions (`asking`), one question per
step goes to Stripe (`client`, which imports the SDK, and is imported only then), and the answer is learned like an
event, so that threads join and goals wake as usual. Nothing else waits for it.
"""
