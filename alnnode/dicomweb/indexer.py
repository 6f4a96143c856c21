"""Index the attributes of new series in the background, so that the first search over a new series is as fast as the second."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from datetime import datetime

    from alnnode.dicomweb.attribute_index import AttributeIndex
    from alnnode.dicomweb.catalogue import Catalogue, StoredSeries

INTERVAL = 5.0  # seconds between two passes
IDLE_RATIO = 2.0  # idle time after each series, relative to its working time: receiving and responding have priority

log = structlog.get_logger()


class Indexer:
    """Runs in a thread of its own. A search reads what the indexer could not read."""

    def __init__(self, catalogue: Catalogue, attributes: AttributeIndex) -> None:
        self._catalogue, self._attributes = catalogue, attributes
        self._indexed: dict[str, datetime] = {}  # by series: when its last indexed object was stored
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; this waits for the series that it indexes at the moment."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL):
            try:
                self.once()
            except (SQLAlchemyError, OSError) as error:
                log.warning("indexing_failed", error=type(error).__name__)  # the message may contain UIDs

    def once(self) -> None:
        """Index every series that is new or has new objects, the most recent first."""
        stored = self._catalogue.series()
        self._attributes.series_attributes(stored)
        current = {series.series_uid for series in stored}
        for series in stored:
            if self._indexed.get(series.series_uid) == series.stored_at:
                continue
            begun = time.monotonic()
            if series.series_uid in self._indexed or not self._is_in_index_file(series):
                self._attributes.instance_attributes(self._catalogue.instances(series=[series.series_uid]))
            self._indexed[series.series_uid] = series.stored_at
            if self._closed.wait((time.monotonic() - begun) * IDLE_RATIO):
                return
        self._indexed = {uid: stored_at for uid, stored_at in self._indexed.items() if uid in current}

    def _is_in_index_file(self, series: StoredSeries) -> bool:
        """Return whether an earlier process indexed a series: reading all index files at a restart would slow down the first searches."""
        return self._attributes.indexed_instances(series) >= self._catalogue.counts([series.series_uid]).get(
            series.series_uid, 0
        )
