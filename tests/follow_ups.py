"""Follow-up examinations of phantoms: the same patient in another position and breathing state, with nodes that grew or shrank."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from analyses import MODEL
from pydicom import Dataset
from scipy import ndimage
from scipy.spatial.transform import Rotation

from alnnode import phantom
from alnnode.follow_up.node_centre import node_centre
from alnnode.follow_up.registration import chest_surface
from alnnode.imaging.crop import CropSettings, crops_for
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.measure import node_from_mask
from alnnode.records import Analysis, Crop, Finding, Prediction, Side, Volume
from alnnode.records.comparison import ComparisonRecord, PriorNode, PriorReport

SETTINGS = phantom.PhantomSettings(slices=(80, 80), thickness_mm=(2.0, 2.0), min_nodes_per_side=3, max_nodes_per_side=8)
BEFORE = date(2025, 11, 2)
UID = "2.25.4242"


@dataclass(frozen=True)
class Examination:
    """A series with its labels: the same number is the same node in both examinations."""

    volume: Volume
    labels: np.ndarray


@dataclass(frozen=True)
class Motion:
    """Position of the patient in the second examination: rotation (degrees about x, y, z), shift (mm), and a smooth deformation (mm)."""

    turn: tuple[float, float, float] = (3.0, -2.0, 6.0)
    shift: tuple[float, float, float] = (14.0, -9.0, 11.0)
    bend: float = 2.5
    noise: float = 8.0


def dated(day: str) -> Dataset:
    """Return a header with a Study Date."""
    header = Dataset()
    header.StudyDate = day
    return header


def first(made: phantom.Phantom) -> Examination:
    """Return the phantom unchanged."""
    return Examination(Volume(made.hu, made.affine, (), dated("20251102"), made.spacing), made.labels)


def second(made: phantom.Phantom, motion: Motion, sizes: dict[int, float], seed: int) -> Examination:
    """Return the follow-up; ``sizes`` scales nodes by their number, 0 removes one."""
    rng = np.random.default_rng(seed)
    spacing = np.array(made.spacing)
    shape = made.hu.shape
    centre = (np.array(shape) - 1) / 2 * spacing
    rotation = Rotation.from_euler("zyx", motion.turn, degrees=True)  # here z, y, x are the slice, row and column directions
    shift = np.array(motion.shift)[::-1]
    waves = [(rng.normal(0, 1, 3) / 60, rng.uniform(0, 2 * np.pi), rng.normal(0, 1, 3)) for _ in range(4)]
    hu, labels = np.empty(shape, np.int16), np.empty(shape, np.uint16)
    source_hu, source_labels = made.hu.astype(np.float32), made.labels
    centres = {
        n.number: np.array(ndimage.center_of_mass(made.labels == n.number)) * spacing for n in made.nodes if n.number in sizes
    }
    reach = {n.number: n.long_axis_mm / 2 + 1.5 for n in made.nodes}
    y, x = np.meshgrid(np.arange(shape[1]) * spacing[1], np.arange(shape[2]) * spacing[2], indexing="ij")
    for k in range(shape[0]):
        at = np.stack([np.full_like(y, k * spacing[0]), y, x], axis=-1).reshape(-1, 3)
        source = rotation.inv().apply(at - centre - shift) + centre
        for frequency, phase, direction in waves:
            source += motion.bend / 2 * np.sin(source @ frequency + phase)[:, None] * direction
        gone = np.zeros(len(source), bool)
        for number, size in sizes.items():
            away = source - centres[number]
            radius = np.linalg.norm(away, axis=1)
            if size == 0:
                gone |= radius < reach[number]
                continue
            # Inside the node everything is size times as large; beyond, the neighbourhood makes room.
            inner = reach[number] * max(size, 1)
            fade = np.clip((2 * inner - radius) / inner, 0, 1)
            source = centres[number] + away * (1 + fade * (1 / size - 1))[:, None]
        index = (source / spacing).T
        plane = ndimage.map_coordinates(source_hu, index, order=1, mode="constant", cval=-1000)
        plane[gone] = -100
        plane += rng.normal(0, motion.noise, plane.shape)
        hu[k] = np.rint(plane).clip(-1024, 3071).reshape(shape[1:])
        number = ndimage.map_coordinates(source_labels, index, order=0, mode="constant")
        number[gone] = 0
        labels[k] = number.reshape(shape[1:])
    return Examination(Volume(hu, made.affine, (), dated("20260504"), made.spacing), labels)


def analysed(examination: Examination, nodes: list, coverage=()) -> Analysis:
    """Return the analysis with these nodes; probabilities are proportional to the short axis."""
    findings = tuple(
        Finding(
            node,
            Prediction(p := min(node.short_axis.length_mm / 30, 1.0), {Crop.FSC: p, Crop.ASC: p}),
            (),
            crops_for(examination.volume, node, CropSettings(pixels=16)),
        )
        for node in nodes
    )
    return Analysis(examination.volume.header, MODEL, examination.volume, findings, coverage)


def report_of(analysis: Analysis, sides: tuple[Side, ...] = tuple(Side)) -> PriorReport:
    """Return the prior report of an analysis; the tracking UID of each node ends with its number."""
    nodes = tuple(
        PriorNode(
            tracking_uid=f"{UID}.{finding.node.number}",
            number=finding.node.number,
            side=finding.node.side,
            centre=node_centre(analysis.volume, finding.node),
            long_axis_mm=finding.node.long_axis.length_mm,
            short_axis_mm=finding.node.short_axis.length_mm,
            probability=finding.prediction.probability,
        )
        for finding in analysis.findings
    )
    record = ComparisonRecord(
        model_digest=MODEL.digest,
        slice_mm=2.0,
        surface=chest_surface(ChestAnatomy(analysis.volume)).sample,
        covered=sides,
        nodes=nodes,
    )
    return PriorReport(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
        sop_instance_uid=f"{UID}.1000",
        series_instance_uid=f"{UID}.1001",
        study_instance_uid=f"{UID}.1002",
        study_date=BEFORE,
        record=record,
    )


def true_nodes(examination: Examination, made: phantom.Phantom) -> list:
    """Return the measured nodes of all labels in the examination."""
    found = []
    for node in made.nodes:
        mask = examination.labels == node.number
        if mask.sum() < 10:
            continue
        (box,) = ndimage.find_objects(mask.astype(np.uint8))
        found.append(node_from_mask(examination.volume, mask[box], tuple(s.start for s in box), node.side, node.number))
    return found


def true_number(examination: Examination, node) -> int:
    """Return the label that a found node overlaps; 0 for none."""
    box = tuple(slice(a, b) for a, b in zip(node.box.low, node.box.high, strict=True))
    labels = examination.labels[box][node.mask]
    counts = np.bincount(labels, minlength=2)
    counts[0] = 0
    number = int(counts.argmax())
    # Of the smaller of both: what was found may reach along a vessel, or hold a part of the node only.
    smaller = min(labels.size, int((examination.labels == number).sum()))
    return number if counts[number] > 0.3 * smaller else 0


def cut(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return a mask cropped to its box, and the offset of the box."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return mask[box], tuple(s.start for s in box)
