"""Tries of the fuzzer for the readers of objects, searches, bodies and bundles; `chaos.bodies` has those for marks and STOW-RS."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hostile import damage, draw
from pydicom import dcmread

from alnnode import multipart
from alnnode.audit.trail import patient_in
from alnnode.dicomweb import attribute_index as attributes
from alnnode.dicomweb import dicom_json, matching, part_storage, wado, wado_metadata
from alnnode.errors import AlnnodeError, NotAnalysable, RejectedObject
from alnnode.imaging import series, stored_image
from alnnode.model import bundle as bundles
from alnnode.model import network
from alnnode.model.weights import load_tensors
from alnnode.receive import header
from alnnode.receive.file_meta import data_set_offset
from alnnode.spool.spool import Spool
from chaos.bodies import BodyTries

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from chaos.seeds import Seeds

ODD = 0.25  # share of the objects with deep sequences, or numbers that are not finite
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
