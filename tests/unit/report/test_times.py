"""Dates and times of results: those of the job, in the offset from UTC that the object says it has."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from analyses import CONTEXT, EVERYTHING, analysis, header
from pydicom import Dataset, dcmread

from alnnode import report
from alnnode.errors import SettingsError
from alnnode.report.times import date_and_time, moment
from alnnode.settings import load

TOKYO, NEW_YORK = ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York")
# Every date of the job that a result has, with its time.
PAIRS = (
    ("ContentDate", "ContentTime"),
    ("StructureSetDate", "StructureSetTime"),
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("SeriesDate", "SeriesTime"),
    ("PresentationCreationDate", "PresentationCreationTime"),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)


def results(offset: str | None, created: datetime, zone: ZoneInfo | None = None, study: str = "20260504") -> list[Dataset]:
    source = header()
    source.StudyDate, source.StudyTime = study, "190000"
    if offset is not None:
        source.TimezoneOffsetFromUTC = offset
    context = replace(EVERYTHING, created=created, zone=zone)
    return [dcmread(io.BytesIO(item.data)) for item in report.build(analysis(1, source), context)]


@pytest.mark.parametrize(
    ("offset", "zone", "created", "written"),
    [
        ("+0900", None, datetime(2026, 5, 4, 10, 43, 5, tzinfo=UTC), ("20260504", "194305", "+0900")),
        ("+0900", None, datetime(2026, 5, 4, 15, 30, tzinfo=UTC), ("20260505", "003000", "+0900")),
        ("-0500", None, datetime(2026, 5, 5, 4, 59, 59, tzinfo=UTC), ("20260504", "235959", "-0500")),
        ("-0500", TOKYO, datetime(2026, 5, 5, 5, 0, tzinfo=UTC), ("20260505", "000000", "-0500")),
        ("+0545", None, datetime(2026, 5, 4, 18, 15, tzinfo=UTC), ("20260505", "000000", "+0545")),
        ("+0000", TOKYO, datetime(2026, 5, 4, 23, 59, tzinfo=UTC), ("20260504", "235900", "+0000")),
        (None, TOKYO, datetime(2026, 5, 4, 15, 30, tzinfo=UTC), ("20260505", "003000", "+0900")),
        (None, NEW_YORK, datetime(2026, 5, 5, 3, 59, tzinfo=UTC), ("20260504", "235900", "-0400")),
        # What is no offset is not copied: the offset that is written is the one that was used.
        ("+9", TOKYO, datetime(2026, 5, 4, 15, 30, tzinfo=UTC), ("20260505", "003000", "+0900")),
        ("-0000", TOKYO, datetime(2026, 5, 4, 15, 30, tzinfo=UTC), ("20260505", "003000", "+0900")),
        ("+1430", NEW_YORK, datetime(2026, 5, 5, 3, 59, tzinfo=UTC), ("20260504", "235900", "-0400")),
        # A time without a zone is the source's own.
        ("+0900", None, datetime(2026, 5, 4, 19, 1), ("20260504", "190100", "+0900")),
    ],
)
def test_the_jobs_time_is_written_in_the_offset_that_stands_beside_it(offset, zone, created, written) -> None:
    for item in results(offset, created, zone):
        assert item.get("TimezoneOffsetFromUTC") == written[2]
        found = {pair: (item[pair[0]].value, item[pair[1]].value) for pair in PAIRS if pair[0] in item}
        assert len(found) >= 3
        assert set(found.values()) == {written[:2]}, item.SOPClassUID.name
        assert (item.StudyDate, item.StudyTime) == ("20260504", "190000")


def test_a_winter_study_that_is_analysed_in_summer_keeps_its_winter_offset() -> None:
    for item in results(None, datetime(2026, 7, 1, 4, 30, tzinfo=UTC), NEW_YORK, study="20260104"):
        assert (item.InstanceCreationDate, item.InstanceCreationTime, item.TimezoneOffsetFromUTC) == (
            "20260630",
            "233000",
            "-0500",
        )


@pytest.mark.parametrize(
    ("day", "clock", "offset"),
    [
        ("20261101", "005959", "-0400"),  # the clock is turned back at 2:00
        ("20261101", "03", "-0500"),  # a time without minutes
        ("20261101", "0030", "-0400"),  # a time without seconds
        ("20261101", "", "-0500"),  # most of that day
        ("20261131", "0030", "-0400"),  # no date: the offset of the job's own time
        ("", "", "-0400"),
    ],
)
def test_the_offset_of_the_sites_zone_is_that_of_the_studys_hour(day: str, clock: str, offset: str) -> None:
    source = Dataset()
    source.StudyDate, source.StudyTime = day, clock
    created = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert moment(source, replace(CONTEXT, created=created, zone=NEW_YORK)).offset == offset


@pytest.mark.parametrize("clock", ["03", "1", "+1", "0060"])
def test_a_time_is_never_read_as_part_of_a_date(clock: str) -> None:
    """The digits of "20261001" and "03" are also those of 10 January 2026, 00:00:03 or so."""
    found = date_and_time("20261001", clock)
    assert found in {None, datetime(2026, 10, 1, 3)}


def test_where_nobody_tells_the_offset_none_is_written() -> None:
    created = datetime(2026, 5, 4, 15, 30, tzinfo=UTC)
    there = created.astimezone()
    for item in results(None, created):
        assert "TimezoneOffsetFromUTC" not in item
        assert (item.InstanceCreationDate, item.InstanceCreationTime) == (there.strftime("%Y%m%d"), there.strftime("%H%M%S"))


def test_a_zone_that_does_not_exist_is_named_at_start(tmp_path) -> None:
    file = tmp_path / "config.toml"
    for name in ("Mars/Olympus", "Europe", "../etc/passwd"):
        file.write_text(f'[node]\ntime_zone = "{name}"\n', encoding="utf-8")
        with pytest.raises(SettingsError, match="Europe/Athens"):
            load(file)
    file.write_text('[node]\ntime_zone = "Asia/Tokyo"\n', encoding="utf-8")
    assert load(file).node.zone == TOKYO
