"""The priority of a job: the most urgent job that waits is analysed first."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Greater is more urgent. The names of three are values of Scheduled Procedure Step Priority (0074,1200), PS3.3 C.30.1."""

    NOT_SET = 0  # counts as MEDIUM
    BACKFILL = 1  # of series that the node retrieves from an archive on its own
    LOW = 2
    MEDIUM = 3
    HIGH = 4

    @classmethod
    def named(cls, name: str) -> Priority:
        """Return the priority of a route or a workitem; MEDIUM for every other name."""
        return {"HIGH": cls.HIGH, "LOW": cls.LOW}.get(name.upper(), cls.MEDIUM)
