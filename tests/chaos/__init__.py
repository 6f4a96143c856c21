"""A node of real processes is broken in every way we know, under a seeded schedule, and looked at from outside.

``make chaos`` runs the long one; `test_chaos.py` a short one, and three planted bugs that it must find.
"""
