"""Which DT values match a search (PS3.4 C.2.2.2.1 and C.2.2.2.5; PS3.5 6.2): as moments, whatever their offsets from UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# A hyphen begins an offset where four digits up to 1200 follow it, and else divides a range: no study is of the year 1200.
_DT = r"(\d{4}(?:\d\d){0,5})(?:\.(\d{1,6}))?(\+(?:0\d|1[0-4])[0-5]\d|-(?:0\d[0-5]\d|1[01][0-5]\d|1200))?"
_VALUE = re.compile(_DT)
_RANGE = re.compile(rf"(?P<low>{_DT})?(?P<dash>-)?(?P<high>{_DT})?")
_FIRST = "00000101000000"  # month and day of a value that ends with its year, and its time


class Span(NamedTuple):
    """From its first moment to before its last: a value may leave out its seconds, or all after its year."""

    first: datetime
    end: datetime


def matcher(wanted: str) -> Callable[[Any], bool]:
    """Return what says whether a value matches: is within the wanted one, or within the wanted range. Nothing matches what is no DT."""
    asked = _RANGE.fullmatch(wanted.strip())
    if asked is None or not (asked["low"] or asked["high"]):
        return lambda _: False
    low, high = (None if asked[end] is None else span(asked[end]) for end in ("low", "high"))
    if asked["dash"] is None:
        high = low
    if (asked["low"] and low is None) or (asked["high"] and high is None):
        return lambda _: False

    def matches(value: Any) -> bool:
        found = span(str(value))
        return found is not None and (low is None or found.first >= low.first) and (high is None or found.first < high.end)

    return matches


def span(text: str) -> Span | None:
    """Return what a DT stands for; without an offset in this machine's zone; None where it is no DT."""
    parts = _VALUE.fullmatch(text.strip())
    if parts is None:
        return None
    digits, fraction, offset = parts.groups()
    try:
        first = _moment(digits, offset)
        if fraction is not None:
            step = timedelta(microseconds=10 ** (6 - len(fraction)))
            first += int(fraction) * step
            return Span(first, first + step)
        return Span(first, _after(first, digits, offset))
    except (ValueError, OverflowError):
        return None


def _moment(digits: str, offset: str | None) -> datetime:
    """Return the first moment of a DT, in UTC."""
    text, form = digits + _FIRST[len(digits) :], "%Y%m%d%H%M%S"
    at = datetime.strptime(text + offset, f"{form}%z") if offset else datetime.strptime(text, form).astimezone()
    return at.astimezone(UTC)


def _after(first: datetime, digits: str, offset: str | None) -> datetime:
    """Return the first moment that a value of this precision does not hold."""
    steps = {8: timedelta(days=1), 10: timedelta(hours=1), 12: timedelta(minutes=1), 14: timedelta(seconds=1)}
    if len(digits) in steps:
        return first + steps[len(digits)]
    year, month = int(digits[:4]), int(digits[4:6] or 12)
    return _moment(f"{year + month // 12:04d}{month % 12 + 1:02d}" if len(digits) == 6 else f"{year + 1:04d}", offset)
