"""``python -m chaos.fuzz``: give randomly damaged input to every reader of external data for some minutes.

Each batch of tries runs in its own process with a memory limit, and each try has a time limit: a crash of a decoder or a hang is a finding
and ends only its batch. A batch depends only on the seed and its number, so that a finding can be repeated. At the end, damaged requests and
request heads without end are sent to a real HTTP service, and damaged PDUs to a real listener.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import analyses
import ct_series
import dicom_objects
import structlog
from bundles import write_bundle
from hostile import damage, draw
from hostile_pdus import pdu, request, store_request, talk
from listening import Listener
from odd_objects import BAD
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless, RTStructureSetStorage

from alnnode import multipart, report
from alnnode.audit.trail import patient_in
from alnnode.db import schema
from alnnode.dicomweb import attribute_index as attributes
from alnnode.dicomweb import dicom_json, matching, part_storage, wado, wado_metadata
from alnnode.errors import AlnnodeError, NotAnalysable, RejectedObject
from alnnode.imaging import series, stored_image
from alnnode.model import bundle as bundles
from alnnode.model import network
from alnnode.model.weights import load_tensors
from alnnode.receive import header
from alnnode.receive.file_meta import data_set_offset
from alnnode.receive.library_logging import silence_libraries
from alnnode.spool.spool import Spool
from chaos import floods
from chaos.bodies import BodyTries, MarkSeeds

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 200  # tries
LIMIT = 20  # seconds for one try
MEMORY = 8 << 30  # bytes of address space
ODD = 0.25  # share of the objects with deep sequences, or numbers that are not finite
SHARE = 0.2  # of the minutes, for the listener, and again for the HTTP service
REFUSALS = (AlnnodeError, stored_image.DamagedImageError, stored_image.NoSuchFrameError, matching.InvalidQueryError)
SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.90",
)
QUERY = "PatientName=DOE*&StudyDate=20260101-20261231&includefield=00081030&00400275.00400007=x&limit=10&fuzzymatching=true"


FURTHER = ("00081140", "00280030", "00400275", "00189087", "00081032")  # attributes of includefield


class Seeds:
    """Undamaged objects of every kind that the node accepts, as Part 10 files, and a model bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = write_bundle(folder / "bundle")
        slices = [ct_series.ct_slice(k) for k in range(6)]
        compressed = dicom_objects.ct(1)
        compressed.compress(RLELossless)
        made = report.build(
            analyses.analysis(2), analyses.EVERYTHING
        )  # SR, captures, SEG, maps, key objects, presentation states
        self.images = [dicom_objects.ct(number, side=32) for number in (1, 2)]
        self.odd = [make() for make in BAD.values()]
        self.marks = MarkSeeds(folder)
        self.series = [_bytes(one) for one in slices]
        self.objects = [
            _bytes(dicom_objects.ct(1, side=32)), _bytes(ct_series.enhanced(6)), _bytes(compressed), _bytes(structures()),
            *(item.data for item in made), *self.marks.objects,
        ]  # fmt: skip


def structures() -> Dataset:
    """An RT Structure Set with one contour (PS3.3 section C.8.8.5 and C.8.8.6)."""
    found = dcmread(io.BytesIO(_bytes(dicom_objects.ct(5))))
    del found.PixelData
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    found.Modality, found.StructureSetLabel = "RTSTRUCT", "nodes"
    contour, roi, named = Dataset(), Dataset(), Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 3
    contour.ContourData = [0, 0, 0, 5, 0, 0, 0, 5, 0]
    roi.ReferencedROINumber, roi.ContourSequence = 1, [contour]
    named.ROINumber, named.ROIName = 1, "node 1"
    found.ROIContourSequence, found.StructureSetROISequence = [roi], [named]
    return found


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _no_json(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


class Tries(BodyTries):
    """One try of each reader: raises the error of the reader, or returns a word for the outcome, or None."""

    def __init__(self, seeds: Seeds, chance: random.Random) -> None:
        self._seeds, self._random = seeds, chance
        self._marks, self._images = seeds.marks, seeds.images
        self._folder = seeds.folder / f"bodies-{os.getpid()}"
        self._folder.mkdir(exist_ok=True)
        self._file = seeds.folder / f"try-{os.getpid()}.dcm"
        self._spool = Spool(seeds.folder)
        self._is_odd = False  # whether the last object is an odd one without further damage

    def spoilt(self, data: bytes, *, near: bool | None = None) -> bytes:
        near = self._random.random() < 0.6 if near is None else near
        return damage(data, draw(self._random), head=1500 if near else None)

    def _object(self) -> Path:
        self._is_odd = self._random.random() < ODD  # random damage rarely makes these
        if self._is_odd:
            odd = self._random.choice(self._seeds.odd)
            self._is_odd = self._random.random() < 0.7
            self._file.write_bytes(odd if self._is_odd else self.spoilt(odd))
            return self._file
        self._file.write_bytes(self.spoilt(self._random.choice(self._seeds.objects)))
        return self._file

    def door(self) -> None:
        """Read the header of a data set, in its transfer syntax or another."""
        data = self._random.choice(self._seeds.objects)
        header.read(self.spoilt(data[data_set_offset(memoryview(data)) :]), self._random.choice(SYNTAXES), "FUZZ")

    def file_head(self) -> None:
        """Read the head of a file that arrives by STOW-RS."""
        part_storage._head(memoryview(self.spoilt(self._random.choice(self._seeds.objects))))

    def body(self) -> None:
        """Read a multipart body."""
        data = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + bytes(200) + b"\r\n--b\r\n\r\nx\r\n--b--\r\n"

        async def read() -> None:
            async def stream():
                yield self.spoilt(data)

            async for part in multipart.read_parts(stream(), "b", self._seeds.folder, 1 << 20):
                part.close()

        try:
            asyncio.run(read())
        except (multipart.MalformedBodyError, multipart.PartTooLargeError) as error:
            raise RejectedObject(0, "") from error

    def search(self) -> None:
        """Parse the parameters of a search, and match them with an object."""
        text = self.spoilt(QUERY.encode()).decode("latin-1")
        query = matching.parse([part.partition("=")[::2] for part in text.split("&")])
        matching.matches(dicom_json.as_json(dcmread(io.BytesIO(self._seeds.objects[0]))), query.filters)

    def volume(self) -> None:
        """Read a series with one damaged file, or a multi-frame object."""
        folder = self._seeds.folder / f"series-{os.getpid()}"
        folder.mkdir(exist_ok=True)
        several = self._random.random() < 0.7
        contents = self._seeds.series if several else self._seeds.objects[1:2]
        paths = [folder / f"{number}.dcm" for number in range(len(contents))]
        for number, (path, data) in enumerate(zip(paths, contents, strict=True)):
            path.write_bytes(self.spoilt(data) if number == 0 else data)
        with suppress(NotAnalysable):
            series.read_header(paths)
        series.read_volume(paths)

    def frames(self) -> None:
        """Decode the pixels of an image, as for a viewer."""
        image = stored_image.open_image(self._object())
        image.pixels(1)

    def attributes(self) -> None:
        """Read the attributes that searches return; an unreadable object must not break them."""
        path = self._object()
        held = [type("Held", (), {"path": path.name, "stored_at": datetime.now(UTC)})]
        found = attributes.AttributeIndex(self._spool_of())
        shown = [found.series_attributes(held), found.instance_attributes(held), found.read_attributes(path.name, FURTHER)]
        json.loads(dicom_json.dumps(shown), parse_constant=_no_json)

    def _spool_of(self) -> Spool:
        spool = self._spool
        spool.path = lambda relative: self._seeds.folder / relative
        spool.notes, spool.note = lambda *_: b"", lambda *_: None
        return spool

    def metadata(self) -> None:
        """Convert an object to JSON; the service leaves out a damaged object for any error, but none that is only deep or has no numbers."""
        try:
            text = dicom_json.dumps(wado_metadata._document(self._object(), "http://node"))
        except wado.UNREADABLE as error:
            if self._is_odd:
                raise
            raise RejectedObject(0, "") from error
        json.loads(text, parse_constant=_no_json)

    def explicit(self) -> None:
        """Convert an object to another transfer syntax; the service leaves it out for any error."""
        try:
            wado._explicit(self._object())
        except wado.UNREADABLE as error:
            raise RejectedObject(0, "") from error

    def patient(self) -> None:
        """Read the patient for the audit trail."""
        patient_in([self._object()])

    def bundle(self) -> None:
        """Load a bundle with one damaged file."""
        folder = self._seeds.folder / f"bundle-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in self._seeds.bundle.iterdir():
            (folder / path.name).symlink_to(path)
        victim = self._random.choice(["manifest.json"] * 3 + ["fsc.safetensors"])
        data = damage((self._seeds.bundle / victim).read_bytes(), draw(self._random), head=3000)
        (folder / victim).unlink()
        (folder / victim).write_bytes(data)
        loaded = bundles.load(folder)
        if victim != "manifest.json" and data != (self._seeds.bundle / victim).read_bytes():
            raise RuntimeError("an altered file was accepted")
        assert loaded.crop_settings.pixels

    def weights(self) -> None:
        """Read damaged weights with a correct digest."""
        name = "fsc.safetensors"
        data = damage((self._seeds.bundle / name).read_bytes(), draw(self._random), head=self._random.choice([64, 3000]))
        sound = bundles.load(self._seeds.bundle)
        spoilt = bundles.Bundle(sound.folder, sound.manifest, sound.digest, {**sound.contents, name: data})
        tensors = load_tensors(spoilt, "fsc")
        if self._random.random() < 0.02:  # building the network takes a second
            network.restore(1, 16, tensors, "densenet121")


TRIES = [name for name in (*vars(Tries), *vars(BodyTries)) if not name.startswith("_") and name != "spoilt"]
COSTLY = {"bundle": 0.3, "weights": 0.2, "volume": 2, "explicit": 2}  # a bundle is hashed completely
WEIGHTS = [COSTLY.get(name, 4) for name in TRIES]


def batch(seeds: Seeds, seed: int, number: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Make the tries of one batch in this process; return the outcomes, and the findings with what repeats them."""
    chance = random.Random(f"{seed}/{number}")
    tries, outcomes, findings = Tries(seeds, chance), Counter(), []
    for position in range(BATCH):
        name = chance.choices(TRIES, WEIGHTS)[0]
        signal.alarm(LIMIT)
        try:
            outcome = getattr(tries, name)() or "read"
        except REFUSALS:
            outcome = "refused"
        except Exception as error:  # noqa: BLE001 - the error is the finding
            outcome = "FOUND"
            where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)][-4:]
            findings.append(
                f"{name}: {type(error).__name__} at {' '.join(where)} (seed {seed}, batch {number}, try {position})"
            )
        outcomes[name, outcome] += 1
    signal.alarm(0)
    return outcomes, findings


def isolated(work: Callable[[], tuple[Counter[tuple[str, str]], list[str]]], number: int) -> tuple[Counter, list[str]]:
    """Run a batch in a child process; a child that dies is a finding."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        warnings.simplefilter("ignore")
        try:
            outcomes, findings = work()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(json.dumps([[[*key, count] for key, count in outcomes.items()], findings]).encode())
        except BaseException:  # noqa: BLE001 - the child must not continue as its parent
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if not said:
        return Counter(), [f"batch {number} ended with {status} (a signal is a crash, 14 a hang)"]
    lines, findings = json.loads(said)
    return Counter({(name, outcome): count for name, outcome, count in lines}), findings


def listener(seconds: float, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Send damaged PDUs to a real listener; afterwards it must store an object, with no more threads than before."""
    chance, outcomes, findings = random.Random(seed), Counter(), []
    whole = dicom_objects.data_set(dicom_objects.ct(1, side=16))
    message, release = store_request(whole), pdu(5, bytes(4))
    with tempfile.TemporaryDirectory(prefix="alnnode-fuzz-") as folder:
        url = f"sqlite:///{folder}/alnnode.db"
        schema.migrate(url)
        node = Listener(Path(folder), url, "timeout = 2\nmax_associations = 1000\n", internal="connection_rate = 10000")
        process = node.start()
        threads = Path(f"/proc/{process.pid}/task")
        before, until = len(list(threads.iterdir())), time.monotonic() + seconds
        while time.monotonic() < until and process.poll() is None:
            kind = chance.choice(["request", "message", "object", "both"])
            first, then = request(), message + release
            if kind == "request":
                first = damage(first, draw(chance))
            elif kind == "message":
                then = damage(then, draw(chance), head=chance.choice([200, None]))
            elif kind == "object":
                then = store_request(damage(whole, draw(chance), head=chance.choice([200, None]))) + release
            else:
                first, then = damage(first + then, draw(chance)), b""
            talk(node.port, first, then)
            outcomes["PDUs to a listener", f"sent, {kind}"] += 1
        if process.poll() is not None:
            findings.append(f"the listener ended with {process.returncode}")
        else:
            findings += _unharmed(node, threads, before)
        node.stop()
        log = node.log.read_text()
        findings += [f"the log says {word}" for word in ("Traceback", "uncaught") if word in log]
    return outcomes, findings


def _unharmed(node: Listener, threads: Path, before: int) -> list[str]:
    deadline = time.monotonic() + 20
    while len(list(threads.iterdir())) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    findings = [] if len(list(threads.iterdir())) <= before else ["threads of the listener hang"]
    association = node.associate()
    if not association.is_established or association.send_c_store(dicom_objects.ct(7)).get("Status") != 0:
        findings.append("the listener does not store any more")
    association.release()
    return findings


def fuzz(seconds: float, seed: int, folder: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Fuzz the readers for ``seconds``."""
    seeds, outcomes, findings = Seeds(folder), Counter(), []
    silence_libraries()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        more, found = isolated(lambda number=number: batch(seeds, seed, number), number)
        outcomes.update(more)
        findings += found
        number += 1
    return outcomes, findings


def main() -> int:
    """Fuzz, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m chaos.fuzz")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seconds = options.minutes * 60
    with tempfile.TemporaryDirectory(prefix="alnnode-fuzz-") as folder:
        outcomes, findings = fuzz(seconds * (1 - 2 * SHARE), options.seed, Path(folder))
    for part in (floods.web, listener):
        more, found = part(seconds * SHARE, options.seed)
        outcomes.update(more)
        findings += found
    print("| what | outcome | tries |\n|---|---|---:|")
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"| {name} | {outcome} | {count} |")
    print(
        f"\n{sum(outcomes.values())} tries in {options.minutes:g} minutes, seed {options.seed}: {len(findings)} crashes, hangs or foreign exceptions"
    )
    for line in findings:
        print(line)
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
