"""Turns at a device that several threads share: one works at a time, and what waits meanwhile is done together in the next turn."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Request(Generic[T, R]):
    items: Sequence[T]
    results: list[R] | None = None


class Turns(Generic[T, R]):
    """Calls ``work`` with the items of one thread or, if ``together``, with those of all threads that wait.

    Args:
        work: returns one result per item, in order; a result must not depend on the other items.
        device: the lock of the device, which several `Turns` may share.
        together: whether one call may hold the items of several threads.
    """

    def __init__(self, work: Callable[[Sequence[T]], list[R]], device: threading.Lock, *, together: bool) -> None:
        self._work, self._device, self._together = work, device, together
        self._waiting: list[_Request[T, R]] = []
        self._lock = threading.Lock()

    def __call__(self, items: Sequence[T]) -> list[R]:
        """Return the results of these items; raise what ``work`` raises."""
        own: _Request[T, R] = _Request(items)
        with self._lock:
            self._waiting.append(own)
        with self._device:
            if own.results is None:
                self._serve(own)
        assert own.results is not None  # this turn or an earlier one set them
        return own.results

    def _serve(self, own: _Request[T, R]) -> None:
        with self._lock:
            served = list(self._waiting) if self._together else [own]
            self._waiting = [one for one in self._waiting if one not in served]
        try:
            results = self._work([item for one in served for item in one.items])
        except BaseException as error:
            # The other threads try again in their own turns, so that only the thread whose items are at fault fails.
            with self._lock:
                self._waiting += [one for one in served if one is not own]
            if len(served) == 1 or not isinstance(error, RuntimeError):  # torch raises this for its errors
                raise
            served, results = [own], self._work(own.items)
        start = 0
        for one in served:
            one.results = results[start : start + len(one.items)]
            start += len(one.items)
