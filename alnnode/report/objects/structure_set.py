"""RT Structure Set (PS3.3 A.19): the outline of every node on each of its slices, one ROI each, for planning systems.

The coordinates are those of the patient (mm, LPS). The points lie on the plane of the source image that the contour refers to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import RTStructureSetStorage

from alnnode import RESULTS
from alnnode.records import ObjectRole
from alnnode.report import codes, wording
from alnnode.report.capture import drawing
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.objects.frames_on_slices import frame_of_reference
from alnnode.report.outlines import Outline, outlines
from alnnode.report.series_naming import series_description, series_number
from alnnode.report.source_images import source_image
from alnnode.report.times import moment
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from alnnode.records import Analysis, Finding, ReportContext, ResultObject, SliceRef, Volume

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # PS3.3 C.8.8.5 requires a class for the study; planning systems know this retired one

KIND = ObjectKind(
    ObjectRole.STRUCTURE_SET,
    "outlines",
    12,
    ObjectNature.OTHER,
    Code("RESULT-RTSTRUCT", codes.SCHEME, "RT Structure Set of nodes"),
    content_date=False,  # it has the Structure Set Date instead
)


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return one object with an ROI for each node, numbered as in the report; nothing where no node was found."""
    volume, found = analysis.volume, analysis.findings
    if volume is None or not found:
        return []
    images = [source_image(analysis, reference) for reference in volume.slices]
    frame = frame_of_reference(images)
    made = Dataset()
    made.SOPClassUID = RTStructureSetStorage
    made.SOPInstanceUID = result_uid(analysis, context, "rtstruct", "instance")
    made.SeriesInstanceUID = result_uid(analysis, context, "rtstruct", "series")
    made.SeriesNumber = series_number(analysis, KIND)
    made.InstanceNumber = 1
    made.Modality = "RTSTRUCT"
    made.OperatorsName = None
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = frame, None
    # Planning systems show the label and the name, and not always the Series Description.
    made.StructureSetLabel = f"{RESULTS[0].partition(' of ')[0]}{' - DEMO' if analysis.model.demonstration else ''}"
    made.StructureSetName = series_description(analysis, KIND)
    made.StructureSetDescription = analysis.model.banner
    made.StructureSetDate, made.StructureSetTime, _ = moment(analysis.header, context)
    made.ApprovalStatus = "UNAPPROVED"  # no person has reviewed it
    made.ReferencedFrameOfReferenceSequence = [_referenced_frame(frame, images)]
    made.StructureSetROISequence = [_roi(finding, frame, analysis) for finding in found]
    made.ROIContourSequence = [_contours(finding, volume, analysis) for finding in found]
    made.RTROIObservationsSequence = [_observation(finding) for finding in found]
    return [finish(made, analysis, context, KIND)]


def _referenced_frame(frame: str, images: list[Dataset]) -> Dataset:
    """Return the item that refers to all images of the source series, each once: a multi-frame image has one reference."""
    item, study, series = Dataset(), Dataset(), Dataset()
    classes = {image.SOPInstanceUID: image.SOPClassUID for image in images}
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [_image(sop_class, instance, None) for instance, sop_class in classes.items()]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    item.FrameOfReferenceUID = frame
    item.RTReferencedStudySequence = [study]
    return item


def _image(sop_class: str, sop_instance: str, frame_number: int | None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if frame_number is not None:
        item.ReferencedFrameNumber = frame_number
    return item


def _roi(finding: Finding, frame: str, analysis: Analysis) -> Dataset:
    item, model = Dataset(), analysis.model
    item.ROINumber = finding.node.number
    item.ReferencedFrameOfReferenceUID = frame
    item.ROIName = wording.title(finding)
    item.ROIDescription = wording.verdict(finding, analysis)
    item.ROIGenerationAlgorithm = "SEMIAUTOMATIC" if finding.node.source.by_person else "AUTOMATIC"
    item.ROIGenerationDescription = f"{model.name} {model.version}"[:64]
    return item


def _contours(finding: Finding, volume: Volume, analysis: Analysis) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(drawing.ink(finding, analysis))
    item.ReferencedROINumber = finding.node.number
    item.ContourSequence = [_contour(number, *drawn, volume) for number, drawn in enumerate(outlines(finding.node), start=1)]
    return item


def _contour(number: int, k: int, outline: Outline, volume: Volume) -> Dataset:
    item, reference = Dataset(), volume.slices[k]
    item.ContourNumber = number
    item.ContourImageSequence = [_image(reference.sop_class_uid, reference.sop_instance_uid, reference.frame_number)]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(outline)
    item.ContourData = _patient_points(outline, reference, volume)
    return item


def _patient_points(outline: Outline, reference: SliceRef, volume: Volume) -> list[float]:
    """Return x, y, z of every point (mm, LPS), from the position of the image itself and not from that of the regular grid."""
    points = np.array(reference.position) + outline @ volume.affine[:3, 1:3].T
    return [round(float(value), 4) + 0.0 for value in points.ravel()]


def _observation(finding: Finding) -> Dataset:
    """Return the observation of a node: what it is. Its role in a treatment (a target, an organ at risk) is for a person to state."""
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = finding.node.number
    item.RTROIIdentificationCodeSequence = [CodedConcept.from_code(codes.AXILLARY_LYMPH_NODE)]
    item.RTROIInterpretedType = None
    item.ROIInterpreter = None
    return item
