"""The ledger of loss: real processes, real signals, a bad destination; then every acknowledged event is counted.

`make chaos` (or `python -m chaos`) plays one run and prints what it found, with the seed that repeats it. It is not
part of the product. Most of it imports only the sandbox's signatures and faults; `outage` runs the real deliverer under
a simulated clock, and `hostile` the real application.
"""
