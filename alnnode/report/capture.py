"""Captures: RGB Secondary Capture Image (PS3.3 A.8.1, A.8.5), a page each; the one kind of result that every viewer shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage

from alnnode.records import CaptureForm, ObjectRole
from alnnode.report import modules, pages, summary_page
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from alnnode.records import Analysis, ReportContext, ResultObject

    Page = npt.NDArray[np.uint8]


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the summary and one page per node, in the order of the report; nothing when there is no volume to draw.

    As one image each, or as the frames of one multi-frame image.
    """
    volume = analysis.volume
    if volume is None:
        return []
    drawn = [summary_page.summary_page(analysis, volume, context.window)]
    drawn += [pages.node_page(finding, volume, analysis, context.window) for finding in analysis.findings]
    if context.options.captures is CaptureForm.MULTIFRAME:
        return [_multi_frame(drawn, analysis, context)]
    return [_single_frame(page, number, analysis, context) for number, page in enumerate(drawn, start=1)]


def _single_frame(page: Page, number: int, analysis: Analysis, context: ReportContext) -> ResultObject:
    image = _image(page, analysis, context)
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = result_uid(analysis, context, "capture", str(number))
    image.InstanceNumber = number
    image.PixelData = page.tobytes()
    image["PixelData"].VR = "OB"
    return modules.finish(image, analysis, context, ObjectRole.CAPTURE)


def _multi_frame(drawn: list[Page], analysis: Analysis, context: ReportContext) -> ResultObject:
    """Return all pages as frames (PS3.3 C.8.6.3: the Frame Increment Pointer names the vector of page numbers)."""
    image = _image(drawn[0], analysis, context)
    image.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    image.SOPInstanceUID = result_uid(analysis, context, "capture", "frames")
    image.InstanceNumber = 1
    image.NumberOfFrames = len(drawn)
    if len(drawn) > 1:  # with one frame the standard forbids it
        image.PageNumberVector = list(range(1, len(drawn) + 1))
        image.FrameIncrementPointer = Tag("PageNumberVector")
    image.PixelData = b"".join(page.tobytes() for page in drawn)
    image["PixelData"].VR = "OB"
    return modules.finish(image, analysis, context, ObjectRole.CAPTURE)


def _image(page: Page, analysis: Analysis, context: ReportContext) -> Dataset:
    image = Dataset()
    image.SeriesInstanceUID = result_uid(analysis, context, "capture", "series")
    image.SeriesNumber = modules.series_number(analysis, ObjectRole.CAPTURE)
    image.Modality = "OT"
    image.ConversionType = "WSD"
    # Both axillae can be on one page: the chest is not a paired part, so Laterality stays away.
    image.BodyPartExamined = "CHEST"
    image.PatientOrientation = None
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.DerivationDescription = "Heatmaps (Grad-CAM) and boxes of axillary lymph nodes"
    image.BurnedInAnnotation = "NO"  # of the patient there is nothing in the pixels
    image.RecognizableVisualFeatures = "NO"
    image.ImageComments = analysis.model.banner
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.Rows, image.Columns = page.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.LossyImageCompression = "00"
    image.DateOfSecondaryCapture = context.created.strftime("%Y%m%d")
    image.TimeOfSecondaryCapture = context.created.strftime("%H%M%S")
    image.SecondaryCaptureDeviceManufacturer = modules.MANUFACTURER
    image.SecondaryCaptureDeviceManufacturerModelName = modules.MODEL_NAME
    return image
