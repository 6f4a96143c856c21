"""One message for what happens again and again: a viewer asks for each frame by itself, and an intruder may try all day."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

REMEMBERED = 10_000  # occasions


class Seldom:
    """Says whether something is the first of its kind within ``seconds``. Safe to share between threads."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def first(self, *occasion: Hashable) -> bool:
        """Whether this did not happen within the seconds before."""
        now = time.monotonic()
        with self._lock:
            if now - self._seen.get(occasion, float("-inf")) < self._seconds:
                return False
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[occasion] = now
            return True
