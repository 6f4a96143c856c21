"""Captures: RGB Secondary Capture Image (PS3.3 A.8.1, A.8.5), one for each page. Every viewer shows this kind of result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from alnnode.records import CaptureForm, ObjectRole
from alnnode.report import codes, modules, wording
from alnnode.report.capture import node_page, summary_page
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.times import moment
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from alnnode.records import Analysis, ReportContext, ResultObject, SliceRef

_OUTLINES = codes.SEGMENTATION_DERIVATION

KIND = ObjectKind(
    ObjectRole.CAPTURE, "captures", 2, ObjectNature.IMAGE, Code("RESULT-CAPTURE", codes.SCHEME, "Capture with heatmaps")
)


@dataclass(frozen=True, slots=True)
class Page:
    """A picture, (rows, columns, 3), with the slices that it was derived from, and how."""

    pixels: npt.NDArray[np.uint8]
    sources: tuple[SliceRef, ...]
    derivation: Code | None


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the summary and one page per node, most probable first as in the report; nothing without a volume.

    The pages are single images, or the frames of one multi-frame image.
    """
    volume = analysis.volume
    if volume is None:
        return []
    ranked = wording.by_probability(analysis.findings)
    drawn = [
        Page(
            summary_page.summary_page(analysis, volume, context.window),
            _summary_sources(analysis),
            _OUTLINES if ranked else None,
        )
    ]
    drawn += [
        Page(
            node_page.node_page(finding, volume, analysis, context.window),
            (volume.slices[finding.node.slice_index],),
            codes.GRAD_CAM,
        )
        for finding in ranked
    ]
    if context.options.captures is CaptureForm.MULTIFRAME:
        return [_multi_frame(drawn, analysis, context)]
    return [_single_frame(page, number, analysis, context) for number, page in enumerate(drawn, start=1)]


def _summary_sources(analysis: Analysis) -> tuple[SliceRef, ...]:
    volume = analysis.volume
    assert volume is not None  # `build` has checked it
    shown = [k for k, _ in summary_page.shown_slices(analysis)] or [len(volume.slices) // 2]
    return tuple(volume.slices[k] for k in shown)


def _single_frame(page: Page, number: int, analysis: Analysis, context: ReportContext) -> ResultObject:
    image = _image([page], analysis, context)
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = result_uid(analysis, context, "capture", str(number))
    image.InstanceNumber = number
    return _finished(image, analysis, context)


def _multi_frame(drawn: list[Page], analysis: Analysis, context: ReportContext) -> ResultObject:
    """Return all pages as frames of one image; the Frame Increment Pointer names the page numbers (PS3.3 C.8.6.3)."""
    image = _image(drawn, analysis, context)
    image.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    image.SOPInstanceUID = result_uid(analysis, context, "capture", "frames")
    image.InstanceNumber = 1
    image.NumberOfFrames = len(drawn)
    if len(drawn) > 1:  # not allowed for a single frame (PS3.3 C.8.6.3)
        image.PageNumberVector = list(range(1, len(drawn) + 1))
        image.FrameIncrementPointer = Tag("PageNumberVector")
    return _finished(image, analysis, context)


def _finished(image: Dataset, analysis: Analysis, context: ReportContext) -> ResultObject:
    """Return the object, compressed in JPEG-LS Lossless when the options say so."""
    if not context.options.compressed:
        return finish(image, analysis, context, KIND)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    return finish(image, analysis, context, KIND, syntax=JPEGLSLossless)


def _image(drawn: list[Page], analysis: Analysis, context: ReportContext) -> Dataset:
    image = Dataset()
    image.SeriesInstanceUID = result_uid(analysis, context, "capture", "series")
    image.SeriesNumber = series_number(analysis, KIND)
    image.Modality = "OT"
    image.ConversionType = "WSD"
    # A page may show both axillae. The chest is not a paired body part, so there is no Laterality.
    image.BodyPartExamined = "CHEST"
    image.PatientOrientation = None
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.DerivationDescription = "Heatmaps (Grad-CAM) and boxes of axillary lymph nodes"
    derivations = {page.derivation.value: page.derivation for page in drawn if page.derivation is not None}
    if derivations:
        image.DerivationCodeSequence = [CodedConcept.from_code(code) for code in derivations.values()]
    image.SourceImageSequence = _sources(drawn)
    image.BurnedInAnnotation = "NO"  # the pixels hold no patient data
    image.RecognizableVisualFeatures = "NO"
    image.ImageComments = analysis.model.banner
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.Rows, image.Columns = drawn[0].pixels.shape[:2]
    image.PixelData = b"".join(page.pixels.tobytes() for page in drawn)
    image["PixelData"].VR = "OB"
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.LossyImageCompression = "00"
    image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture, _ = moment(analysis.header, context)
    image.SecondaryCaptureDeviceManufacturer = modules.MANUFACTURER
    image.SecondaryCaptureDeviceManufacturerModelName = modules.MODEL_NAME
    return image


def _sources(drawn: list[Page]) -> list[Dataset]:
    """Return the source images of the pages, each once (PS3.3 C.7.6.1, Source Image Sequence)."""
    frames: dict[tuple[str, str], list[int]] = {}
    for reference in (reference for page in drawn for reference in page.sources):
        numbers = frames.setdefault((reference.sop_class_uid, reference.sop_instance_uid), [])
        if reference.frame_number is not None and reference.frame_number not in numbers:
            numbers.append(reference.frame_number)
    made = []
    for (sop_class, sop_instance), numbers in frames.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        if numbers:
            item.ReferencedFrameNumber = numbers
        item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.SOURCE_IMAGE)]
        made.append(item)
    return made
