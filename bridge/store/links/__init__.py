"""What events have taught about visitors: keys, threads, evidence, and the questions put to Stripe."""
