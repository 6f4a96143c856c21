"""Search an archive for the series of one day: by C-FIND (PS3.4 Annex C), or by QIDO-RS (PS3.18 section 10.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alnnode.clients.dicomweb import DicomwebClient, ResponseLimits
from alnnode.clients.query_retrieve import Retriever
from alnnode.db.rows import SeriesFacts
from alnnode.errors import DeliveryError, ServiceError
from alnnode.priors.archive_search import MAX_RESPONSE_BYTES, UID
from alnnode.priors.dicomweb_archive import first_value
from alnnode.receive import routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import date

    from alnnode.clients.dicomweb import DicomwebConnection
    from alnnode.settings import Archive, ArchiveDicom, ArchiveDicomweb, Route

PAGE = 100  # matches that the node asks for at once; QIDO-RS servers limit their responses
STUDY_KEYS = ("StudyInstanceUID", "StudyDescription")
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesDescription", "BodyPartExamined", "NumberOfSeriesRelatedInstances")
TAGS = {
    "StudyInstanceUID": "0020000D",
    "StudyDescription": "00081030",
    "SeriesInstanceUID": "0020000E",
    "Modality": "00080060",
    "SeriesDescription": "0008103E",
    "BodyPartExamined": "00180015",
    "NumberOfSeriesRelatedInstances": "00201209",
}
Match = dict[str, str]


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series of an archive; ``images`` is the number that the archive says it has, None when it does not say so."""

    study_uid: str
    series_uid: str
    images: int | None
    facts: SeriesFacts


class ArchiveSearch:
    """Searches one archive.

    Args:
        archive: settings of the archive.
        ae_title: of this node.
        stopped: the search ends when it returns True.
    """

    def __init__(self, archive: Archive, ae_title: str, stopped: Callable[[], bool]) -> None:
        # The name under which the node receives what this archive sends.
        self._sender = archive.ae_title if archive.kind == "dicom" else archive.name
        self._find = _Dimse(archive, ae_title, stopped).find if archive.kind == "dicom" else _Web(archive).find

    def series_of(self, day: date, modalities: Sequence[str]) -> list[FoundSeries]:
        """Return the series of the studies of a day, of these modalities.

        Raises:
            ServiceError: the archive does not respond as the standard requires; the text holds no patient data.
        """
        found: dict[str, FoundSeries] = {}
        for modality in modalities:
            of_day = {"StudyDate": f"{day:%Y%m%d}", "ModalitiesInStudy": modality}
            for study in self._find("STUDY", of_day, STUDY_KEYS):
                uid = study["StudyInstanceUID"]
                if UID.fullmatch(uid):
                    for series in self._find("SERIES", {"StudyInstanceUID": uid, "Modality": modality}, SERIES_KEYS):
                        if UID.fullmatch(series["SeriesInstanceUID"]) and series["Modality"] == modality:
                            found.setdefault(series["SeriesInstanceUID"], _found(study, series, self._sender))
        return list(found.values())


def _found(study: Match, series: Match, sender: str) -> FoundSeries:
    facts = SeriesFacts(
        calling_ae=sender,
        modality=series["Modality"],
        body_part=series["BodyPartExamined"],
        series_description=series["SeriesDescription"],
        study_description=study["StudyDescription"],
    )
    number = series["NumberOfSeriesRelatedInstances"]
    return FoundSeries(
        study["StudyInstanceUID"], series["SeriesInstanceUID"], int(number) if number.isdecimal() else None, facts
    )


def may_be_wanted(known: Sequence[Route], facts: SeriesFacts) -> bool:
    """Return whether a route may select a series. The archive says neither kernel nor thickness, and rarely the body part."""
    unknown: dict[str, object] = {"kernel": "", "slice_thickness": (0, 100)}
    if not facts.body_part:
        unknown["body_parts"] = ()
    return routes.unwanted([route.model_copy(update=unknown) for route in known], facts) is None


class _Dimse:
    def __init__(self, archive: ArchiveDicom, ae_title: str, stopped: Callable[[], bool]) -> None:
        self._retriever, self._stopped = Retriever(archive, ae_title), stopped

    def find(self, level: str, matching: Mapping[str, str], returned: Sequence[str]) -> list[Match]:
        keys = {**dict.fromkeys(returned, ""), **matching}
        found = self._retriever.find(level, self._stopped, **keys)
        return [{name: match[name] for name in returned} for match in found]


class _Web:
    def __init__(self, archive: ArchiveDicomweb) -> None:
        self._client, self._limits = DicomwebClient(archive), ResponseLimits(MAX_RESPONSE_BYTES)

    def find(self, level: str, matching: Mapping[str, str], returned: Sequence[str]) -> list[Match]:
        resource = "studies" if level == "STUDY" else f"studies/{matching['StudyInstanceUID']}/series"
        query = {name: value for name, value in matching.items() if name != "StudyInstanceUID"}
        try:
            with self._client.connect() as connection:
                return [
                    {name: first_value(item, TAGS[name]) for name in returned}
                    for item in self._pages(connection, resource, {**query, "includefield": ",".join(returned)})
                ]
        except DeliveryError as error:
            raise ServiceError(f"archive {error}") from error

    def _pages(self, connection: DicomwebConnection, resource: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield all matches. A server may send fewer than it is asked for, so only an empty page is the last one."""
        offset, seen = 0, set[str]()
        while True:
            page = connection.search(resource, {**query, "limit": str(PAGE), "offset": str(offset)}, self._limits)
            keys = [first_value(item, "0020000E") or first_value(item, "0020000D") for item in page]
            if not set(keys) - seen:  # also a server that ignores the offset
                return
            yield from (item for item, key in zip(page, keys, strict=True) if key not in seen)
            seen.update(keys)
            offset += len(page)
