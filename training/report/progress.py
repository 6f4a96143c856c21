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
def progress_bars() -> Iterator[Callable[[str, int | None], Callable[[], None]]]:
    """Yield a function that adds a bar (name, total) and returns a function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as shown:

        def report(name: str, total: int | None) -> Callable[[], None]:
            return partial(shown.advance, shown.add_task(name, total=total))

        yield report
