"""Fault injection: a node of real processes gets faults from a seeded schedule, and invariants are checked from outside.

``make chaos`` is the long run. `test_chaos.py` is a short run, and checks that the harness finds three planted bugs.
"""
