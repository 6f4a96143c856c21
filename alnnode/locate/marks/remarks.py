"""Remarks on marks: one for all marks of which the same is said, because another program may have marked twenty lung nodules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alnnode.records import Mark


class Remarks:
    """Remarks in the order of their first occurrence.

    Args:
        texts: remarks on whole objects.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._numbers: dict[str, set[int]] = {text: set() for text in texts}

    def add(self, mark: Mark, text: str) -> None:
        """Say something of a mark. The remark names its number, and not its label, which may hold a patient's name."""
        self._numbers.setdefault(text, set()).add(mark.number)

    def texts(self) -> tuple[str, ...]:
        """Return each remark once, with the numbers of its marks."""
        return tuple(f"{_named(sorted(numbers))} {text}" if numbers else text for text, numbers in self._numbers.items())


def _named(numbers: Sequence[int]) -> str:
    return f"each of the marks {_listed(numbers)}" if len(numbers) > 1 else f"mark {numbers[0]} of its object"


def _listed(numbers: Sequence[int]) -> str:
    """Return "1", "1, 4" or "2 to 9"."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))
