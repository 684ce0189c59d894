"""Incoming events: stored before their 200, claimed for routing, counted."""
