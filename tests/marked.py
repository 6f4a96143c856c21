"""Objects with marks on a CT series, as other programs write them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from alnnode.records import Node, Volume

ROOT = "1.2.826.0.1.3680043.10.998"
SR, RTSTRUCT, SEG, GSPS, KO = (
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("88.22", "481.3", "66.4", "11.1", "88.59")
)  # fmt: skip
NAMES = {
    "126000": "Imaging Measurement Report", "126010": "Imaging Measurements", "125007": "Measurement Group",
    "112039": "Tracking Identifier", "112040": "Tracking Unique Identifier", "111028": "Image Library",
    "126200": "Image Library Group", "121071": "Finding", "121008": "Person Observer Name", "111030": "Image Region",
    "121058": "Procedure reported", "121106": "Comment", "111040": "Original Source",
}  # fmt: skip


def item(**attributes: Any) -> Dataset:
    """A data set of these attributes."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def code(value: str, scheme: str = "DCM", meaning: str | None = None) -> Dataset:
    """A coded concept."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning or NAMES.get(value, value))


def content(
    kind: str, name: Dataset | None, relation: str = "CONTAINS", below: Sequence[Dataset] = (), **values: Any
) -> Dataset:
    """A content item of a report."""
    made = item(ValueType=kind, RelationshipType=relation, **values)
    if name is not None:
        made.ConceptNameCodeSequence = [name]
    if kind == "CONTAINER":
        made.ContinuityOfContent = "SEPARATE"
    if below:
        made.ContentSequence = list(below)
    return made


def image(volume: Volume, k: int) -> Dataset:
    """A reference to a slice."""
    return item(
        ReferencedSOPClassUID=volume.slices[k].sop_class_uid, ReferencedSOPInstanceUID=volume.slices[k].sop_instance_uid
    )


def instance(volume: Volume, sop_class: str, modality: str, number: int = 1, **attributes: Any) -> FileDataset:
    """An object in the study of a series."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, f"{ROOT}.{number}"
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = sop_class, f"{ROOT}.{number}", modality
    made.StudyInstanceUID, made.SeriesInstanceUID = volume.header.StudyInstanceUID, f"{ROOT}.{number}.1"
    made.PatientName, made.PatientID = volume.header.PatientName, volume.header.PatientID
    made.Manufacturer, made.ContentDate, made.ContentTime = "Unspecified", "20260301", f"10{number % 60:02d}00"
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def scoord(
    volume: Volume, k: int, kind: str, points: Any, relation: str = "INFERRED FROM", name: Dataset | None = None
) -> Dataset:
    """Coordinates on a slice, (column, row)."""
    flat = [float(v) for v in np.asarray(points).ravel()]
    source = content("IMAGE", None, "SELECTED FROM", ReferencedSOPSequence=[image(volume, k)])
    return content("SCOORD", name, relation, [source], GraphicType=kind, GraphicData=flat)


def number(name: Dataset, value: float, below: Sequence[Dataset]) -> Dataset:
    """A measurement."""
    measured = item(NumericValue=f"{value:.3f}", MeasurementUnitsCodeSequence=[code("mm", "UCUM", "millimeter")])
    return content("NUM", name, "CONTAINS", below, MeasuredValueSequence=[measured])


def group(tracking_uid: str, tool: str, below: Sequence[Dataset], label: str = "") -> Dataset:
    """A measurement group after cornerstone's adapters (dcmjs)."""
    items = [
        content("TEXT", code("112039"), "HAS OBS CONTEXT", TextValue=f"Cornerstone3DTools@^0.1.0:{tool}"),
        content("UIDREF", code("112040"), "HAS OBS CONTEXT", UID=tracking_uid),
    ]
    if label:
        free = code("CORNERSTONEFREETEXT", "CORNERSTONEJS", label)
        items.append(content("CODE", code("121071"), "CONTAINS", ConceptCodeSequence=[free]))
    return content("CONTAINER", code("125007"), "CONTAINS", [*items, *below])


def bidirectional(volume: Volume, node: Node, tracking_uid: str, label: str = "") -> Dataset:
    """A node's axes as OHIF stores a Bidirectional."""
    lines = []
    for name, key, axis in (("Long Axis", "G-A185", node.long_axis), ("Short Axis", "G-A186", node.short_axis)):
        line = scoord(volume, node.slice_index, "POLYLINE", [axis.start, axis.end])
        lines.append(number(code(key, "SRT", name), axis.length_mm, [line]))
    return group(tracking_uid, "Bidirectional", lines, label)


def report(volume: Volume, groups: Sequence[Dataset], number: int = 1, **attributes: Any) -> FileDataset:
    """A report with measurement groups, in the structure that OHIF (dcmjs) writes."""
    evidence = item(
        StudyInstanceUID=volume.header.StudyInstanceUID,
        ReferencedSeriesSequence=[
            item(SeriesInstanceUID=volume.header.SeriesInstanceUID, ReferencedSOPSequence=[image(volume, 0)])
        ],
    )
    below = [
        content("PNAME", code("121008"), "HAS OBS CONTEXT", PersonName="unknown^unknown"),
        content("CODE", code("121058"), "HAS CONCEPT MOD", ConceptCodeSequence=[code("1", "99dcmjs", "Unknown procedure")]),
        content("CONTAINER", code("126010"), "CONTAINS", groups),
    ]
    return instance(
        volume, SR, "SR", number, ValueType="CONTAINER", ConceptNameCodeSequence=[code("126000")], ContinuityOfContent="SEPARATE",
        CurrentRequestedProcedureEvidenceSequence=[evidence], CompletionFlag="COMPLETE", VerificationFlag="UNVERIFIED",
        ContentTemplateSequence=[item(MappingResource="DCMR", TemplateIdentifier="1500")], ContentSequence=below, **attributes,
    )  # fmt: skip


def referenced(volume: Volume, slices: Sequence[int]) -> Dataset:
    """An item of the Referenced Series Sequence."""
    images = [image(volume, k) for k in slices]
    return item(
        SeriesInstanceUID=volume.header.SeriesInstanceUID, ReferencedImageSequence=images, ReferencedInstanceSequence=images
    )


def structures(
    volume: Volume, rois: Sequence[tuple[str, list[tuple[int, Any]]]], number: int = 1, **attributes: Any
) -> FileDataset:
    """An RT Structure Set; each ROI has a name and contours (slice, (column, row) points)."""
    frame = volume.header.FrameOfReferenceUID
    series = item(SeriesInstanceUID=volume.header.SeriesInstanceUID, ContourImageSequence=[image(volume, 0)])
    study = item(ReferencedSOPInstanceUID=volume.header.StudyInstanceUID, RTReferencedSeriesSequence=[series])
    contours = []
    for place, (_, drawn) in enumerate(rois, start=1):
        items = []
        for k, points in drawn:
            corners = [volume.patient_point(k, row - 0.5, column - 0.5) for column, row in points]
            flat = [f"{v:.4f}" for corner in corners for v in corner]
            items.append(item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(corners), ContourData=flat))
        contours.append(item(ReferencedROINumber=place, ContourSequence=items))
    return instance(
        volume, RTSTRUCT, "RTSTRUCT", number, StructureSetLabel="nodes", StructureSetDate="20260301", StructureSetTime="100000",
        ReferencedFrameOfReferenceSequence=[item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])],
        StructureSetROISequence=[
            item(ROINumber=place, ReferencedFrameOfReferenceUID=frame, ROIName=name, ROIGenerationAlgorithm="MANUAL")
            for place, (name, _) in enumerate(rois, start=1)
        ],
        ROIContourSequence=contours, **attributes,
    )  # fmt: skip


def segmentation(
    volume: Volume, segments: Sequence[tuple[str, str, Any]], number: int = 1, *, fractional: bool = False, **attributes: Any
) -> FileDataset:
    """A Segmentation; each segment has a label, a tracking UID and a mask of the volume's shape."""
    a = volume.affine
    frames, groups = [], []
    for place, (_, _, mask) in enumerate(segments, start=1):
        for k in np.flatnonzero(mask.any(axis=(1, 2))):
            frames.append(mask[k])
            groups.append(
                item(
                    SegmentIdentificationSequence=[item(ReferencedSegmentNumber=place)],
                    PlanePositionSequence=[item(ImagePositionPatient=[f"{v:.4f}" for v in volume.patient_point(k, 0, 0)])],
                )
            )
    cosines = [*(a[:3, 2] / np.linalg.norm(a[:3, 2])), *(a[:3, 1] / np.linalg.norm(a[:3, 1]))]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[f"{v:.6f}" for v in cosines])],
        PixelMeasuresSequence=[item(PixelSpacing=[f"{v:.6f}" for v in volume.spacing[1:]], SliceThickness="1")],
    )
    stack = np.array(frames)
    data = (stack * 200).astype(np.uint8).tobytes() if fractional else np.packbits(stack.ravel(), bitorder="little").tobytes()
    bits = 8 if fractional else 1
    if fractional:
        attributes["MaximumFractionalValue"] = 255
    made = instance(
        volume, SEG, "SEG", number, FrameOfReferenceUID=volume.header.FrameOfReferenceUID, Rows=stack.shape[1], Columns=stack.shape[2],
        NumberOfFrames=len(frames), SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", PixelRepresentation=0,
        BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, SegmentationType="FRACTIONAL" if fractional else "BINARY",
        SegmentSequence=[
            item(SegmentNumber=place, SegmentLabel=label, TrackingID=label, TrackingUID=uid)
            for place, (label, uid, _) in enumerate(segments, start=1)
        ],
        SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=groups,
        ReferencedSeriesSequence=[referenced(volume, [0])], PixelData=data + b"\0" * (len(data) % 2), **attributes,
    )  # fmt: skip
    made["PixelData"].VR = "OB"
    return made


def presentation(volume: Volume, graphics: Sequence[tuple[int, str, Any]], number: int = 1, **attributes: Any) -> FileDataset:
    """A Grayscale Softcopy Presentation State; each graphic has a slice, a type and (column, row) points."""
    annotations = []
    for k, kind, points in graphics:
        flat = [float(v) for v in np.asarray(points).ravel()]
        graphic = item(
            GraphicAnnotationUnits="PIXEL", GraphicDimensions=2, NumberOfGraphicPoints=len(flat) // 2, GraphicData=flat,
            GraphicType=kind, GraphicFilled="N",
        )  # fmt: skip
        annotations.append(item(ReferencedImageSequence=[image(volume, k)], GraphicObjectSequence=[graphic]))
    slices = sorted({k for k, _, _ in graphics})
    return instance(
        volume, GSPS, "PR", number, ReferencedSeriesSequence=[referenced(volume, slices)], GraphicAnnotationSequence=annotations,
        **attributes,
    )  # fmt: skip


def key_objects(volume: Volume, slices: Sequence[int], number: int = 1) -> FileDataset:
    """A Key Object Selection."""
    evidence = item(
        StudyInstanceUID=volume.header.StudyInstanceUID,
        ReferencedSeriesSequence=[
            item(SeriesInstanceUID=volume.header.SeriesInstanceUID, ReferencedSOPSequence=[image(volume, k) for k in slices])
        ],
    )
    below = [content("IMAGE", None, ReferencedSOPSequence=[image(volume, k)]) for k in slices]
    return instance(
        volume, KO, "KO", number, ValueType="CONTAINER", ConceptNameCodeSequence=[code("113000", "DCM", "Of Interest")],
        ContinuityOfContent="SEPARATE", CurrentRequestedProcedureEvidenceSequence=[evidence], ContentSequence=below,
    )  # fmt: skip


def encoded(made: FileDataset) -> bytes:
    """Bytes of a Part 10 file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(made: FileDataset, folder: Path) -> Path:
    """Write an object below a folder; its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{made.SOPInstanceUID}.dcm"
    path.write_bytes(encoded(made))
    return path
