"""Query/Retrieve with Orthanc, DCMTK and pynetdicom as archives, which send the objects to the node's own listener."""

import ssl
import subprocess
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO

import pytest
from analyses import CONTEXT, analysis, header
from certificates import Authority
from dicom_objects import STUDY, ct
from listening import Listener, wait_for
from programs import PROGRAMS, system
from pydicom import dcmread
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelMove
from viewers import free_port, orthanc, post
from web_service import part10, service
from workitem import attribute, workitem

from alnnode import report
from alnnode.cli import check
from alnnode.clients.query_retrieve import Retriever
from alnnode.deliver.cstore import CStoreDestination
from alnnode.deliver.destination import OutboxFile
from alnnode.errors import DeliveryError, IncompleteSeries, ServiceError
from alnnode.priors import lookup
from alnnode.receive.routes import unwanted
from alnnode.records import JobState
from alnnode.records.comparison import PriorLookup
from alnnode.settings import ArchiveDicom, ClientTls, Completion, DestinationCStore, Internal, Report, Route
from alnnode.settings import Worklist as WorklistSettings
from alnnode.worklist import ups
from alnnode.worklist.performer import Performer
from alnnode.worklist.ups import UpsState
from workers.runtime import Runtime

UID, SERIES, TITLE = "1.2.826.0.1.3680043.10.9.1", f"{STUDY}.1", "PACS"
ORTHANC = pytest.mark.skipif(system("Orthanc") is None, reason="NO ORTHANC: apt install orthanc")
DCMTK = pytest.mark.skipif(system("dcmqrscp") is None, reason="NO DCMTK: apt install dcmtk")


@pytest.fixture
def listener(tmp_path):
    """The node's listener; its database and spool are those of `node`."""
    folder = tmp_path / "node"
    folder.mkdir()
    found = Listener(folder, f"sqlite:///{folder / 'alnnode.db'}", extra="processes = 1")
    yield found
    found.stop()


@contextmanager
def node(listener, *archives, attempts=2):
    """A client of the node's service, what it works with, and the performer of its workitems."""
    settings, internal = WorklistSettings(perform=False), Internal(fetch_attempts=attempts)
    with service(listener.settings.node.data_dir, worklist=settings, internal=internal, archives=archives) as (client, opened):
        listener.start()
        performer = Performer(opened)
        yield client, opened, performer
        performer.close()


def pacs(port, **changes):
    return ArchiveDicom(**{"name": "pacs", "ae_title": TITLE, "host": "127.0.0.1", "port": port, "timeout": 20} | changes)


def images(count=3, series=SERIES):
    return [ct(n, series=series) for n in range(1, count + 1)]


def named(title):
    """A workitem whose input must be retrieved by C-MOVE."""
    asked = workitem(STUDY, SERIES)
    (one,) = ups.items(asked, ups.INPUT)
    place = {"00080054": attribute("AE", title), "0020000D": attribute("UI", STUDY)}
    asked[ups.INPUT] = attribute("SQ", {**one, ups.tag("DICOMRetrievalSequence"): attribute("SQ", place)})
    return asked


def reason(opened):
    item = opened.worklist.get(UID)
    assert item.state is UpsState.CANCELED
    return ups.value(ups.items(item.document, ups.PROGRESS)[0], ups.tag("ReasonForCancellation"))


@ORTHANC
def test_a_workitem_whose_series_is_moved_from_orthanc_to_the_node(listener, tmp_path) -> None:
    known = {"node": ["ALNNODE", "127.0.0.1", listener.port]}
    with orthanc(tmp_path, known) as (root, port), node(listener, pacs(port)) as (client, opened, performer):
        for image in (*images(), *images(2, f"{STUDY}.2")):
            post(root, part10(image))
        assert client.post(f"/dicom-web/workitems?{UID}", json=named(TITLE)).status_code == 201
        wait_for(lambda: performer.once() or opened.worklist.get(UID).job_id)
        assert {held.series_uid for held in opened.catalogue.instances()} == {SERIES}, "only what was asked for"
        (job,) = opened.jobs.list()
        wait_for(lambda: opened.jobs.get(job.job_id).instances == 3)
        assert (opened.worklist.get(UID).job_id, opened.worklist.get(UID).attempts) == (job.job_id, 1)


@ORTHANC
def test_orthanc_that_does_not_know_the_node_or_the_series(listener, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.worklist.input_fetcher.FETCH_PAUSE", 0.0)
    with orthanc(tmp_path) as (root, port), node(listener, pacs(port)) as (client, opened, performer):
        post(root, part10(ct(1)))
        client.post(f"/dicom-web/workitems?{UID}", json=named(TITLE))
        wait_for(lambda: performer.once() or opened.worklist.get(UID).state is UpsState.CANCELED)
        assert opened.worklist.get(UID).attempts == 2
        assert reason(opened).startswith(
            "the series could not be fetched: archive pacs: the response to C-MOVE has status 0xC000 ("
        )
        with pytest.raises(ServiceError, match="does not hold the series"):
            Retriever(pacs(port), "ALNNODE").move(STUDY, "1.2.3")


@contextmanager
def dcmqrscp(folder, listener_port, *, title="ALNNODE"):
    """DCMTK's archive, with images; its port."""
    port, area = free_port(), folder / "area"
    area.mkdir()
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 4\n"
        f"HostTable BEGIN\nnode = ({title}, 127.0.0.1, {listener_port})\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\n{TITLE} {area} RW (9, 1024mb) ANY\nAETable END\n",
        encoding="ascii",
    )
    process = subprocess.Popen(
        ["dcmqrscp", "--config", str(config)],
        env={"PATH": PROGRAMS, "TCP_NODELAY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        fill(folder, port)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def fill(folder, port) -> None:
    there = CStoreDestination(DestinationCStore(name="pacs", ae_title=TITLE, host="127.0.0.1", port=port, timeout=20), "CT1")
    deadline = time.monotonic() + 20
    while True:
        try:
            there.echo()
            break
        except DeliveryError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    files = []
    for image in images():
        path = folder / f"{image.InstanceNumber}.dcm"
        path.write_bytes(part10(image))
        files.append(OutboxFile(image.SOPClassUID, image.SOPInstanceUID, image.file_meta.TransferSyntaxUID, path))
    there.send(files)


@pytest.fixture
def authorities(tmp_path):
    return Authority(tmp_path / "ours"), Authority(tmp_path / "strange")


def mutual(ours, pair):
    """TLS of an archive that requires a certificate of ``ours``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.load_verify_locations(ours.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def over_tls(ours, **own):
    return ClientTls(ca=ours.pem, server_name="pacs.example", **own)


def test_a_series_is_moved_over_mutual_tls(listener, authorities) -> None:
    ours, _ = authorities
    certificate, key = ours.issue("node.example")
    with faulty(listener, whole, tls=mutual(ours, ours.issue("pacs.example"))) as port:
        archive = pacs(port, tls=over_tls(ours, certificate=certificate, private_key=key))
        with node(listener, archive) as (client, opened, performer):
            assert client.post(f"/dicom-web/workitems?{UID}", json=named(TITLE)).status_code == 201
            wait_for(lambda: performer.once() or opened.worklist.get(UID).job_id)
            wait_for(lambda: len(opened.catalogue.instances()) == 3)


@pytest.mark.parametrize("case", ["unknown authority", "expired", "wrong name", "no TLS", "no certificate of the node"])
def test_no_archive_is_asked_that_is_not_the_right_one(listener, authorities, case) -> None:
    ours, strange = authorities
    pair = {"unknown authority": strange.issue("pacs.example"), "expired": ours.issue("pacs.example", ended=True)}.get(
        case, ours.issue("other.example" if case == "wrong name" else "pacs.example")
    )
    certificate, key = ours.issue("node.example")
    own = {} if case == "no certificate of the node" else {"certificate": certificate, "private_key": key}
    asked = []

    def move(event):
        asked.append(event)
        return whole(event)

    with faulty(listener, move, tls=None if case == "no TLS" else mutual(ours, pair)) as port:
        asking = Retriever(pacs(port, timeout=5, tls=over_tls(ours, **own)), "ALNNODE")
        with pytest.raises(ServiceError, match="archive pacs"):
            asking.move(STUDY, SERIES)
    assert not asked


@DCMTK
@pytest.mark.dcmtk
def test_dcmqrscp_is_searched_and_sends_to_the_node(listener, tmp_path) -> None:
    with dcmqrscp(tmp_path, listener.port) as port, node(listener) as (_, opened, _):
        settings = listener.settings.model_copy(update={"archives": (pacs(port),)})
        assert [found.passed for found in check.run(settings, None) if found.what == "archive pacs"] == [True]
        there = Retriever(pacs(port), "ALNNODE")
        (study,) = there.find("STUDY", PatientID="SECRET-ID", StudyInstanceUID="")
        assert study == {"PatientID": "SECRET-ID", "StudyInstanceUID": STUDY}
        assert there.find("STUDY", PatientID="NOBODY", StudyInstanceUID="") == []
        found = there.find("IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, SOPInstanceUID="")
        assert {one["SOPInstanceUID"] for one in found} == {image.SOPInstanceUID for image in images()}
        assert there.move(STUDY, SERIES) == 3
        wait_for(lambda: len(opened.catalogue.instances()) == 3)
        with pytest.raises(ServiceError, match="0xA801") as refused:
            Retriever(pacs(port), "STRANGER").move(STUDY, SERIES)
        assert not isinstance(refused.value, IncompleteSeries)
        with pytest.raises(ServiceError, match="does not hold"):
            there.move(STUDY, "1.2.3")


@contextmanager
def faulty(listener, *answers, tls=None):
    """An archive that responds to each C-MOVE with the next of ``answers``, then always with the last; yields its port."""
    asked = list(answers)

    def move(event):
        assert event.move_destination == "ALNNODE"
        yield "127.0.0.1", listener.port
        yield 3
        yield from (asked.pop(0) if len(asked) > 1 else asked[0])(event)

    entity = AE(TITLE)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    entity.requested_contexts = [build_context(CTImageStorage)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_MOVE, move)], ssl_context=tls)
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


def whole(_event):
    return [(0xFF00, image) for image in images()]


def part(_event):
    return [(0xFF00, images()[0]), (0xC001, None)]


def broken_off(event):
    yield 0xFF00, images()[0]
    event.assoc.abort()


@pytest.mark.parametrize("first", [part, broken_off])
def test_a_part_of_a_series_is_not_taken_for_the_whole(listener, monkeypatch, first) -> None:
    monkeypatch.setattr("alnnode.worklist.input_fetcher.FETCH_PAUSE", 0.0)
    with faulty(listener, first, whole) as port, node(listener, pacs(port)) as (client, opened, performer):
        client.post(f"/dicom-web/workitems?{UID}", json=named(TITLE))
        wait_for(lambda: performer.once() or "not here yet" in str(opened.worklist.get(UID).document))
        wait_for(opened.catalogue.instances)
        assert len(opened.catalogue.instances()) == 1
        assert opened.worklist.get(UID).job_id is None
        wait_for(lambda: performer.once() or opened.worklist.get(UID).job_id)
        assert opened.worklist.get(UID).attempts == 2
        wait_for(lambda: len(opened.catalogue.instances()) == 3)


def test_what_never_comes_whole_cancels_the_workitem_with_its_reason(listener, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.worklist.input_fetcher.FETCH_PAUSE", 0.0)
    with faulty(listener, part) as port, node(listener, pacs(port)) as (client, opened, performer):
        client.post(f"/dicom-web/workitems?{UID}", json=named(TITLE))
        wait_for(lambda: performer.once() or opened.worklist.get(UID).state is UpsState.CANCELED)
        assert "0xC001; 1 object sent" in reason(opened)
        with pytest.raises(IncompleteSeries, match="stopped the C-MOVE"):
            Retriever(pacs(port), "ALNNODE").move(STUDY, SERIES, lambda: True)


@DCMTK
@pytest.mark.dcmtk
def test_an_archive_that_cannot_reach_the_node_gives_the_workitem_its_reason(listener, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.worklist.input_fetcher.FETCH_PAUSE", 0.0)
    with dcmqrscp(tmp_path, free_port()) as port, node(listener, pacs(port), attempts=1) as (client, opened, performer):
        client.post(f"/dicom-web/workitems?{UID}", json=named(TITLE))
        wait_for(lambda: performer.once() or opened.worklist.get(UID).state is UpsState.CANCELED)
        assert "archive pacs: the response to C-MOVE has status 0x" in reason(opened)
        assert "0 objects sent, 3 failed" in reason(opened)


def test_a_retrieve_ae_title_that_is_not_configured_is_refused(listener) -> None:
    with node(listener, pacs(9)) as (client, opened, performer):
        client.post(f"/dicom-web/workitems?{UID}", json=named("ELSEWHERE"))
        wait_for(lambda: performer.once() or opened.worklist.get(UID).state is UpsState.CANCELED)
        assert "no configured archive has the Retrieve URL or AE title" in reason(opened)
        assert opened.worklist.get(UID).attempts == 0


def made():
    """The results on an earlier study, and a report of other software in the same study."""
    results = [item.data for item in report.build(analysis(2, header()), CONTEXT)]
    stranger = dcmread(BytesIO(results[0]))
    stranger.Manufacturer, stranger.SeriesDescription = "Somebody", "Marks"
    stranger.SeriesInstanceUID, stranger.SOPInstanceUID = "2.25.901", "2.25.902"
    stranger.file_meta.MediaStorageSOPInstanceUID = "2.25.902"
    return [*results, part10(stranger)]


def today():
    found = header()
    found.StudyInstanceUID, found.StudyDate = "2.25.555", "20260901"
    return found


@ORTHANC
def test_an_earlier_report_is_moved_here_once_and_starts_no_job(listener, tmp_path) -> None:
    with orthanc(tmp_path, {"node": ["ALNNODE", "127.0.0.1", listener.port]}) as (root, port), node(listener):
        results = made()
        for data in results:
            post(root, data)
        settings = listener.settings.model_copy(
            update={
                "report": Report(follow_up="archives"),
                "archives": (pacs(port),),
                "routes": (Route(name="all", modalities=()),),
            }
        )
        runtime = Runtime(settings)
        found = lookup.find_prior(settings, runtime.spool.root, today(), runtime.files_of)
        assert found.trouble is None
        assert found.report.sop_instance_uid == dcmread(BytesIO(results[0])).SOPInstanceUID
        (job,) = listener.jobs.list()  # for neither the report of other software nor the captures
        later = datetime.now(UTC) + timedelta(hours=1)
        assert listener.received.complete_due(Completion(), partial(unwanted, settings.routes), now=later) == ()
        job = listener.jobs.get(job.job_id)
        assert (job.state, job.reason) == (JobState.SKIPPED, "holds results of this software")
        assert lookup.find_prior(settings, runtime.spool.root, today(), runtime.files_of) == found
        assert [one.revision for one in listener.jobs.list()] == [1], "what is here is not moved again"


@ORTHANC
def test_an_earlier_report_that_cannot_come_costs_the_comparison_only(listener, tmp_path) -> None:
    with orthanc(tmp_path) as (root, port):
        post(root, made()[0])
        settings = listener.settings.model_copy(
            update={"report": Report(follow_up="archives"), "archives": (pacs(port, timeout=5),)}
        )
        assert lookup.find_prior(settings, tmp_path, today()) == PriorLookup(trouble="archive pacs could not be asked")
        strange = today()
        strange.PatientID = "P-*"
        assert lookup.find_prior(settings, tmp_path, strange) == PriorLookup(trouble="archive pacs could not be asked")
