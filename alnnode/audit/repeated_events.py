"""Limit how often the same event is written: a viewer requests each frame by itself, and an intruder may try all day."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

REMEMBERED = 10_000  # events


class RepeatedEvents:
    """Tells the first of several equal events within ``seconds`` from its repetitions. Threads may share an instance."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def is_first(self, *event: Hashable) -> bool:
        """Return whether no equal event happened within the last ``seconds``."""
        now = time.monotonic()
        with self._lock:
            if now - self._seen.get(event, float("-inf")) < self._seconds:
                return False
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[event] = now
            return True


class LineBudget:
    """Limits how many lines a flood of different events writes: ``lines`` in ``seconds``. Threads may share an instance."""

    def __init__(self, lines: int, seconds: float) -> None:
        self._window = RepeatedEvents(seconds)
        self._lines = self._left = lines
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Return whether a line may be written now."""
        with self._lock:
            if self._window.is_first("window"):
                self._left = self._lines
            self._left -= 1
            return self._left >= 0
