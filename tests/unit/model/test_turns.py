"""Threads that share a device get the results of their own items, in one call or in several."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from listening import wait_for

from alnnode.model.turns import Turns


class Work:
    """Squares; holds the device until the test lets it go, and fails on a negative number."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, items) -> list[int]:
        self.calls.append(list(items))
        self.begun.set()
        assert self.go.wait(30)
        if min(items) < 0:
            raise RuntimeError(items)
        return [item * item for item in items]


def run(together: bool, given: list[list[int]]):
    """Let the first thread hold the device until all others wait."""
    work = Work()
    turns = Turns(work, threading.Lock(), together=together)
    with ThreadPoolExecutor(len(given)) as threads:
        futures = [threads.submit(turns, given[0])]
        assert work.begun.wait(30)
        for number, items in enumerate(given[1:], start=1):
            futures.append(threads.submit(turns, items))
            wait_for(lambda number=number: len(turns._waiting) == number)
        work.go.set()
        return work.calls, [future.exception(30) or future.result() for future in futures]


@pytest.mark.parametrize(("together", "calls"), [(True, [[1], [2, 3, 4]]), (False, [[1], [2, 3], [4]])])
def test_what_waits_is_done_together_if_the_device_allows_it(together, calls) -> None:
    made, results = run(together, [[1], [2, 3], [4]])
    assert sorted(made) == calls
    assert results == [[1], [4, 9], [16]]


def test_only_the_thread_whose_items_are_at_fault_fails() -> None:
    made, results = run(True, [[1], [-2], [3], [4]])
    assert [isinstance(one, RuntimeError) for one in results] == [False, True, False, False]
    assert [results[0], *results[2:]] == [[1], [9], [16]]
    assert len(made[1]) == 3
