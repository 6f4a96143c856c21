"""Measure the time of QIDO-RS searches over many instances, and compare it with Orthanc's DICOMweb plugin in the same run.

    python benchmarks/qido.py [--instances 100000] [--questions 40] [--folder /dev/shm] [--markdown FILE]

The images are small CT images: 100 in a series, two series in a study, one patient for each study. Orthanc receives them over HTTP without
syncing its storage. For the node, they are written into spool and database directly, which is faster. Both servers are restarted before the
searches, so that neither has cached data, and are queried in turns, one search at a time over one connection. Both must find the same number
of results. --folder is the folder of their data; a folder in memory makes filling much faster.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

from dicomweb import running
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "2.25.7"
IN_SERIES, IN_STUDY = 100, 2
SENDERS = 4
STUDY, SERIES, INSTANCE, PATIENT, DATE = "9111111", "9222222", "9333333", "PAT4444444", "20260701"


def template() -> bytes:
    """Return one image whose identifiers have a fixed length, so that they can be replaced in the bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.{STUDY}.{SERIES}.{INSTANCE}"
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = f"{ROOT}.{STUDY}", f"{ROOT}.{STUDY}.{SERIES}"
    image.PatientID, image.PatientName, image.Modality = PATIENT, f"Name{PATIENT}^Given", "CT"
    image.PatientBirthDate, image.PatientSex, image.ReferringPhysicianName = "19600101", "F", "Doctor^Any"
    image.StudyDate, image.StudyTime, image.AccessionNumber, image.StudyID = DATE, "120000", f"A{STUDY}", "1"
    image.StudyDescription, image.SeriesDescription, image.BodyPartExamined = "Thorax", "1.0 B31f", "CHEST"
    image.SeriesNumber, image.InstanceNumber, image.SeriesDate, image.SeriesTime = 1, 1, DATE, "120000"
    image.Rows = image.Columns = 16
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 0, 1
    image.PhotometricInterpretation, image.PixelData = "MONOCHROME2", b"\0" * 512
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def images(count: int) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    """Yield the numbers of study, series and instance with the file."""
    pattern = template()
    for number in range(count):
        series, instance = divmod(number, IN_SERIES)
        study = series // IN_STUDY
        data = pattern.replace(INSTANCE.encode(), b"%07d" % (1000000 + instance)).replace(
            SERIES.encode(), b"%07d" % (1000000 + series)
        )
        data = data.replace(STUDY.encode(), b"%07d" % (1000000 + study)).replace(PATIENT.encode(), b"PAT%07d" % study)
        yield (study, series, instance), data.replace(DATE.encode(), b"2026%02d%02d" % (study % 12 + 1, study % 28 + 1))


def fill_node(folder: Path, count: int) -> None:
    """Write objects and rows as the listener writes them."""
    from sqlalchemy import insert

    from alnnode.db import engine
    from alnnode.db.schema import migrate
    from alnnode.db.tables import Instance, Job, Series
    from alnnode.dicomweb import indexer
    from alnnode.dicomweb.attribute_index import AttributeIndex
    from alnnode.dicomweb.catalogue import Catalogue
    from alnnode.records import JobState
    from alnnode.spool.spool import Spool

    url = f"sqlite:///{folder / 'alnnode.db'}"
    migrate(url)
    spool, now, rows = Spool(folder / "spool"), datetime.now(UTC), {Series: [], Job: [], Instance: []}
    for (study, series, instance), data in images(count):
        study_uid = f"{ROOT}.{1000000 + study}"
        series_uid = f"{study_uid}.{1000000 + series}"
        uid = f"{series_uid}.{1000000 + instance}"
        path = spool.object_path(series_uid, uid)
        if instance == 0:
            spool.path(path).parent.mkdir(parents=True, mode=0o700)
            rows[Series].append({
                "series_uid": series_uid, "study_uid": study_uid, "calling_ae": "CT", "modality": "CT", "body_part": "CHEST",
                "series_description": "", "study_description": "", "kernel": "", "last_received_at": now,
            })  # fmt: skip
            rows[Job].append({
                "job_id": uuid4().hex, "series_uid": series_uid, "study_uid": study_uid, "revision": 1, "state": JobState.SKIPPED,
                "attempts": 0, "enqueues": 0, "created_at": now, "content_at": now, "finished_at": now,
            })  # fmt: skip
        spool.path(path).write_bytes(data)
        rows[Instance].append({
            "sop_instance_uid": uid, "series_uid": series_uid, "sop_class_uid": CTImageStorage, "path": path, "size": len(data),
            "transfer_syntax_uid": ExplicitVRLittleEndian, "sha256": "0" * 64, "calling_ae": "CT", "received_at": now, "revision": 1,
        })  # fmt: skip
    database = engine.create(url)
    with engine.for_writing(database).begin() as connection:
        for table in (Series, Job, Instance):
            connection.execute(insert(table), rows[table])
    # The node indexes attributes after it has received the objects; Orthanc does so while it receives.
    indexer.SHARE = 0.0  # no other process needs the CPU here
    indexer.Indexer(Catalogue(database), AttributeIndex(spool)).once()
    database.dispose()


def fill_orthanc(folder: Path, count: int) -> None:
    """Send every image over HTTP."""
    with running("Orthanc", folder, synced=False) as server:
        host = server.url.removeprefix("http://").partition("/")[0]
        files, taking, begun = images(count), Lock(), time.monotonic()

        def send() -> None:
            connection = http.client.HTTPConnection(host, timeout=300)
            while True:
                with taking:
                    numbers, data = next(files, ((0, 0, 0), b""))
                if not data:
                    return
                connection.request("POST", "/instances", data, {"Content-Type": "application/dicom"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"HTTP {answer.status}")
                sent = numbers[1] * IN_SERIES + numbers[2] + 1
                if sent % 10_000 == 0:
                    print(f"Orthanc has {sent} after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(SENDERS) as pool:
            for sender in [pool.submit(send) for _ in range(SENDERS)]:
                sender.result()


def questions(count: int, each: int) -> dict[str, list[str]]:
    """Return the paths of searches that viewers and routers make, each for other studies."""
    choose = random.Random(1)
    studies = max(1, count // IN_SERIES // IN_STUDY)
    found: dict[str, list[str]] = {}

    def one() -> int:
        return choose.randrange(studies)

    for _ in range(each):
        n = one()
        study = f"{ROOT}.{1000000 + n}"
        series = f"{study}.{1000000 + n * IN_STUDY}"
        for name, path in (
            ("study by Patient ID", f"/studies?PatientID=PAT{n:07d}"),
            ("studies by name with wildcard", f"/studies?PatientName=NamePAT{n // 10:06d}*"),
            ("study by accession number", f"/studies?AccessionNumber=A{1000000 + n}"),
            ("studies of a day, first 50", f"/studies?StudyDate=2026{n % 12 + 1:02d}{n % 28 + 1:02d}&limit=50"),
            ("study list, 101 of all", "/studies?limit=101"),
            ("series of a study", f"/studies/{study}/series"),
            ("100 instances of a series", f"/studies/{study}/series/{series}/instances"),
        ):
            found.setdefault(name, []).append(path)
    return found


def ask(url: str, path: str) -> tuple[float, int]:
    """Return the seconds until the complete answer, and its number of results."""
    connection = http.client.HTTPConnection(url.removeprefix("http://").partition("/")[0], timeout=300)
    connection.connect()
    start = time.perf_counter()
    connection.request("GET", f"/dicom-web{path}", headers={"Accept": "application/dicom+json"})
    answer = connection.getresponse().read()
    seconds = time.perf_counter() - start
    connection.close()
    return seconds, len(json.loads(answer or b"[]"))


def p95(values: list[float]) -> float:
    """Return the 95th percentile in ms."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))] * 1000


def main() -> int:
    """Fill both servers, run the searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=40, help="number of searches of each kind")
    parser.add_argument("--folder", type=Path, help="folder of the data of both servers")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folders = {server: Path(name) / server for server in ("alnnode", "Orthanc")}
        for folder in folders.values():
            folder.mkdir()
        for server, fill in (("alnnode", fill_node), ("Orthanc", fill_orthanc)):
            start = time.monotonic()
            fill(folders[server], options.instances)
            print(f"{server} has {options.instances} instances after {time.monotonic() - start:.0f} s", file=sys.stderr)
        times: dict[tuple[str, str], list[float]] = {}
        counts: dict[tuple[str, str], int] = {}
        with running("alnnode", folders["alnnode"]) as node, running("Orthanc", folders["Orthanc"]) as orthanc:
            urls = {"alnnode": node.url, "Orthanc": orthanc.url}
            asked = questions(options.instances, options.questions)
            for number in range(options.questions):
                for kind, paths in asked.items():
                    for server, url in urls.items():
                        seconds, found = ask(url, paths[number])
                        times.setdefault((kind, server), []).append(seconds)
                        counts[kind, server] = counts.get((kind, server), 0) + found
    lines = [
        "| question | alnnode: ms median / p95 | Orthanc: ms median / p95 | ratio of p95 |",
        "|---|---|---|---|",
    ]
    everything: dict[str, list[float]] = {"alnnode": [], "Orthanc": []}
    for kind in asked:
        own, other = times[kind, "alnnode"], times[kind, "Orthanc"]
        everything["alnnode"] += own
        everything["Orthanc"] += other
        if counts[kind, "alnnode"] != counts[kind, "Orthanc"]:
            print(f"{kind}: {counts[kind, 'alnnode']} and {counts[kind, 'Orthanc']} results", file=sys.stderr)
        lines.append(_row(kind, own, other))
    lines.append(_row("**all**", everything["alnnode"], everything["Orthanc"]))
    text = "\n".join(lines)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    return 0


def _row(kind: str, own: list[float], other: list[float]) -> str:
    cells = [f"{statistics.median(values) * 1000:.1f} / **{p95(values):.1f}**" for values in (own, other)]
    return f"| {kind} | {cells[0]} | {cells[1]} | {p95(own) / p95(other):.2f} |"


if __name__ == "__main__":
    sys.exit(main())
