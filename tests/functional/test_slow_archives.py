"""Slow and silent archives: the search for prior reports ends within its time limit, and the analysis continues."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from analyses import header
from dicom_objects import ct, data_set
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove

from alnnode import RESULTS
from alnnode.db import engine, schema
from alnnode.db.rows import NewInstance, SeriesFacts
from alnnode.priors import lookup
from alnnode.receive import file_meta
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState
from alnnode.records.comparison import Earlier
from alnnode.settings import ArchiveDicom, ArchiveDicomweb, Node, Report, Settings
from workers import analysing
from workers.runtime import Runtime

TODAY = header()
TODAY.StudyInstanceUID, TODAY.StudyDate = "2.25.555", "20260901"
BOUND = 1.5  # seconds


@contextmanager
def http(*pieces: bytes, every: float = 0.05) -> Iterator[str]:
    """Accept connections and send these pieces to each, again and again; without pieces, send nothing."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            while not ended.wait(every):
                for piece in pieces:
                    try:
                        connection.sendall(piece)
                    except OSError:
                        return
                    pieces and ended.wait(every)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while not ended.is_set():
                try:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/dicom-web"
        ended.set()


@contextmanager
def pacs(*, endless: str) -> Iterator[int]:
    """Yield the port of an archive with one report, whose C-FIND or C-MOVE sends pending responses without end."""
    asked: list[float] = []
    ended, keys = threading.Event(), {"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2", "SOPInstanceUID": "2.25.3"}
    keys |= {"StudyDate": "20250101", "Modality": "SR", "SeriesDescription": f"{RESULTS[0]} 4: report"}
    sink = AE("SINK")
    sink.add_supported_context(ComprehensiveSRStorage)
    taking = sink.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0x0000)])

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        match = Dataset()
        for element in event.identifier:
            setattr(match, element.keyword, keys.get(element.keyword, element.value))
        yield 0xFF00, match
        while endless == "find" and not ended.wait(0.1):
            asked.append(time.monotonic())
            yield 0xFF00, match

    def move(_event: evt.Event) -> Iterator[object]:
        yield "127.0.0.1", taking.server_address[1], {"contexts": [build_context(ComprehensiveSRStorage)]}
        yield 10_000
        for number in range(10_000):
            if ended.wait(0.1):
                return
            asked.append(time.monotonic())
            report = Dataset()
            report.file_meta = FileMetaDataset()
            report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            report.SOPClassUID, report.SOPInstanceUID = ComprehensiveSRStorage, f"2.25.3.{number}"
            yield 0xFF00, report

    archive = AE("ARCHIVE")
    archive.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    archive.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_MOVE, move)]
    serving = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield serving.server_address[1]
        assert asked[-1] - asked[0] > BOUND / 2, "the archive was busy for as long as the node listened"
    finally:
        ended.set()
        serving.shutdown()
        taking.shutdown()


def asking(*archives: ArchiveDicom | ArchiveDicomweb, folder=None) -> Settings:
    node = Node() if folder is None else Node(data_dir=folder)
    return Settings(node=node, report=Report(follow_up="archives", prior_timeout=BOUND), archives=archives)


def looked(settings: Settings, spool) -> Earlier:
    begun = time.monotonic()
    found = lookup.find(settings, spool, TODAY)
    assert time.monotonic() - begun < BOUND + 3
    return found


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\n\r\n", b"[", *[b" "] * 1000)], ids=["silent", "trickling"])
def test_a_dicomweb_archive_cannot_hold_an_analysis_up(tmp_path, pieces) -> None:
    with http(*pieces) as url:
        found = looked(asking(ArchiveDicomweb(name="vna", url=url, timeout=60)), tmp_path)
    assert found.prior is None
    assert found.trouble in {"archive vna did not answer in time", "archive vna could not be asked"}
    wait_until_nobody_asks()


@pytest.mark.parametrize("endless", ["find", "move"])
def test_a_dicom_archive_cannot_hold_an_analysis_up(tmp_path, endless) -> None:
    with pacs(endless=endless) as port:
        archive = ArchiveDicom(name="pacs", ae_title="ARCHIVE", host="127.0.0.1", port=port, timeout=60)
        found = looked(asking(archive), tmp_path)
        assert found.trouble in {"archive pacs did not answer in time", "archive pacs could not be asked"}
        wait_until_nobody_asks()


def wait_until_nobody_asks() -> None:
    """Wait until the threads of all searches have ended."""
    until = time.monotonic() + 2 * BOUND + 5
    while any(thread.name.startswith("archive ") for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_several_slow_archives_take_no_longer_than_one(tmp_path) -> None:
    with http() as url:
        looked(asking(*(ArchiveDicomweb(name=f"vna{number}", url=url, timeout=60) for number in range(4))), tmp_path)


def test_trouble_of_any_kind_costs_the_comparison_only(tmp_path) -> None:
    (tmp_path / "priors").write_text("no folder", encoding="ascii")
    assert lookup.find(Settings(), tmp_path, TODAY) == Earlier(trouble="the reports that this node keeps could not be read")


class Analyst:
    """Records when it was first used."""

    digest = "b" * 64

    def __init__(self) -> None:
        self.taken, self.trouble = 0.0, ""

    @property
    def arithmetic(self) -> str:
        self.taken = time.monotonic()
        return "pencil"

    def analyse(self, paths, context, progress, marks=()):
        self.trouble = context.earlier.trouble
        return [], None


def test_the_job_of_a_series_is_analysed_while_its_archive_is_silent(tmp_path) -> None:
    with http() as url:
        analyst, settings = Analyst(), asking(ArchiveDicomweb(name="vna", url=url, timeout=60), folder=tmp_path)
        schema.migrate(settings.database_url)
        runtime = Runtime(settings, analyst)
        image = ct(StudyDate="20260901")
        content = data_set(image)
        head = file_meta.head(image.SOPClassUID, image.SOPInstanceUID, "1.2.840.10008.1.2.1", "CT1", "0" * 64)
        (runtime.spool.root / "a.dcm").write_bytes(head + content)
        facts, at = SeriesFacts(modality="CT", announced=1), datetime.now(UTC) - timedelta(hours=1)
        row = NewInstance(image.SOPClassUID, image.SOPInstanceUID, "1.2.3", "1.2", "1.2.1", "a.dcm", "a" * 64, 1, at, facts)
        series = ReceivedSeries(engine.create(settings.database_url))
        series.record_instances([row])
        (job,) = series.complete_due(settings.completion, lambda _: None)
        begun = time.monotonic()
        analysing.analyse(job, runtime)
        assert BOUND <= analyst.taken - begun < BOUND + 3, "the device is taken after the look, not before"
        assert analyst.trouble == "archive vna did not answer in time"
        assert runtime.tables.jobs.get(job).state is JobState.DELIVERED
