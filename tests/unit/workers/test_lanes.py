"""No destination waits for another, and every delivery that is passed to a lane is made."""

import threading

import pytest

from workers.lanes import Lanes


def test_a_lane_that_hangs_holds_one_thread_and_no_other_lane() -> None:
    lanes, entered, release, done = Lanes(), threading.Event(), threading.Event(), []

    def hang(item: str) -> None:
        entered.set()
        assert release.wait(10)
        done.append(item)

    first = threading.Thread(target=lanes.run, args=("down", "a", hang))
    first.start()
    assert entered.wait(10)
    lanes.run("down", "b", hang)  # returns at once, or this test hangs
    lanes.run("down", "b", hang)  # a duplicate task
    lanes.run("up", "c", done.append)
    assert done == ["c"]
    release.set()
    first.join(10)
    assert done == ["c", "a", "b"]


def test_a_lane_is_free_again_after_work_and_after_an_error() -> None:
    lanes, done = Lanes(), []
    lanes.run("x", "1", done.append)

    def fail(item: str) -> None:
        raise RuntimeError(item)

    with pytest.raises(RuntimeError):
        lanes.run("x", "2", fail)
    lanes.run("x", "3", done.append)
    assert done == ["1", "3"]


def test_every_item_of_many_threads_is_worked_on_alone() -> None:
    lanes, done, inside = Lanes(), [], threading.Lock()

    def work(item: str) -> None:
        assert inside.acquire(blocking=False), "two items at the same time on one lane"
        done.append(item)
        inside.release()

    items = [str(number) for number in range(200)]
    threads = [threading.Thread(target=lanes.run, args=("x", item, work)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(done) == sorted(items)
