"""Tries of the fuzzer for the readers of marks and of DICOMweb request bodies."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import marked
import numpy as np
from anyio import CapacityLimiter
from web_service import BOUNDARY, body

from alnnode import multipart, phantom
from alnnode.dicomweb import stow_json
from alnnode.dicomweb.part_storage import PartStorage
from alnnode.dicomweb.stow_request import StowRequest
from alnnode.errors import RejectedObject
from alnnode.imaging.series import read_volume
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.marks.nodes import merge_nodes, nodes_from_marks
from alnnode.locate.marks.reading import read_marks
from alnnode.locate.measure import node_from_mask
from alnnode.receive import header

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.receive.acceptor import StoreRequest

UID = "2.25.4711"
PART = 1 << 20  # bytes of a part at most


class MarkSeeds:
    """A small phantom, and marks of one of its lymph nodes in every form that the node reads."""

    def __init__(self, folder: Path) -> None:
        options = phantom.PhantomSettings(
            size=96, slices=(20, 20), thickness_mm=(5, 5), spacing_mm=(3.7, 3.7), min_nodes_per_side=2, max_nodes_per_side=3
        )
        patient = phantom.make_patient(7, 0, options)
        self.volume = volume = read_volume(phantom.write_series(patient, folder / "marked"))
        self.anatomy = ChestAnatomy(volume)
        largest = max(patient.nodes, key=lambda node: node.short_axis_mm)
        mask = patient.labels == largest.number
        node = node_from_mask(volume, mask, (0, 0, 0), largest.side, 1)
        k, row, column = (int(np.median(places)) for places in np.nonzero(mask))
        square = [
            (column - 2, row - 2),
            (column + 2, row - 2),
            (column + 2, row + 2),
            (column - 2, row + 2),
            (column - 2, row - 2),
        ]
        region = marked.scoord(volume, k, "POLYLINE", square, "CONTAINS", marked.code("111030"))
        made = [
            marked.report(volume, [marked.bidirectional(volume, node, UID)]),
            marked.report(volume, [marked.group(UID, "PlanarFreehandROI", [region])], 2),
            marked.structures(volume, [("Node", [(k, square)])], 3),
            marked.segmentation(volume, [("Node", UID, mask)], 4),
            marked.segmentation(volume, [("Node", UID, mask)], 5, fractional=True),
            marked.presentation(volume, [(k, "POLYLINE", square)], 6),
            marked.presentation(volume, [(k, "CIRCLE", square[:2]), (k, "ELLIPSE", square[:4])], 7),
            marked.key_objects(volume, [k], 8),
        ]
        self.objects = [marked.encoded(one) for one in made]


class HeaderReader:
    """Replaces the acceptor: reads the header of each object, and stores nothing."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.threads = threads

    def store(self, data: Any, request: StoreRequest) -> Any:
        return header.read(bytes(data), request.transfer_syntax, request.calling_ae)


class BodyTries:
    """Tries of a fuzzer; `spoilt` returns its input with damage."""

    spoilt: Callable[..., bytes]
    _folder: Path
    _random: random.Random
    _marks: MarkSeeds
    _images: list[Dataset]

    def marks(self) -> str:
        """Marks of readers, some of them spoilt, onto the nodes of a series: nothing may be raised at all."""
        given = []
        for number in range(self._random.randint(1, 3)):
            path = self._folder / f"mark-{number}.dcm"
            data = self._random.choice(self._marks.objects)
            path.write_bytes(self.spoilt(data) if number == 0 else data)
            given.append(path)
        try:
            found, remarks = nodes_from_marks(self._marks.anatomy, [read_marks(path) for path in given])
            merged = merge_nodes(found, found)
        except RejectedObject as error:
            raise RuntimeError("marks are never refused") from error
        assert len(merged) >= len(found)
        return "nodes made" if found else "no node, with a remark" if remarks else "no node"

    def stow(self) -> None:
        """Read a body of complete objects."""
        files = [self._random.choice(self._marks.objects) for _ in range(self._random.randint(1, 3))]
        whole = body(*(self.spoilt(file) if self._random.random() < 0.4 else file for file in files))
        self._store(self.spoilt(whole) if self._random.random() < 0.5 else whole, as_json=False)

    def stow_json(self) -> None:
        """Read a body of metadata in JSON with bulk data."""
        image = self._random.choice(self._images)
        text = self._document(image, self._random.randint(1, 2))
        whole = self._json_body(self.spoilt(text) if self._random.random() < 0.7 else text, image.PixelData)
        self._store(self.spoilt(whole) if self._random.random() < 0.3 else whole, as_json=True)

    def _document(self, image: Dataset, times: int = 1) -> bytes:
        document = image.to_json_dict(bulk_data_threshold=1 << 20)
        document["7FE00010"] = {"vr": "OW", "BulkDataURI": "bulk/1"}
        return json.dumps([document] * times).encode()

    def _json_body(self, text: bytes, pixels: bytes) -> bytes:
        edge = BOUNDARY.encode()
        parts = [
            b"Content-Type: application/dicom+json\r\n\r\n" + text,
            b"Content-Type: application/octet-stream\r\nContent-Location: bulk/1\r\n\r\n" + pixels,
        ]
        return b"".join(b"--%s\r\n%s\r\n" % (edge, part) for part in parts) + b"--%s--\r\n" % edge

    def _store(self, content: bytes, *, as_json: bool) -> None:
        async def stream() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 4096):
                yield content[start : start + 4096]

        async def store(request: StowRequest) -> None:
            parts = multipart.read_parts(stream(), BOUNDARY, self._folder, PART)
            if as_json:
                await stow_json.store(request, parts, self._folder, CapacityLimiter(1))
            else:
                await PartStorage(request).store_all(parts)

        with ThreadPoolExecutor(2) as threads:
            request = StowRequest(HeaderReader(threads), "FUZZ", None)
            asyncio.run(store(request))
        outcome = request.outcome
        if outcome.fault is not None or outcome.failed:
            raise RejectedObject(0, "")
