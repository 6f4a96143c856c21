"""One patient: anatomy, vessels, nodes and noise put together, with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.anatomy import Chest
from alnnode.phantom.axilla import AxillaChest
from alnnode.phantom.axilla_parameters import AxillaParameters, sample_axilla
from alnnode.phantom.canvas import Canvas
from alnnode.phantom.clutter import draw_clutter
from alnnode.phantom.devices import draw_devices
from alnnode.phantom.measure import diameters
from alnnode.phantom.noise import lay, noise_tiles, tissue_tile
from alnnode.phantom.patient_parameters import PatientParameters, sample_patient
from alnnode.phantom.placing import place_groups, place_nodes
from alnnode.phantom.settings import PhantomSettings, Position, Surroundings
from alnnode.phantom.vessels import draw_vessels
from alnnode.records import Box, Level, Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.placing import PlacedNode
    from alnnode.records import AffineMatrix, FloatArray, HounsfieldArray

    LabelArray = npt.NDArray[np.uint16]

_PADDING_HU = -1024


@dataclass(frozen=True, slots=True)
class TruthNode:
    """What is known of one node: lengths in mm, attenuation in HU, positions as in `alnnode.records`.

    ``number`` is the value of its voxels in `Phantom.labels`: 1-based, right axilla first, then left, from the head down.
    ``eccentricity`` (0 to 1), ``lobulation`` and ``cortex_hu`` are what was drawn, before blur and noise.
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


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic CT series with its truth.

    Attributes:
        hu: int16 (slices, rows, columns), slices from the feet to the head, rows and columns as stored in the images.
        spacing: (slice, row, column) distances, mm.
        affine: 4x4, maps (k, j, i, 1) to patient millimetres (LPS), as `records.Volume`.
        labels: uint16, the shape of ``hu``: 0, or the number of the node (cortex and hilum).
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
    """Make patient ``index`` of the cohort ``seed``: the same arguments give the same arrays.

    Args:
        seed: of the cohort, not negative.
        index: of the patient within it, not negative.
        settings: what is fixed rather than drawn.
    """
    settings = settings or PhantomSettings()
    rng = np.random.default_rng([seed, index])
    patient = sample_patient(rng, settings)
    wild = np.random.default_rng([seed, index, 16])  # of its own: plain surroundings stay as they are
    axilla = sample_axilla(wild, patient) if settings.surroundings is Surroundings.AXILLA else None
    canvas = _draw_chest(patient, settings, rng, axilla)
    sides = (Side.RIGHT, Side.LEFT)
    for side in sides:
        draw_vessels(canvas, patient, side, rng)
    if axilla is None:
        drawn = [node for side in sides for node in place_nodes(canvas, patient, settings, side, rng)]
    else:
        for side in sides:
            draw_clutter(canvas, patient, axilla, side, wild)
        drawn = [node for side in sides for node in place_groups(canvas, patient, settings, side, wild)]
        draw_devices(canvas, patient, axilla, wild)
    labels = np.zeros(canvas.hu.shape, np.uint16)
    for number, node in enumerate(drawn, 1):
        labels[node.patch.where][node.mask] = number
    hu = _expose(canvas, patient, rng)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, patient.spacing], [0, patient.spacing, 0], [patient.thickness, 0, 0]]
    affine[:3, 3] = canvas.origin
    if patient.position is Position.HFP:
        hu, labels, affine = _turn_prone(hu, labels, affine)
    nodes = tuple(_measure(n, node, hu, labels, affine, patient) for n, node in enumerate(drawn, 1))
    return Phantom(seed, index, hu, (patient.thickness, patient.spacing, patient.spacing), affine, labels, nodes, patient)


def _draw_chest(
    patient: PatientParameters, settings: PhantomSettings, rng: np.random.Generator, axilla: AxillaParameters | None
) -> Canvas:
    size, spacing = settings.size, patient.spacing
    half = size // 2
    first = -(size - 1) / 2 * spacing
    coarse = (first + spacing / 2 + 2 * spacing * np.arange(half)).astype(np.float32)
    prone = patient.position is Position.HFP
    body_back = (88 + 40 + 0.5 * patient.fat + 4) * patient.scale + patient.shift[1]
    body_front = -(96 + 22 + 0.8 * patient.fat + patient.breast + 12) * patient.scale + patient.shift[1]
    table = (body_front, -1) if prone else (body_back, 1)
    texture = tissue_tile(rng)
    chest = AxillaChest(patient, coarse, texture, table, axilla) if axilla else Chest(patient, coarse, coarse, texture, table)
    hu = np.empty((patient.slices, size, size), np.float32)
    for k in range(patient.slices):
        _double(chest.paint(patient.lowest + k * patient.thickness), hu[k])
    return Canvas(hu, (first, first, patient.lowest), spacing, patient.thickness)


def _double(small: FloatArray, out: FloatArray) -> None:
    """Write ``small`` at twice the resolution into ``out``, linear between pixel centres."""
    wide = np.empty((small.shape[0], out.shape[1]), np.float32)
    _interleave(small.T, wide.T)
    _interleave(wide, out)


def _interleave(source: FloatArray, out: FloatArray) -> None:
    near = np.float32(0.75) * source
    far = np.float32(0.25) * source
    np.add(near[1:], far[:-1], out=out[2::2])
    np.add(near[:-1], far[1:], out=out[1:-1:2])
    out[0], out[-1] = source[0], source[-1]


def _expose(canvas: Canvas, patient: PatientParameters, rng: np.random.Generator) -> HounsfieldArray:
    """Add noise and quantise."""
    slices, size, _ = canvas.hu.shape
    tiles = noise_tiles(rng, size)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    rounded = 0.72 + 0.5 * np.exp(-(axis[:, None] ** 2 / 0.25 + axis[None, :] ** 2 / 0.5))
    streak_map = np.exp(-(axis[:, None] ** 2 / 0.12)).astype(np.float32) * np.ones((1, size), np.float32)
    outside = np.hypot(axis[:, None], axis[None, :]) > 0.998
    out = np.empty(canvas.hu.shape, np.int16)
    for k in range(slices):
        height = (patient.lowest + k * patient.thickness) / patient.scale
        plane = canvas.hu[k] + lay(rng, tiles) * (patient.noise * rounded)
        shoulder = float(np.interp(height, [0, 55], [0, 0.9]))
        if shoulder > 0:  # photons are starved along the shoulders: streaks from side to side
            streaks = lay(rng, tiles)[: size // 2]
            streaks = np.repeat(streaks, 2, axis=0) + np.roll(np.repeat(streaks, 2, axis=0), 1, axis=0)
            smooth = np.cumsum(streaks, axis=1, dtype=np.float32)
            streaks = (smooth - np.roll(smooth, 24, axis=1)) * np.float32(0.12)
            plane += np.clip(streaks, -3, 3) * streak_map * (patient.noise * shoulder)
        np.clip(np.rint(plane), -1024, 3071, out=plane)
        if patient.padding:
            plane[outside] = _PADDING_HU
        out[k] = plane
    return out


def _turn_prone(
    hu: HounsfieldArray, labels: LabelArray, affine: AffineMatrix
) -> tuple[HounsfieldArray, LabelArray, AffineMatrix]:
    """Store rows and columns as a scanner does for a prone patient: both in-plane axes turned round."""
    _, rows, columns = hu.shape
    turned = affine.copy()
    turned[:3, 3] += affine[:3, 1] * (rows - 1) + affine[:3, 2] * (columns - 1)
    turned[:3, 1] *= -1
    turned[:3, 2] *= -1
    return np.ascontiguousarray(hu[:, ::-1, ::-1]), np.ascontiguousarray(labels[:, ::-1, ::-1]), turned


def _measure(
    number: int, node: PlacedNode, hu: HounsfieldArray, labels: LabelArray, affine: AffineMatrix, patient: PatientParameters
) -> TruthNode:
    ks, js, iss = node.patch.where
    if patient.position is Position.HFP:
        _, rows, columns = hu.shape
        js, iss = slice(rows - js.stop, rows - js.start), slice(columns - iss.stop, columns - iss.start)
    mask = labels[ks, js, iss] == number
    k, j, i = np.nonzero(mask)
    box = Box(
        *(int(v) for v in (ks.start + k.min(), js.start + j.min(), iss.start + i.min())),
        *(int(v) + 1 for v in (ks.start + k.max(), js.start + j.max(), iss.start + i.max())),
    )
    largest = int(np.argmax(mask.sum(axis=(1, 2))))
    long_axis, short_axis = diameters(mask[largest], patient.spacing)
    values = hu[ks, js, iss][mask]
    centroid = affine @ np.array([ks.start + k.mean(), js.start + j.mean(), iss.start + i.mean(), 1.0])
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
