"""Captures: RGB Secondary Capture Image (PS3.3 A.8.1), one page each; the one kind of result that every viewer shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from alnnode.records import ObjectRole
from alnnode.report import modules, pages
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from alnnode.records import Analysis, ReportContext, ResultObject

SERIES_NUMBER = 9002


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the summary and one page per node, in the order of the report; nothing when there is no volume to draw."""
    volume = analysis.volume
    if volume is None:
        return []
    drawn = [pages.summary_page(analysis, volume, context.window)]
    drawn += [pages.node_page(finding, volume, analysis, context.window) for finding in analysis.findings]
    return [_capture(page, number, analysis, context) for number, page in enumerate(drawn, start=1)]


def _capture(page: npt.NDArray[np.uint8], number: int, analysis: Analysis, context: ReportContext) -> ResultObject:
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = result_uid(analysis, context, "capture", str(number))
    image.SeriesInstanceUID = result_uid(analysis, context, "capture", "series")
    image.SeriesNumber, image.InstanceNumber = SERIES_NUMBER, number
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
    image.PixelData = page.tobytes()
    image["PixelData"].VR = "OB"
    image.LossyImageCompression = "00"
    image.DateOfSecondaryCapture = context.created.strftime("%Y%m%d")
    image.TimeOfSecondaryCapture = context.created.strftime("%H%M%S")
    image.SecondaryCaptureDeviceManufacturer = modules.MANUFACTURER
    image.SecondaryCaptureDeviceManufacturerModelName = modules.MODEL_NAME
    return modules.finish(image, analysis, context, ObjectRole.CAPTURE)
