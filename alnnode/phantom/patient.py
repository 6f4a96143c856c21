"""One phantom: anatomy, vessels, nodes and noise, and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.axilla_anatomy import AxillaAnatomy
from alnnode.phantom.axilla_parameters import AxillaParameters, sample_axilla
from alnnode.phantom.canvas import Canvas
from alnnode.phantom.chest_anatomy import ChestAnatomy
from alnnode.phantom.clutter import draw_clutter
from alnnode.phantom.devices import draw_devices
from alnnode.phantom.group_placement import place_groups
from alnnode.phantom.labelled_image import LabelledImage, add_noise
from alnnode.phantom.node_placement import place_nodes
from alnnode.phantom.noise import sample_tissue_texture
from alnnode.phantom.patient_parameters import PatientParameters, sample_patient
from alnnode.phantom.settings import PhantomSettings, Position, Surroundings
from alnnode.phantom.side_canvas import SideCanvas
from alnnode.phantom.slice_grid import SliceGrid
from alnnode.phantom.truth_node import TruthNode, measure_node
from alnnode.phantom.vessels import draw_vessels
from alnnode.records import Side

if TYPE_CHECKING:
    from alnnode.phantom.labelled_image import LabelArray
    from alnnode.records import AffineMatrix, FloatArray, HounsfieldArray


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic CT series with its truth.

    Attributes:
        seed: of the cohort.
        index: of the patient within the cohort.
        hu: int16 (slices, rows, columns), slices from the feet to the head, rows and columns as stored in the images.
        spacing: (slice, row, column) distances, mm.
        affine: 4x4, maps (k, j, i, 1) to patient millimetres (LPS), as `records.Volume`.
        labels: uint16, the shape of ``hu``: 0, or the number of the node (cortex and hilum).
        nodes: the truth of each node, in the order of their numbers.
        patient: the sampled properties of the patient and the acquisition.
    """

    seed: int
    index: int
    hu: HounsfieldArray
    spacing: tuple[float, float, float]
    affine: AffineMatrix
    labels: LabelArray
    nodes: tuple[TruthNode, ...]
    patient: PatientParameters


def make_patient(seed: int, index: int, settings: PhantomSettings | None = None) -> Phantom:
    """Return patient ``index`` of the cohort ``seed``; the same arguments give the same arrays.

    Args:
        seed: of the cohort, not negative.
        index: of the patient within it, not negative.
        settings: fixed values and ranges; None uses the defaults.
    """
    settings = settings or PhantomSettings()
    rng = np.random.default_rng([seed, index])
    patient = sample_patient(rng, settings)
    # Axillae have a generator of their own, so that phantoms with plain surroundings do not depend on them.
    axilla_rng = np.random.default_rng([seed, index, 16])
    axilla = sample_axilla(axilla_rng, patient) if settings.surroundings is Surroundings.AXILLA else None
    canvas = _draw_chest(patient, settings, rng, axilla)
    sides = [SideCanvas(canvas, patient, side) for side in (Side.RIGHT, Side.LEFT)]
    for target in sides:
        draw_vessels(target, rng)
    if axilla is None:
        placed = [node for target in sides for node in place_nodes(target, settings, rng)]
    else:
        for target in sides:
            draw_clutter(target, axilla, axilla_rng)
        placed = [node for target in sides for node in place_groups(target, settings, axilla_rng)]
        draw_devices(canvas, patient, axilla, axilla_rng)
    labels = np.zeros(canvas.hu.shape, np.uint16)
    for number, node in enumerate(placed, 1):
        labels[node.patch.where][node.mask] = number
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, patient.spacing], [0, patient.spacing, 0], [patient.thickness, 0, 0]]
    affine[:3, 3] = canvas.origin
    image = LabelledImage(add_noise(canvas, patient, rng), labels, affine)
    if patient.position is Position.HFP:
        image = image.turned_prone()
    nodes = tuple(measure_node(n, node, image, patient) for n, node in enumerate(placed, 1))
    spacing = (patient.thickness, patient.spacing, patient.spacing)
    return Phantom(seed, index, image.hu, spacing, image.affine, image.labels, nodes, patient)


def _draw_chest(
    patient: PatientParameters, settings: PhantomSettings, rng: np.random.Generator, axilla: AxillaParameters | None
) -> Canvas:
    """Return a canvas with the chest, drawn at half the resolution and interpolated."""
    size, spacing = settings.size, patient.spacing
    half = size // 2
    first = -(size - 1) / 2 * spacing
    pixels = (first + spacing / 2 + 2 * spacing * np.arange(half)).astype(np.float32)
    prone = patient.position is Position.HFP
    body_back = (88 + 40 + 0.5 * patient.fat + 4) * patient.scale + patient.shift[1]
    body_front = -(96 + 22 + 0.8 * patient.fat + patient.breast + 12) * patient.scale + patient.shift[1]
    table = (body_front, -1) if prone else (body_back, 1)
    grid = SliceGrid(patient, pixels, pixels, sample_tissue_texture(rng))
    chest = AxillaAnatomy(patient, grid, table, axilla) if axilla else ChestAnatomy(patient, grid, table)
    hu = np.empty((patient.slices, size, size), np.float32)
    for k in range(patient.slices):
        _upsample(chest.draw_slice(patient.lowest + k * patient.thickness), hu[k])
    return Canvas(hu, (first, first, patient.lowest), spacing, patient.thickness)


def _upsample(small: FloatArray, out: FloatArray) -> None:
    """Write ``small`` at twice the resolution into ``out``, with linear interpolation between pixel centres."""
    wide = np.empty((small.shape[0], out.shape[1]), np.float32)
    _upsample_rows(small.T, wide.T)
    _upsample_rows(wide, out)


def _upsample_rows(source: FloatArray, out: FloatArray) -> None:
    near = np.float32(0.75) * source
    far = np.float32(0.25) * source
    np.add(near[1:], far[:-1], out=out[2::2])
    np.add(near[:-1], far[1:], out=out[1:-1:2])
    out[0], out[-1] = source[0], source[-1]
