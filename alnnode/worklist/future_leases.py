"""Reset fetch leases that were acquired before the clock was set back (`alnnode.db.clock`)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import update

from alnnode.db.clock import MAX_SKEW
from alnnode.db.engine import for_writing
from alnnode.db.worklist_tables import WorkitemRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Engine

LONGEST_LEASE = timedelta(minutes=20)  # the longest pause of `alnnode.worklist.input_fetcher` between two attempts


def reset_future_leases(engine: Engine, now: datetime) -> int:
    """Reset the leases that end later than any valid lease can; return their number."""
    with for_writing(engine).begin() as connection:
        future = WorkitemRow.lease_until > now + LONGEST_LEASE + MAX_SKEW
        return connection.execute(update(WorkitemRow).where(future).values(lease_until=None)).rowcount
