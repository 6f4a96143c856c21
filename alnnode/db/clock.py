"""Limits by which a stage recognises times that were written before the clock was set back.

A time that lies further in the future than any wait of its stage cannot be right: the clock was set back after it was written. Each
stage resets such times in its own tables (``reset_future_times``), because the row would otherwise wait for as long as the clock was
set back. A clock that is set forward ends leases and waits early, which costs at most one more attempt.
"""

from __future__ import annotations

from datetime import timedelta

MAX_SKEW = timedelta(minutes=1)  # by which the clocks of several hosts may differ
LONGEST_LEASE = timedelta(minutes=1)  # of `workers.runtime`; a worker that still holds a lease renews it sooner
