"""A small hospital's cohort: series of a body with nodes, as DICOM, and the same nodes as its tools would have marked them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import analyses
import numpy as np
import numpy.typing as npt
from sources import ct_files

from alnnode.locate.measure import node_from_mask
from alnnode.records import Node, NodeSource, Side, SliceRef, Volume

# Row, column of the nodes of a patient, as the image is stored.
PLACES = ((90, 25), (125, 30), (95, 192), (125, 188))


@dataclass(frozen=True)
class Patient:
    """One series with its nodes; those at even places of `PLACES` by ``first_malignant`` are malignant."""

    name: str
    volume: Volume
    masks: npt.NDArray[np.uint8]
    nodes: list[Node]
    malignant: list[bool]


@dataclass(frozen=True)
class Hospital:
    """A folder of DICOM, and what it shows."""

    folder: Path
    patients: list[Patient]

    @property
    def nodes(self) -> list[tuple[Patient, Node, bool]]:
        """Every node."""
        return [(p, node, bad) for p in self.patients for node, bad in zip(p.nodes, p.malignant, strict=True)]


def patient(number: int, **geometry: float) -> Patient:
    """Return one patient: large bright nodes are malignant, small ones benign; sizes and places differ a little."""
    rng = np.random.default_rng(number)
    header = analyses.header(f"PLANTED^{number}")
    header.PatientID = f"H-{number}"
    header.StudyInstanceUID, header.SeriesInstanceUID = f"2.25.11{number:03d}", f"2.25.12{number:03d}"
    plain = analyses.volume(header, **geometry)
    slices = tuple(
        SliceRef(at.sop_class_uid, f"2.25.7{number:03d}{k:03d}", at.frame_number, at.position, at.rescale)
        for k, at in enumerate(plain.slices)
    )
    voxels = np.ascontiguousarray(plain.voxels + rng.normal(0, 8, plain.voxels.shape).astype(np.int16))
    masks = np.zeros(voxels.shape, np.uint8)
    malignant = [bool((n + number) % 2) for n in range(len(PLACES))]
    k, j, i = np.mgrid[tuple(slice(n) for n in voxels.shape)]
    for n, ((row, column), bad) in enumerate(zip(PLACES, malignant, strict=True), 1):
        middle = (5 + n % 3, row + rng.integers(-2, 3), column + rng.integers(-2, 3))
        half = np.array([2.2, 8.0, 9.0] if bad else [1.4, 4.0, 6.0]) * rng.uniform(0.85, 1.15)
        inside = sum(((axis - m) / h) ** 2 for axis, m, h in zip((k, j, i), middle, half, strict=True)) < 1
        voxels[inside] = 70 if bad else 35
        masks[inside] = n
    volume = replace(plain, voxels=voxels, slices=slices)
    nodes = []
    for n in range(1, len(PLACES) + 1):
        middle = np.argwhere(masks == n).mean(axis=0)
        side = Side.LEFT if volume.patient_point(*middle)[0] > 0 else Side.RIGHT
        nodes.append(node_from_mask(volume, masks == n, (0, 0, 0), side, n, source=NodeSource.READER))
    return Patient(f"H-{number}", volume, masks, nodes, malignant)


def build(folder: Path, patients: list[Patient]) -> Hospital:
    """Write the series of the patients."""
    for one in patients:
        place = folder / one.name
        place.mkdir(parents=True)
        for k, data in enumerate(ct_files(one.volume)):
            (place / f"CT{k:03d}.dcm").write_bytes(data)
    return Hospital(folder, patients)


def coco(hospital: Hospital, path: Path, tracked: bool = True) -> None:
    """Write each node as a box on each of its slices, as annotation tools do."""
    images, annotations, numbers = [], [], {}
    for one in hospital.patients:
        for node, bad in zip(one.nodes, one.malignant, strict=True):
            for k in range(node.box.k0, node.box.k1):
                uid = one.volume.slices[k].sop_instance_uid
                if uid not in numbers:
                    numbers[uid] = len(numbers) + 1
                    height, width = one.volume.voxels.shape[1:]
                    images.append({"id": numbers[uid], "file_name": f"{uid}.png", "width": width, "height": height})
                rows, columns = np.nonzero(one.masks[k] == node.number)
                box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
                annotation = {"id": len(annotations) + 1, "image_id": numbers[uid], "category_id": 1 + bad, "bbox": box}
                annotations.append(annotation | ({"track_id": f"{one.name}-{node.number}"} if tracked else {}))
    categories = [{"id": 1, "name": "reactive"}, {"id": 2, "name": "Ductal  carcinoma"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
