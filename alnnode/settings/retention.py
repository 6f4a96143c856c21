"""Section ``[retention]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from alnnode.settings.section import Days, Section

ROOM = 2  # an early deletion ends when this many times clean_below_mb is free: enough that the next one is not due at once


class Retention(Section):
    """How long received series and results are retained, and when receiving stops before the disk is full."""

    delivered_days: Days = 7
    failed_days: Days = 30
    follow_up_days: Days = 1100
    keep_rows_days: Days = 1100
    min_free_mb: Annotated[int, Field(ge=0)] = 1024
    clean_below_mb: Annotated[int, Field(ge=0)] = 2048

    @property
    def clean_to_mb(self) -> int:
        """Return the free space, in MiB, at which an early deletion ends."""
        return ROOM * self.clean_below_mb
