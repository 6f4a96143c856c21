"""Numbers with their nouns in the texts for people."""

from __future__ import annotations


def counted(number: int, thing: str, things: str = "") -> str:
    """Return "1 image" or "3 images"; ``things`` is the plural where it does not end in a mere "s"."""
    return f"{number} {thing}" if number == 1 else f"{number} {things or f'{thing}s'}"
