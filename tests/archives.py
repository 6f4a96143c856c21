"""An archive with C-FIND and C-MOVE, for backfills."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydicom import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Archive:
    """An archive that answers C-FIND and C-MOVE, and records the requests.

    Attributes:
        images: what it holds; more may be added.
        go_on: while cleared, it sends no more than one image of a series.
        refuses: whether it sends nothing.
    """

    def __init__(self, node_port: int, images: Sequence[Dataset]) -> None:
        self.images = list(images)
        self.node_port, self.searched, self.moved = node_port, [], []
        self.go_on, self.refuses = threading.Event(), False
        self.go_on.set()

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """Answer a C-FIND for the studies of a day, or the series of a study."""
        asked = event.identifier
        self.searched.append((asked.QueryRetrieveLevel, asked.get("StudyDate") or asked.StudyInstanceUID))
        seen = set()
        for one in self.images:
            study = asked.QueryRetrieveLevel == "STUDY"
            key = one.StudyInstanceUID if study else one.SeriesInstanceUID
            matches = one.StudyDate == asked.StudyDate if study else one.StudyInstanceUID == asked.StudyInstanceUID
            if matches and key not in seen:
                seen.add(key)
                found, count = Dataset(), sum(other.SeriesInstanceUID == one.SeriesInstanceUID for other in self.images)
                for element in asked:
                    value = getattr(one, element.keyword, "") if element.keyword != "NumberOfSeriesRelatedInstances" else count
                    setattr(found, element.keyword, value)
                yield 0xFF00, found
        yield 0x0000, None

    def move(self, event: evt.Event) -> Iterator[object]:
        """Send a series to the node."""
        self.moved.append(event.identifier.SeriesInstanceUID)
        yield "127.0.0.1", self.node_port
        of_series = [one for one in self.images if one.SeriesInstanceUID == event.identifier.SeriesInstanceUID]
        yield len(of_series)
        if self.refuses:
            yield 0xC001, None
            return
        for number, one in enumerate(of_series):
            if number == 1:
                self.go_on.wait(60)
            yield 0xFF00, one


@contextmanager
def archive(node_port: int, images: Sequence[Dataset]) -> Iterator[Archive]:
    """Run an archive that sends to the node at a port of this host."""
    found = Archive(node_port, images)
    entity = AE("PACS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    entity.requested_contexts = [build_context(CTImageStorage)]
    handlers = [(evt.EVT_C_FIND, found.find), (evt.EVT_C_MOVE, found.move)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    found.port = server.socket.getsockname()[1]
    try:
        yield found
    finally:
        found.go_on.set()
        server.shutdown()
