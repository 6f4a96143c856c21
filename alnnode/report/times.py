"""Date and time of a result, in the offset from UTC of the other dates and times in the object (PS3.3 C.12.1.1.8)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import tzinfo

    from pydicom import Dataset

    from alnnode.records import ReportContext

# From -1200 to +1400; "-0000" is not allowed.
OFFSET = re.compile(r"(?!-0000)([+-])(0\d|1[0-4])([0-5]\d)")
EARLIEST, LATEST = timedelta(hours=-12), timedelta(hours=14)


class Moment(NamedTuple):
    """A date (DA), a time (TM), and their Timezone Offset From UTC; None when it is unknown."""

    date: str
    time: str
    offset: str | None


def date_and_time(day: str, clock: str) -> datetime | None:
    """Return the moment of a DA and a TM (PS3.5 section 6.2), without time zone; None when one is malformed, or the date is missing.

    The minutes and seconds that a time lacks are 0. A fraction of a second is left out.
    """
    day, clock = day.strip(), clock.strip().partition(".")[0]
    # A shorter text would be read as another date: strptime takes "1" and "01" for a month.
    if len(day) != 8 or len(clock) not in {0, 2, 4, 6} or not (day + clock).isdecimal():
        return None
    try:
        return datetime.strptime(day + clock.ljust(6, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007 - a DA and a TM have no zone
    except ValueError:
        return None


def content_moment(dataset: Dataset) -> str:
    """Return the content date and time of an object as "YYYYMMDDhhmmss", in UTC when it has an offset; empty when they are missing."""
    at = date_and_time(str(dataset.get("ContentDate") or ""), str(dataset.get("ContentTime") or ""))
    try:
        return "" if at is None else (at - (_offset_of(dataset) or timedelta())).strftime("%Y%m%d%H%M%S").zfill(14)
    except OverflowError:
        return ""


def moment(header: Dataset, context: ReportContext) -> Moment:
    """Return the moment of the job as the result objects of this source write it.

    The offset is that of the source, else that of the site's time zone on the day of the study, because Study Date and Study Time are copied
    and an object has one offset. When neither is known, the time is in the time zone of this machine, without an offset. A moment without
    time zone is in the time of the source and stays unchanged.
    """
    offset = _offset_of(header)
    if offset is None and context.zone is not None:
        offset = _offset_at(header, context.created, context.zone)
    at = context.created
    if at.tzinfo is not None:
        at = at.astimezone(None if offset is None else timezone(offset))
    return Moment(at.strftime("%Y%m%d"), at.strftime("%H%M%S"), None if offset is None else _spelt(offset))


def _offset_of(header: Dataset) -> timedelta | None:
    """Return the Timezone Offset From UTC of the source; None when it is missing or invalid."""
    found = OFFSET.fullmatch(str(header.get("TimezoneOffsetFromUTC") or "").strip())
    if found is None:
        return None
    sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    offset = -offset if sign == "-" else offset
    return offset if EARLIEST <= offset <= LATEST else None


def _offset_at(header: Dataset, created: datetime, zone: tzinfo) -> timedelta:
    """Return the offset of a zone at the time of the study, in whole minutes; at the time of the job when the study has no date."""
    day, clock = str(header.get("StudyDate") or ""), str(header.get("StudyTime") or "")
    at = (date_and_time(day, clock) if clock else None) or date_and_time(day, "12")
    if at is not None:
        of_study = at.replace(tzinfo=zone)
    else:
        of_study = created.astimezone(zone) if created.tzinfo else created.replace(tzinfo=zone)
    offset = of_study.utcoffset() or timedelta()
    return timedelta(minutes=round(offset.total_seconds() / 60))


def _spelt(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"
