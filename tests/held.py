"""A node without workers that holds a received series, and results in the outbox."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from listening import wait_for
from web_service import stow

from alnnode.analyse.claims import ClaimTerms
from alnnode.db.rows import ResultRow
from alnnode.model import bundle
from alnnode.receive.received_series import ReceivedSeries
from alnnode.settings import Completion


def received(opened, client, files):
    """Store a series by STOW-RS; return its job id."""
    before = {job.job_id for job in opened.jobs.list()}
    for start in range(0, len(files), 50):
        assert stow(client, *files[start : start + 50]).status_code == 200
    (job,) = wait_for(lambda: [job for job in opened.jobs.list() if job.job_id not in before])
    wait_for(lambda: opened.jobs.get(job.job_id).instances == len(files))
    return job.job_id


def ready(opened, job_id, changed=None):
    """Complete the series, and claim its job as a worker does."""
    later = datetime.now(UTC) + timedelta(hours=1)
    assert job_id in ReceivedSeries(opened.engine).complete_due(Completion(), lambda _: None, now=later)
    digests = {"bundle_digest": bundle.digest(bundle.resolve("demo")), "settings_digest": opened.settings.result_digest}
    return opened.jobs.claim(job_id, ClaimTerms(timedelta(minutes=5), 3, **digests | (changed or {})))


def analysed(opened, job_id, objects, destinations=None, **changed):
    """Write results to the outbox, as a worker does."""
    claim = ready(opened, job_id, changed)
    rows = [
        ResultRow(
            number, item.role, item.sop_class_uid, item.sop_instance_uid, item.series_instance_uid, item.study_instance_uid,
            item.transfer_syntax_uid, sha256(item.data).hexdigest(), opened.spool.put_result(job_id, item.sop_instance_uid, item.data),
        )
        for number, item in enumerate(objects)
    ]  # fmt: skip
    assert opened.jobs.analysed(claim, rows, destinations or {})
