"""A disk that fills up: refused before it is full, cleaned of what was delivered and of nothing else; a real small file system."""

import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import dicom_objects
import pytest
from chaos.rig import Disk

from alnnode.analyse.jobs import Jobs
from alnnode.db import engine, schema
from alnnode.errors import RejectedObject
from alnnode.receive.acceptor import Acceptor
from alnnode.receive.commitment_requests import Requests
from alnnode.receive.sweep import Sweep
from alnnode.records import JobState
from alnnode.settings import Node, Retention, Settings
from alnnode.spool.spool import ORPHAN_AGE, Spool

SIDE = 1024  # 2 MiB an image
LEASE = timedelta(minutes=1)


class Nobody:
    """A broker that forgets everything."""

    def analyse(self, _: str) -> None: ...
    def deliver(self, _: str) -> None: ...


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
    jobs, spool = Jobs(database), Spool(small / "spool")
    acceptor, sweep = Acceptor(settings, jobs, spool), Sweep(settings, jobs, Requests(database), spool, Nobody())
    orphan, young = small / "spool/incoming/killed.tmp", small / "spool/incoming/writing.tmp"
    for path in (orphan, young):
        path.write_bytes(b"x")
    os.utime(orphan, (0, time.time() - ORPHAN_AGE - 1))
    images = [dicom_objects.ct(1, series=f"1.2.3.{n}", side=SIDE) for n in range(40)]
    series: list[str] = []
    contents = [dicom_objects.data_set(image) for image in images]
    with pytest.raises(RejectedObject) as refusal:
        series.extend(acceptor.accept(content, "1.2.840.10008.1.2.1", "CT1") for content in contents)
    assert refusal.value.status == 0xA700
    assert shutil.disk_usage(small).free > 15 << 20, "refused too late"
    acceptor.close()
    ids = {job.series_uid: job.job_id for job in jobs.list()}
    # Delivered in another order than received; one failed, the others wait.
    chosen = [3, 1, 7, 0, 9, 2, 11, 12, 13, 14, 15, 16]
    past = datetime.now(UTC) + timedelta(days=1)  # beyond the quiet period
    jobs.complete_due(settings.completion, lambda _: None, past)
    for order, number in enumerate((*chosen, 5)):
        job, at = ids[series[number]], past + timedelta(seconds=order)
        claim = jobs.claim(job, LEASE, 3, at, bundle_digest="b" * 64, settings_digest="s" * 64)
        if number == 5:
            jobs.fail(job, claim.attempt, "no", at - timedelta(days=3))
        else:
            jobs.analysed(job, claim.attempt, [], {}, now=at - timedelta(days=2))
    assert jobs.counts()[JobState.DELIVERED] == len(chosen)
    sweep.once()
    purged = [n for n in range(len(series)) if jobs.get(ids[series[n]]).purged_at is not None]
    assert 36 <= spool.free_mb() <= 40, "it deletes until the low watermark and no further"
    assert purged == sorted(chosen[: len(purged)]), "oldest delivered first"
    assert 0 < len(purged) < len(chosen)
    kept = {path.name for path in (small / "spool/objects").rglob("*.dcm")}
    assert len(kept) == len(series) - len(purged)
    assert (orphan.exists(), young.exists()) == (False, True)
    acceptor = Acceptor(settings, jobs, spool)
    assert acceptor.accept(dicom_objects.data_set(images[-1]), "1.2.840.10008.1.2.1", "CT1")
    acceptor.close()
