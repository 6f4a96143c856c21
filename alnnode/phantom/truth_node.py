"""The truth of one node, measured in the stored image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.measure import diameters
from alnnode.phantom.settings import Position
from alnnode.records import Box, Level, Side

if TYPE_CHECKING:
    from alnnode.phantom.labelled_image import LabelledImage
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.placement import PlacedNode


@dataclass(frozen=True, slots=True)
class TruthNode:
    """The properties of one node: lengths in mm, attenuation in HU, positions as in `alnnode.records`.

    ``number`` is the value of the node's voxels in `Phantom.labels`: 1-based, right axilla first, then left, from the head down.
    ``eccentricity`` (0 to 1), ``lobulation`` and ``cortex_hu`` are the sampled values, before blur and noise.
    ``short_axis_mm`` and ``long_axis_mm`` lie on slice ``slice_index``, the one with the largest cross-section.
    """

    number: int
    side: Side
    level: Level
    malignant: bool
    box: Box
    slice_index: int
    centre_mm: tuple[float, float, float]
    short_axis_mm: float
    long_axis_mm: float
    cortex_mm: float
    hilum: bool
    spiculated: bool
    stranding: bool
    eccentricity: float
    lobulation: float
    cortex_hu: float
    mean_hu: float
    max_hu: float
    volume_mm3: float


def measure_node(number: int, node: PlacedNode, image: LabelledImage, patient: PatientParameters) -> TruthNode:
    """Return the truth of a node.

    Args:
        number: of the node in the labels of the image.
        node: as it was placed, before the image was turned for a prone patient.
        image: the stored image.
        patient: the patient of the image.
    """
    ks, js, iss = node.patch.where
    if patient.position is Position.HFP:
        _, rows, columns = image.hu.shape
        js, iss = slice(rows - js.stop, rows - js.start), slice(columns - iss.stop, columns - iss.start)
    mask = image.labels[ks, js, iss] == number
    k, j, i = np.nonzero(mask)
    box = Box(
        *(int(v) for v in (ks.start + k.min(), js.start + j.min(), iss.start + i.min())),
        *(int(v) + 1 for v in (ks.start + k.max(), js.start + j.max(), iss.start + i.max())),
    )
    largest = int(np.argmax(mask.sum(axis=(1, 2))))
    long_axis, short_axis = diameters(mask[largest], patient.spacing)
    values = image.hu[ks, js, iss][mask]
    centroid = image.affine @ np.array([ks.start + k.mean(), js.start + j.mean(), iss.start + i.mean(), 1.0])
    plan = node.plan
    return TruthNode(
        number=number,
        side=node.side,
        level=node.level,
        malignant=plan.malignant,
        box=box,
        slice_index=ks.start + largest,
        centre_mm=(round(float(centroid[0]), 3), round(float(centroid[1]), 3), round(float(centroid[2]), 3)),
        short_axis_mm=round(short_axis, 2),
        long_axis_mm=round(long_axis, 2),
        cortex_mm=round(plan.cortex if plan.hilum else short_axis, 2),
        hilum=plan.hilum,
        spiculated=plan.spiculation > 0,
        stranding=plan.stranding > 0,
        eccentricity=round(plan.eccentric, 3),
        lobulation=round(plan.lobulation, 3),
        cortex_hu=round(plan.cortex_hu, 1),
        mean_hu=round(float(values.mean()), 2),
        max_hu=float(values.max()),
        volume_mm3=round(float(mask.sum()) * patient.spacing**2 * patient.thickness, 2),
    )
