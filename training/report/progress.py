"""Progress bars of the commands."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

console = Console()


@contextmanager
def bars() -> Iterator[Callable[[str, int | None], Callable[[], None]]]:
    """Give a function that adds a bar (name, total) and returns what advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:

        def report(name: str, total: int | None) -> Callable[[], None]:
            return partial(bars.advance, bars.add_task(name, total=total))

        yield report
