"""Query/Retrieve SCU (PS3.4 Annex C), Study Root: search an archive (C-FIND), and have it send a series to this node (C-MOVE)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from alnnode.clients.association import ServiceUser, peer_of
from alnnode.clients.commitment_scu import SYNTAXES
from alnnode.counted import counted
from alnnode.errors import DeliveryError, IncompleteSeries, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetdicom.association import Association

    from alnnode.settings import ArchiveDicom

SUCCESS, COMPLETE_WITH_FAILURES = 0x0000, 0xB000
PENDING = frozenset({0xFF00, 0xFF01})
MOST = 1000  # matches of one search
LONGEST = 3600.0  # seconds of one C-MOVE, however many pending responses the archive sends
# PS3.4 tables C.4-1 and C.4-2, PS3.7 Annex C.
FAILURES = {
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0xA700: "the archive is out of resources",
    0xA701: "the archive is out of resources",
    0xA702: "the archive could not send to this node; it must reach the listener",
    0xA801: "the archive does not know this node's AE title; add it there with host and port of the listener",
    0xA900: "the archive does not accept the identifier of the request",
    # Orthanc returns this status for every failure.
    0xC000: "perhaps the archive does not know this node's AE title, does not reach the listener, or does not hold the series",
    0xFE00: "the archive cancelled the operation",
}


class Retriever(ServiceUser):
    """Searches one archive of kind "dicom", and has it send series to this node."""

    def __init__(self, settings: ArchiveDicom, ae_title: str) -> None:
        super().__init__(peer_of(settings), ae_title)
        self._ae_title = ae_title

    def find(self, level: str, stopped: Callable[[], bool] = lambda: False, **keys: str) -> list[dict[str, str]]:
        """Search with C-FIND.

        Args:
            level: "STUDY", "SERIES" or "IMAGE".
            stopped: called after each response; the search ends when it returns True.
            keys: value to match of each keyword, empty for any value.

        Returns:
            Of each match the values of these keywords, empty where the match has none.

        Raises:
            ServiceError: the archive does not respond as the standard requires; the text holds no patient data.
        """
        found: list[dict[str, str]] = []
        status = None
        with self._associated(StudyRootQueryRetrieveInformationModelFind) as association:
            identifier = _identifier(level, keys)
            for response, match in association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind):
                status = self.status(response)
                if status in PENDING and match is not None:
                    found.append({keyword: _value(match, keyword) for keyword in keys})
                if status in PENDING and stopped():
                    raise ServiceError(f"archive {self.name}: the node stopped the search before all matches arrived")
                if len(found) > MOST:
                    raise ServiceError(f"archive {self.name}: the search has more than {MOST} matches")
        if status != SUCCESS:
            raise ServiceError(f"archive {self.name}: the response to C-FIND has status {_described(status)}")
        return found

    def move(self, study: str, series: str, stopped: Callable[[], bool] = lambda: False) -> int:
        """Have the archive send a series to this node's listener (C-MOVE); return how many objects the archive says it sent.

        ``stopped`` is called after each response; the C-MOVE ends when it returns True.

        Raises:
            IncompleteSeries: a part of the series came, or may have come.
            ServiceError: no object came.
        """
        requested = False
        try:
            with self._associated(StudyRootQueryRetrieveInformationModelMove) as association:
                requested = True
                status, sent, failed = self._moved(association, study, series, stopped)
        except ServiceError as error:
            if requested:
                raise IncompleteSeries(str(error)) from error
            raise
        if status == SUCCESS and not failed:
            if not sent:
                raise ServiceError(f"archive {self.name}: the archive does not hold the series")
            return sent
        how = f"{counted(sent, 'object')} sent, {failed} failed" if sent or failed else "nothing sent"
        kind = IncompleteSeries if sent else ServiceError
        raise kind(f"archive {self.name}: the response to C-MOVE has status {_described(status)}; {how}")

    def _moved(
        self, association: Association, study: str, series: str, stopped: Callable[[], bool]
    ) -> tuple[int | None, int, int]:
        """Return the last status, how many objects were sent, and how many failed."""
        sent, failed, status, until = 0, 0, None, time.monotonic() + LONGEST
        identifier = _identifier("SERIES", {"StudyInstanceUID": study, "SeriesInstanceUID": series})
        for response, _ in association.send_c_move(identifier, self._ae_title, StudyRootQueryRetrieveInformationModelMove):
            status = self.status(response)
            sent = max(sent, _count(response, "Completed") + _count(response, "Warning"))
            failed = max(failed, _count(response, "Failed"))
            if status in PENDING and (stopped() or time.monotonic() > until):
                raise ServiceError(f"archive {self.name}: the node stopped the C-MOVE before the series arrived")
        return status, sent, failed

    @contextmanager
    def _associated(self, model: str) -> Iterator[Association]:
        try:
            with self.associate([build_context(model, list(SYNTAXES))]) as association:
                yield association
        except DeliveryError as error:
            raise ServiceError(f"archive {self.name}: {error}") from error
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            raise ServiceError(f"archive {self.name}: the association was lost ({type(error).__name__})") from error


def _identifier(level: str, keys: dict[str, str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def _value(match: Dataset, keyword: str) -> str:
    try:
        return str(match.get(keyword) or "")
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError):  # the bytes do not decode
        return ""


def _count(response: Dataset, which: str) -> int:
    return int(response.get(f"NumberOf{which}Suboperations") or 0)


def _described(status: int | None) -> str:
    if status == COMPLETE_WITH_FAILURES:
        return "0xB000 (some objects failed)"
    meaning = FAILURES.get(status or 0)
    return f"0x{status or 0:04X}" + (f" ({meaning})" if meaning else "")
