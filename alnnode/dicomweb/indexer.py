"""Reads the attributes of what came in before anybody searches for it: the first search over a new series is then as fast as the second."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from datetime import datetime

    from alnnode.dicomweb.attribute_index import Attributes
    from alnnode.dicomweb.catalogue import Catalogue, HeldSeries

PAUSE = 5.0  # seconds between two looks
SHARE = 2.0  # it rests this many times as long as it works: receiving and answering come first

log = structlog.get_logger()


class Indexer:
    """A thread. What it cannot read now it reads with the next search."""

    def __init__(self, catalogue: Catalogue, attributes: Attributes) -> None:
        self._catalogue, self._attributes = catalogue, attributes
        self._seen: dict[str, datetime] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End within a series."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(PAUSE):
            try:
                self.once()
            except (SQLAlchemyError, OSError) as error:
                log.warning("indexing_failed", error=type(error).__name__)  # paths and parameters hold UIDs

    def once(self) -> None:
        """Read every series that is new, or got new objects, the newest first."""
        held = self._catalogue.series()
        self._attributes.of_series(held)
        current = {series.series_uid: series.at for series in held}
        for series in held:
            if self._seen.get(series.series_uid) == series.at:
                continue
            begun = time.monotonic()
            if series.series_uid in self._seen or not self._is_noted(series):
                self._attributes.of_instances(self._catalogue.instances(series=[series.series_uid]))
            self._seen[series.series_uid] = series.at
            if self._closed.wait((time.monotonic() - begun) * SHARE):
                return
        self._seen = {uid: at for uid, at in self._seen.items() if uid in current}

    def _is_noted(self, series: HeldSeries) -> bool:
        """Whether an earlier process read a series: after a restart, reading all notes again would only slow down the first searches."""
        return self._attributes.noted(series) >= self._catalogue.counts([series.series_uid]).get(series.series_uid, 0)
