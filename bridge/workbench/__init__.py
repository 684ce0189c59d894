"""The workbench: what the rules make, would make and made of the stored events, in figures and in words.

describe: events and goals in words · trace: a trace in words · why: whatever an id names, and a person's page ·
explain: what an event would do · event: all that is known of one · body: a body to be read · backtest: other rules
against those in force · replay: what routing events again would do · coverage: the rules, and what came that none
uses · unseen: paths that no event has · report: goals, money and attribution of some days · overview: the first page.
It never sends and never writes. Commands and console show what these functions return.

The SQL is in `bridge.store.operator` (history, tallies) and `bridge.store.goals.making`; comparing, judging and adding
up is done here, without a clock.
"""
