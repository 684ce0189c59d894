"""What events taught about visitors: keys, threads, evidence, and what was asked at Stripe."""
