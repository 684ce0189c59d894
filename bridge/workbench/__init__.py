"""The workbench: what rules make, would make and made of the stored events. It never sends and never writes.

backtest: other rules against those in force · replay: what routing events again would do · coverage: event types that
no rule uses, rules that never fired · unseen: paths that no event has · report: goals, money and attribution of some
days · shipped: the mapping files of each release. The commands print what these functions return; whoever else shows it
asks here, too.

The SQL is in `bridge.store.operator` (history, tallies) and `bridge.store.goals.making`; comparing, judging and adding
up is done here, without a clock.
"""
