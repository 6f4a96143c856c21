"""Read the input series from the data set of a workitem."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from alnnode.errors import AlnnodeError
from alnnode.receive.header import valid_uid
from alnnode.worklist import ups

if TYPE_CHECKING:
    from alnnode.worklist.ups import Json


class NoInputError(AlnnodeError):
    """The input of a workitem is not available; the text is for the requester."""


class InputSeries(NamedTuple):
    """A series, and where the requester says that it is: Retrieve URLs and Retrieve AE Titles, both empty if not stated."""

    study: str
    series: str
    urls: tuple[str, ...] = ()
    ae_titles: tuple[str, ...] = ()


def input_series(document: Json) -> InputSeries:
    """Return the series that the Input Information Sequence names.

    Raises:
        NoInputError: the sequence does not name exactly one series.
    """
    inputs = ups.items(document, ups.INPUT)
    found = {(ups.value(item, "0020000D"), ups.value(item, "0020000E")) for item in inputs}
    if len(found) != 1:
        raise NoInputError("the Input Information Sequence must name exactly one series")
    ((study, series),) = found
    if not (valid_uid(study) and valid_uid(series)):
        raise NoInputError("the Input Information Sequence has no valid Study and Series Instance UID")

    def locations(sequence: str, key: str) -> tuple[str, ...]:
        items = [location for item in inputs for location in ups.items(item, ups.tag(sequence))]
        return tuple(text for item in items for given in ups.values(item, key) if (text := str(given or "").strip()))

    return InputSeries(
        study, series, locations("WADORSRetrievalSequence", "00081190"), locations("DICOMRetrievalSequence", "00080054")
    )
