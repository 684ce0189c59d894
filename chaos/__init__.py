"""The ledger of loss: real processes, real signals, a bad destination; then every acknowledged event is counted.

`make chaos` (or `python -m chaos`) plays one run and prints what it found, with the seed that plays it again. It is no
part of the product and imports nothing of it but the sandbox's signatures and faults, except in `outage`, which runs
the real deliverer under a clock that is played.
"""
