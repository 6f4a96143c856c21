"""Searches by DT compare times in UTC, for time zones east and west of Greenwich."""

import pytest

from alnnode.dicomweb.matching import Filter, matches

TAG = "00404005"  # Scheduled Procedure Step Start DateTime


def found(value: str, wanted: str) -> bool:
    return matches({TAG: {"vr": "DT", "Value": [value]}}, [Filter((TAG,), "DT", wanted)])


@pytest.mark.parametrize(
    ("value", "wanted", "matching"),
    [
        # A hyphen begins an offset, or separates a range.
        ("20260301100000-0500", "20260301000000-0500-20260301235959-0500", True),
        ("20260302000000-0500", "20260301000000-0500-20260301235959-0500", False),
        ("20260301235959.5-0500", "20260301000000-0500-20260301235959-0500", True),
        ("20260301100000-0500", "20260301100000-0500-", True),
        ("20260301095959-0500", "20260301100000-0500-", False),
        ("20260301100000-0500", "-20260301100000-0500", True),
        ("20260301100001-0500", "-20260301100000-0500", False),
        ("20260301100000-0500", "20260301100000-0500", True),
        ("20260301100000-0400", "20260301100000-0500", False),
        ("20260301100000+0000", "2026-2027", True),
        # The same time with another offset, across midnight.
        ("20260302003000+0900", "20260301150000+0000-20260301160000+0000", True),
        ("20260301230000-0500", "20260302130000+0900", True),
        ("20260301190000-0500", "20260302+0000", True),
        ("20260301185959-0500", "20260302+0000", False),
        ("20260301100000-0330", "20260301133000+0000", True),
        # A value covers the precision that it omits.
        ("20260301101500+0100", "2026030110+0100", True),
        ("20260301110000+0100", "2026030110+0100", False),
        ("20261231235959-0500", "2026-0500", True),
        ("20270101000000-0500", "2026-0500", False),
        ("20260228235959-0500", "202602-0500", True),
        ("20260301000000-0500", "202602-0500", False),
        ("20261231235959-0500", "202612-0500", True),
        ("20260301100000.25+0100", "20260301100000.2+0100", True),
        ("20260301100000.3+0100", "20260301100000.2+0100", False),
        # Values without an offset are in the same time zone.
        ("20260301", "20260301-20260302", True),
        ("202603020900", "20260301-20260302", True),
        ("20260303", "20260301-20260302", False),
        ("20260301", "20260301", True),
        # An invalid DT matches nothing, as a value and as a condition.
        ("20260301", "soon", False),
        ("20260301", "-", False),
        ("20260301", "20261301", False),
        ("20260301", "20260301-20261399", False),
        ("soon", "2026-", False),
    ],
)
def test_dt_ranges_are_compared_in_utc(value: str, wanted: str, matching: bool) -> None:
    assert found(value, wanted) is matching
