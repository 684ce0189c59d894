"""Alerts: tell the targets of `BRIDGE_ALERTS` when a problem begins, when it is over, and of goals with `notify`.

`messages` decides what is said and when; it is pure. `targets` sends, in a process of its own (`child`), because that
takes memory and may take long. `telling` does both, again and again.
"""
