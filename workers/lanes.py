"""One lane for each destination: at most one delivery at a time on each, so that no destination ever waits for another.

The delivering worker has more threads than destinations. A thread that finds a lane taken leaves its delivery with the thread that
is on it and returns at once; so a destination that hangs holds one thread, and never a second.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Lanes:
    """Serialises work by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[str]] = {}

    def run(self, lane: str, item: str, work: Callable[[str], None]) -> None:
        """Work on ``item``, or leave it with whoever is on the lane; then on whatever was left here meanwhile.

        When ``work`` raises, what waits on the lane is dropped: the sweep enqueues it again.
        """
        with self._lock:
            if lane in self._waiting:
                if item not in self._waiting[lane]:
                    self._waiting[lane].append(item)
                return
            self._waiting[lane] = deque([item])
        try:
            while (following := self._next(lane)) is not None:
                work(following)
        except BaseException:
            with self._lock:
                del self._waiting[lane]
            raise

    def _next(self, lane: str) -> str | None:
        """Take the next item; leave the lane under the same lock that others look under when there is none."""
        with self._lock:
            if self._waiting[lane]:
                return self._waiting[lane].popleft()
            del self._waiting[lane]
            return None
