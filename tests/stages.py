"""The rows of all stages on one database, without a spool: for tests of the state machine."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import Engine

from alnnode.analyse.claims import ClaimTerms
from alnnode.analyse.jobs import Jobs
from alnnode.analyse.operator_actions import OperatorActions
from alnnode.analyse.study_reports import HeldReports
from alnnode.audit.trail import Trail
from alnnode.db.rows import NewInstance, ResultRow, SeriesFacts
from alnnode.deliver.deliveries import Deliveries
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import ObjectRole
from alnnode.retention.file_retention import FileExpiry, FileRetention
from alnnode.retention.row_retention import RowRetention
from alnnode.settings import Completion, DestinationCStore, Settings

LEASE = timedelta(minutes=1)
TERMS = ClaimTerms(LEASE, 3, "b", "s")
WITH_PACS = Settings(destinations=(DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=104),))


@dataclass
class RecordingSpool:
    """Records the paths that it is asked to delete."""

    deleted: list[str] = field(default_factory=list)

    def path(self, relative: str) -> Path:
        return Path(relative)

    def results(self, job_id: str) -> tuple[str, ...]:
        return ()

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

    def decide(self, now: datetime | None = None, settings: Settings = WITH_PACS) -> tuple[str, ...]:
        """Decide on the reports that are held back; return the jobs whose reports are sent."""
        return HeldReports(self.engine, settings).decide(now)

    def somebody_waits(self) -> bool:
        """Return whether a transaction waits for a lock of another one. SQLite has one writer at a time, and nothing to wait for."""
        if self.engine.dialect.name == "sqlite":
            return True
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with self.engine.connect() as connection:
            return bool(connection.execute(text(query)).scalar_one())

    def receive_series(self, series: str, sender: str = "CT1", at: datetime | None = None, number: int = 1) -> None:
        """Record one image of a series, received now or ``at``."""
        uid = f"{series}.{number}"
        row = NewInstance(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=uid,
            series_uid=series,
            study_uid="1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=f"objects/{uid}",
            sha256=f"{number:064x}",
            size=1000,
            received_at=at or datetime.now(UTC),
            facts=SeriesFacts(calling_ae=sender, modality="CT"),
        )
        self.received.record_instances([row])

    def ready_job(self, series: str, sender: str = "CT1", at: datetime | None = None, **options) -> str:
        """Return the id of the job of a series that is complete."""
        self.receive_series(series, sender, at)
        later = (at or datetime.now(UTC)) + timedelta(minutes=2)
        (job_id,) = self.received.complete_due(Completion(), lambda _: None, later, **options)
        return job_id

    def fail(self, job_id: str, reason: str = "not enough memory for this series") -> str:
        """Claim a job, and fail it now; return its id."""
        assert self.jobs.fail(self.jobs.claim(job_id, TERMS), reason)
        return job_id

    def delivery(self, job_id: str, destination: str = "pacs") -> str:
        """Claim the most urgent job, and end its analysis with a report for a destination; return the id of the delivery."""
        row = ResultRow(0, ObjectRole.SR, "1.2.3", f"2.25.{job_id}"[:64], "2.25.9", "1.2", "1.2.1", "0" * 64, "outbox/x")
        claim = self.jobs.claim(job_id, TERMS)
        assert self.jobs.analysed(claim, [row], {destination: {"sr"}})
        return self.jobs.get(claim.job_id).deliveries[0].delivery_id
