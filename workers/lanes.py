"""One lane for each destination, with at most one delivery at a time, so that no destination waits for another.

The delivering worker has more threads than destinations. A thread whose lane is busy passes its delivery to the thread that works on the
lane, and returns at once. So a destination that hangs occupies one thread, never two.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Lanes:
    """Runs the work of each lane one item after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[str]] = {}

    def run(self, lane: str, item: str, work: Callable[[str], None]) -> None:
        """Work on ``item``, and on the items that other threads pass to this lane meanwhile; or pass ``item`` to the thread on the lane.

        When ``work`` raises, the waiting items of the lane are dropped: the sweep enqueues them again.
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
        """Return the next item. Without one, leave the lane under the lock under which other threads check it, and return None."""
        with self._lock:
            if self._waiting[lane]:
                return self._waiting[lane].popleft()
            del self._waiting[lane]
            return None
