"""The rows of all stages on one database, without a spool: for tests of the state machine."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from sqlalchemy.engine import Engine

from alnnode.analyse.claims import ClaimTerms
from alnnode.analyse.jobs import Jobs
from alnnode.analyse.operator_actions import OperatorActions
from alnnode.audit.trail import Trail
from alnnode.deliver.deliveries import Deliveries
from alnnode.receive.received_series import ReceivedSeries
from alnnode.retention.file_retention import FileExpiry, FileRetention
from alnnode.retention.row_retention import RowRetention
from alnnode.settings import Settings

LEASE = timedelta(minutes=1)
TERMS = ClaimTerms(LEASE, 3, "b", "s")


@dataclass
class RecordingSpool:
    """Records the paths that it is asked to delete."""

    deleted: list[str] = field(default_factory=list)

    def path(self, relative: str) -> Path:
        return Path(relative)

    def delete(self, relatives) -> None:
        self.deleted.extend(relatives)


class Stages:
    """What receives, analyses, delivers and deletes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.received, self.jobs, self.deliveries = ReceivedSeries(engine), Jobs(engine), Deliveries(engine)
        self.operator, self.rows, self.spool = OperatorActions(engine), RowRetention(engine), RecordingSpool()
        self.files = FileRetention(engine, self.spool, Trail(Settings()))

    def delete_files(self, delivered_before, ended_before, now=None) -> int:
        """Delete the files of series that were delivered, or that ended otherwise, before these times."""
        return self.files.delete_expired(FileExpiry(delivered_before, ended_before, ended_before), now)

    def reset_future_times(self, longest_waits, now) -> int:
        return self.jobs.reset_future_times(now) + self.deliveries.reset_future_times(longest_waits, now)
