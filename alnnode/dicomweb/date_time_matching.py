"""Match DT values in searches (PS3.4 C.2.2.2.1 and C.2.2.2.5; PS3.5 section 6.2). Values are compared in UTC, whatever their offsets."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# A hyphen begins an offset if four digits up to 1200 follow it, and otherwise separates a range: no study is from the year 1200.
_DT = r"(\d{4}(?:\d\d){0,5})(?:\.(\d{1,6}))?(\+(?:0\d|1[0-4])[0-5]\d|-(?:0\d[0-5]\d|1[01][0-5]\d|1200))?"
_VALUE = re.compile(_DT)
_RANGE = re.compile(rf"(?P<low>{_DT})?(?P<dash>-)?(?P<high>{_DT})?")
_FIRST = "00000101000000"  # month and day of a value that ends with its year, and its time


class TimeSpan(NamedTuple):
    """The time that a DT value covers, ``end`` excluded: a value may omit its seconds, or everything after its year."""

    first: datetime
    end: datetime


def matcher(wanted: str) -> Callable[[Any], bool]:
    """Return a function that tells whether a value lies within the wanted value or range; if that is not a valid DT, no value matches."""
    parsed = _RANGE.fullmatch(wanted.strip())
    if parsed is None or not (parsed["low"] or parsed["high"]):
        return lambda _: False
    low, high = (None if parsed[end] is None else time_span(parsed[end]) for end in ("low", "high"))
    if parsed["dash"] is None:
        high = low
    if (parsed["low"] and low is None) or (parsed["high"] and high is None):
        return lambda _: False

    def matches(value: Any) -> bool:
        found = time_span(str(value))
        return found is not None and (low is None or found.first >= low.first) and (high is None or found.first < high.end)

    return matches


def time_span(text: str) -> TimeSpan | None:
    """Return the time that a DT value covers; None if it is not valid. A value without an offset is in the time zone of this host."""
    parts = _VALUE.fullmatch(text.strip())
    if parts is None:
        return None
    digits, fraction, offset = parts.groups()
    try:
        first = _start(digits, offset)
        if fraction is not None:
            step = timedelta(microseconds=10 ** (6 - len(fraction)))
            first += int(fraction) * step
            return TimeSpan(first, first + step)
        return TimeSpan(first, _end(first, digits, offset))
    except (ValueError, OverflowError):
        return None


def _start(digits: str, offset: str | None) -> datetime:
    """Return the start of the time that a DT value covers, in UTC."""
    text, form = digits + _FIRST[len(digits) :], "%Y%m%d%H%M%S"
    at = datetime.strptime(text + offset, f"{form}%z") if offset else datetime.strptime(text, form).astimezone()
    return at.astimezone(UTC)


def _end(first: datetime, digits: str, offset: str | None) -> datetime:
    """Return the end of the time that a DT value of this precision covers, in UTC."""
    steps = {8: timedelta(days=1), 10: timedelta(hours=1), 12: timedelta(minutes=1), 14: timedelta(seconds=1)}
    if len(digits) in steps:
        return first + steps[len(digits)]
    year, month = int(digits[:4]), int(digits[4:6] or 12)
    return _start(f"{year + month // 12:04d}{month % 12 + 1:02d}" if len(digits) == 6 else f"{year + 1:04d}", offset)
