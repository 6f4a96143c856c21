"""The cohort of a small hospital: DICOM series of a body with nodes, and the same nodes as marked by annotation tools."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import analyses
import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage
from skimage.measure import find_contours
from sources import ct_files

from alnnode.locate.measure import node_from_mask
from alnnode.records import Node, NodeSource, Side, SliceRef, Volume
from training.clinical import node_table
from training.clinical.node_table import NodeRow

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
    """A folder of DICOM files, and the patients in it."""

    folder: Path
    patients: list[Patient]

    @property
    def nodes(self) -> list[tuple[Patient, Node, bool]]:
        """The nodes of all patients."""
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
    # Strands and vessels differ between patients; without them, all patients would have the same body.
    texture = ndimage.gaussian_filter(np.random.default_rng([number, 1]).normal(0, 1, plain.voxels.shape), [1, 1.5, 1.5])
    structure = np.where(plain.voxels > -500, texture * (50 / texture.std()), 0)
    voxels = np.ascontiguousarray(plain.voxels + (rng.normal(0, 8, plain.voxels.shape) + structure).astype(np.int16))
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
        nodes.append(replace(node_from_mask(volume, masks == n, (0, 0, 0), side, n), source=NodeSource.READER))
    return Patient(f"H-{number}", volume, masks, nodes, malignant)


def row_of(one: Patient, node: Node, bad: bool) -> NodeRow:
    """Return the row of the table with the ground truth of a node."""
    header = one.volume.header
    origin = NodeRow(one.name, header.StudyInstanceUID, header.SeriesInstanceUID, "", None, 0, 0, 0, 0)
    return replace(node_table.row_of_node(node, one.volume, origin), label="malignant" if bad else "benign")


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


def outlines(one: Patient, node: Node) -> dict[int, npt.NDArray[np.float64]]:
    """Return the node's outline (row, column) in voxel coordinates on each of its slices, along the edges of its pixels."""
    found = {}
    for k in range(node.box.k0, node.box.k1):
        plane = np.pad(one.masks[k] == node.number, 1)
        found[k] = max(find_contours(plane.astype(float), 0.5, positive_orientation="high"), key=len)[:-1] - 1
    return found


def images(one: Patient) -> list[Dataset]:
    """Return the instances of a patient."""
    return [dcmread(io.BytesIO(data)) for data in ct_files(one.volume)]


def report(
    one: Patient,
    path: Path,
    said: dict[int, str],
    maker: str = "Reader's workstation",
    evaluated: dict[int, list[tuple[Code, Code]]] | None = None,
) -> None:
    """Write a TID 1500 report by highdicom as a reader's: outlines, and where ``said`` has words for a node, these as a text.

    ``evaluated`` has a node's qualitative evaluations: what was asked, and the answer.
    """
    groups = []
    for node in one.nodes:
        at = one.volume.slices[node.slice_index]
        outline = outlines(one, node)[node.slice_index]
        points = np.vstack([outline, outline[:1]])[:, ::-1] + 0.5
        group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(
                uid=f"2.25.99{one.name[2:]}{node.number}", identifier=f"node {node.number}"
            ),
            referenced_region=hd.sr.ImageRegion(
                "POLYLINE", points, hd.sr.SourceImageForRegion(at.sop_class_uid, at.sop_instance_uid)
            ),
            finding_type=Code("59441001", "SCT", "Lymph node"),
            qualitative_evaluations=[
                hd.sr.QualitativeEvaluation(asked, answer) for asked, answer in (evaluated or {}).get(node.number, ())
            ],
        )
        if node.number in said:
            text = hd.sr.TextContentItem(
                Code("121106", "DCM", "Comment"), said[node.number], hd.sr.RelationshipTypeValues.CONTAINS
            )
            group[0].ContentSequence.append(text)
        groups.append(group)
    observer = hd.sr.ObserverContext(
        Code("121006", "DCM", "Person"), hd.sr.PersonObserverIdentifyingAttributes(name="Reader^A")
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_person_context=observer),
        procedure_reported=Code("25045-6", "LN", "CT unspecified body region"),
        imaging_measurements=groups,
    )
    evidence = images(one)
    document = hd.sr.ComprehensiveSR(
        evidence=[
            image
            for image in evidence
            if image.SOPInstanceUID in {one.volume.slices[n.slice_index].sop_instance_uid for n in one.nodes}
        ],
        content=content[0],
        series_instance_uid=f"2.25.88{one.name[2:]}",
        series_number=9,
        sop_instance_uid=f"2.25.87{one.name[2:]}",
        instance_number=1,
        manufacturer=maker,
    )
    document.save_as(path)


def segmentation(one: Patient, path: Path) -> None:
    """Write a segmentation by highdicom: one segment for each node, its class as the label."""
    planes = np.stack([one.masks == node.number for node in one.nodes], -1)
    described = [
        hd.seg.SegmentDescription(
            node.number,
            "metastatic" if bad else "reactive",
            Code("91723000", "SCT", "Anatomical structure"),
            Code("59441001", "SCT", "Lymph node"),
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for node, bad in zip(one.nodes, one.malignant, strict=True)
    ]
    made = hd.seg.Segmentation(
        source_images=images(one),
        pixel_array=planes,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=f"2.25.78{one.name[2:]}",
        series_number=8,
        sop_instance_uid=f"2.25.77{one.name[2:]}",
        instance_number=1,
        manufacturer="Reader's workstation",
        manufacturer_model_name="M",
        software_versions="1",
        device_serial_number="1",
    )
    made.save_as(path)


def structures(one: Patient, path: Path) -> None:
    """Write an RT Structure Set: contours in patient coordinates on each slice, the class as the ROI's name."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, f"2.25.67{one.name[2:]}"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = (
        one.volume.header.StudyInstanceUID,
        f"2.25.68{one.name[2:]}",
        "RTSTRUCT",
    )
    made.StructureSetDate, made.StructureSetTime, made.Manufacturer = "20260102", "030405", "Reader's workstation"
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = one.volume.header.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = one.volume.header.FrameOfReferenceUID, [study]
    made.ReferencedFrameOfReferenceSequence = [frame]
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for node, bad in zip(one.nodes, one.malignant, strict=True):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber = node.number
        roi.ReferencedFrameOfReferenceUID, roi.ROIGenerationAlgorithm = one.volume.header.FrameOfReferenceUID, "MANUAL"
        roi.ROIName = "metastatic" if bad else "reactive"
        drawn.ReferencedROINumber, drawn.ContourSequence = node.number, []
        for k, outline in outlines(one, node).items():
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(outline)
            contour.ContourData = [round(c, 4) for row, column in outline for c in one.volume.patient_point(k, row, column)]
            drawn.ContourSequence.append(contour)
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(drawn)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    made.save_as(path, enforce_file_format=True)
