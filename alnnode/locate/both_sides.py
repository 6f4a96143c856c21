"""Work on both axillae at the same time: the filters of SciPy release the GIL, so that both together take little longer than one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


def on_both_sides(work: Callable[[T], R], sides: Sequence[T]) -> list[R]:
    """Return the results for none, one or two sides, in order; raise what ``work`` raises.

    This thread works on the first side itself, so that the memory that it has freed is used again: malloc gives each other thread memory of
    its own.
    """
    with ThreadPoolExecutor(1) as thread:
        other = thread.map(work, sides[1:])
        return [*map(work, sides[:1]), *other]
