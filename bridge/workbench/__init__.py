"""The workbench: what the rules make, made or would make of the stored events, in figures and in words.

- `describe`: events and goals in words; `trace`: a trace in words
- `why`: whatever an id names, and a person's page; `event`: all that is known about one; `body`: a body for people
- `explain`: what an event would do; `replay`: what routing events again would do
- `backtest`: other rules compared with those in force
- `coverage`: the rules, and the events that none uses; `unseen`: paths that no event has
- `report`: goals, money and attribution over some days; `overview`: the first page

It never sends and never writes. The commands and the console show what these functions return.

The SQL is in `bridge.store.operator` (history, tallies) and `bridge.store.goals.making`; comparing, judging and summing
are done here, without a clock.
"""
