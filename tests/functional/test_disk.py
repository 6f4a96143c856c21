"""A disk that fills: images are refused before it is full, and files are deleted in the right order; on a real small file system."""

import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import dicom_objects
import pytest
from chaos.rig import Disk
from sqlalchemy import update
from stages import TERMS

from alnnode.analyse.jobs import Jobs
from alnnode.audit.trail import Trail
from alnnode.db import engine, schema
from alnnode.db.tables import Job
from alnnode.errors import RejectedObject
from alnnode.node.sweep import Sweep
from alnnode.receive.acceptor import Acceptor, StoreRequest
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState
from alnnode.settings import Node, Retention, Settings
from alnnode.spool.spool import ORPHAN_AGE, Spool

SIDE = 1024  # 2 MiB an image


class Nobody:
    """A broker that loses every message."""

    def enqueue_analysis(self, _: str) -> None: ...
    def enqueue_delivery(self, _: str) -> None: ...


@pytest.fixture
def small(tmp_path):
    disk = Disk(tmp_path / "disk", 64)
    if not disk.small:
        pytest.skip("only root can mount a small file system")
    yield disk.folder
    disk.close()


def test_a_filling_disk_is_cleaned_of_delivered_series_oldest_first_and_refuses_in_time(small, tmp_path) -> None:
    settings = Settings(
        node=Node(data_dir=small),
        database={"url": f"sqlite:///{tmp_path / 'node.db'}"},
        retention=Retention(min_free_mb=16, clean_below_mb=18),
    )
    schema.migrate(settings.database_url)
    database = engine.create(settings.database_url)
    jobs, received, spool = Jobs(database), ReceivedSeries(database), Spool(small / "spool")
    acceptor, sweep = Acceptor(settings, received, spool), Sweep(settings, database, spool, Nobody(), Trail(settings))
    orphan, young = small / "spool/incoming/killed.tmp", small / "spool/incoming/writing.tmp"
    for path in (orphan, young):
        path.write_bytes(b"x")
    os.utime(orphan, (0, time.time() - ORPHAN_AGE - 1))
    images = [dicom_objects.ct(1, series=f"1.2.3.{n}", side=SIDE) for n in range(40)]
    images[8].SeriesDescription = "scout"
    series: list[str] = []
    contents = [dicom_objects.data_set(image) for image in images]
    with pytest.raises(RejectedObject) as refusal:
        series.extend(acceptor.store(content, StoreRequest("1.2.840.10008.1.2.1", "CT1")).series_uid for content in contents)
    assert refusal.value.status == 0xA700
    assert shutil.disk_usage(small).free > 15 << 20, "refused too late"
    acceptor.close()
    ids = {job.series_uid: job.job_id for job in jobs.list()}
    # One is skipped, the others are delivered in another order than received; one failed, the rest waits.
    chosen = [3, 1, 7, 0, 9, 2, 11, 12, 13, 14, 15, 16]
    past = datetime.now(UTC) + timedelta(days=1)  # beyond the quiet period
    received.complete_due(settings.completion, lambda facts: "no route" if facts.series_description == "scout" else None, past)
    with engine.for_writing(database).begin() as connection:
        connection.execute(update(Job).where(Job.state == JobState.SKIPPED).values(finished_at=past - timedelta(days=2)))
    # A message of the broker lets a worker claim whichever job is the most urgent, so all are claimed.
    claims = {}
    while claim := jobs.claim(ids[series[0]], TERMS, past):
        claims[claim.job_id] = claim
    for order, number in enumerate((*chosen, 5)):
        claim, at = claims.pop(ids[series[number]]), past + timedelta(seconds=order)
        if number == 5:
            jobs.fail(claim, "no", at - timedelta(days=3))
        else:
            jobs.analysed(claim, [], {}, now=at - timedelta(days=2))
    for claim in claims.values():
        jobs.postpone(claim, past)
    assert jobs.counts()[JobState.DELIVERED] == len(chosen)
    sweep.once()
    purged = [n for n in range(len(series)) if jobs.get(ids[series[n]]).purged_at is not None]
    assert 36 <= spool.free_mb() <= 40, "it did not stop at the low watermark"
    first = [8, *chosen]  # a skipped series before all delivered ones
    assert purged == sorted(first[: len(purged)]), "SKIPPED first, then the oldest that was delivered"
    assert 1 < len(purged) < len(first)
    kept = {path.name for path in (small / "spool/objects").rglob("*.dcm")}
    assert len(kept) == len(series) - len(purged)
    assert (orphan.exists(), young.exists()) == (False, True)
    acceptor = Acceptor(settings, received, spool)
    assert acceptor.store(dicom_objects.data_set(images[-1]), StoreRequest("1.2.840.10008.1.2.1", "CT1"))
    acceptor.close()
