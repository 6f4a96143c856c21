"""Query/Retrieve SCU (PS3.4 Annex C), Study Root: what an archive holds (C-FIND), and having it sent to this node (C-MOVE)."""

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

from alnnode.clients.association import ServiceUser
from alnnode.clients.commitment_scu import SYNTAXES
from alnnode.deliver.cstore import peer_of
from alnnode.errors import DeliveryError, IncompleteSeries, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetdicom.association import Association

    from alnnode.settings import ArchiveDicom

SUCCESS, COMPLETE_WITH_FAILURES = 0x0000, 0xB000
PENDING = frozenset({0xFF00, 0xFF01})
MOST = 1000  # answers to one search
LONGEST = 3600.0  # seconds of one C-MOVE, however often the archive says that it goes on
# PS3.4 tables C.4-1 and C.4-2, PS3.7 Annex C.
FAILURES = {
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0xA700: "it is out of resources",
    0xA701: "it is out of resources",
    0xA702: "it could not send to this node; it must reach the listener",
    0xA801: "it does not know this node's AE title; add it there with host and port of the listener",
    0xA900: "it does not take the question",
    # Orthanc says only this, whatever is wrong.
    0xC000: "it cannot: perhaps it does not know this node's AE title, does not reach the listener, or does not hold the series",
    0xFE00: "it was cancelled there",
}


class Retriever(ServiceUser):
    """Asks one archive of kind "dicom"."""

    def __init__(self, settings: ArchiveDicom, ae_title: str) -> None:
        super().__init__(peer_of(settings), ae_title)
        self._ae_title = ae_title

    def find(self, level: str, stopped: Callable[[], bool] = lambda: False, **keys: str) -> list[dict[str, str]]:
        """Search at a level ("STUDY", "SERIES", "IMAGE"); of each match the values of the asked keywords, empty where there is none.

        ``stopped`` is asked after each answer whether to give up.

        Raises:
            ServiceError: the archive does not answer as it should; the text holds nothing of the patient.
        """
        found: list[dict[str, str]] = []
        status = None
        with self._asking(StudyRootQueryRetrieveInformationModelFind) as association:
            identifier = _identifier(level, keys)
            for answer, match in association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind):
                status = self.status(answer)
                if status in PENDING and match is not None:
                    found.append({keyword: _value(match, keyword) for keyword in keys})
                if status in PENDING and stopped():
                    raise ServiceError(f"archive {self.name}: given up before all matches were here")
                if len(found) > MOST:
                    raise ServiceError(f"archive {self.name}: a search has more than {MOST} matches")
        if status != SUCCESS:
            raise ServiceError(f"archive {self.name}: it answers C-FIND with status {_words(status)}")
        return found

    def move(self, study: str, series: str, stopped: Callable[[], bool] = lambda: False) -> int:
        """Have a series sent to this node's listener; how many objects the archive says that it sent.

        ``stopped`` is asked after each answer whether to give up.

        Raises:
            IncompleteSeries: a part came, or may have.
            ServiceError: nothing came.
        """
        asked = False
        try:
            with self._asking(StudyRootQueryRetrieveInformationModelMove) as association:
                asked = True
                status, sent, failed = self._moved(association, study, series, stopped)
        except ServiceError as error:
            if asked:
                raise IncompleteSeries(str(error)) from error
            raise
        if status == SUCCESS and not failed:
            if not sent:
                raise ServiceError(f"archive {self.name}: it does not hold the series")
            return sent
        how = f"{sent} objects sent, {failed} failed" if sent or failed else "nothing sent"
        kind = IncompleteSeries if sent else ServiceError
        raise kind(f"archive {self.name}: it answers C-MOVE with status {_words(status)}; {how}")

    def _moved(
        self, association: Association, study: str, series: str, stopped: Callable[[], bool]
    ) -> tuple[int | None, int, int]:
        """Return the last status, and how many objects were sent and how many not."""
        sent, failed, status, until = 0, 0, None, time.monotonic() + LONGEST
        identifier = _identifier("SERIES", {"StudyInstanceUID": study, "SeriesInstanceUID": series})
        for answer, _ in association.send_c_move(identifier, self._ae_title, StudyRootQueryRetrieveInformationModelMove):
            status = self.status(answer)
            sent = max(sent, _count(answer, "Completed") + _count(answer, "Warning"))
            failed = max(failed, _count(answer, "Failed"))
            if status in PENDING and (stopped() or time.monotonic() > until):
                raise ServiceError(f"archive {self.name}: given up before the series was here")
        return status, sent, failed

    @contextmanager
    def _asking(self, model: str) -> Iterator[Association]:
        try:
            with self.associate([build_context(model, list(SYNTAXES))]) as association:
                yield association
        except DeliveryError as error:
            raise ServiceError(f"archive {error}") from error
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            raise ServiceError(f"archive {self.name}: the association broke off ({type(error).__name__})") from error


def _identifier(level: str, keys: dict[str, str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def _value(match: Dataset, keyword: str) -> str:
    try:
        return str(match.get(keyword) or "")
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError):  # bytes that are no value
        return ""


def _count(answer: Dataset, which: str) -> int:
    return int(answer.get(f"NumberOf{which}Suboperations") or 0)


def _words(status: int | None) -> str:
    if status == COMPLETE_WITH_FAILURES:
        return "0xB000 (some objects failed)"
    said = FAILURES.get(status or 0)
    return f"0x{status or 0:04X}" + (f" ({said})" if said else "")
