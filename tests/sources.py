"""The source images of a synthetic analysis, as CT files: what its results refer to."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alnnode.records import Volume


def ct_files(volume: Volume) -> Iterator[bytes]:
    """Yield one single-frame CT image per slice."""
    for k, reference in enumerate(volume.slices):
        image = Dataset()
        image.update(volume.header)
        image.SOPClassUID, image.SOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
        image.ImagePositionPatient = [round(p, 6) for p in reference.position]
        image.InstanceNumber, image.SeriesNumber, image.ImageType = k + 1, 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit = 15
        image.RescaleSlope, image.RescaleIntercept = reference.rescale
        image.RescaleType = "HU"
        image.WindowCenter, image.WindowWidth = 40, 400
        image.Rows, image.Columns = volume.voxels.shape[1:]
        slope, intercept = reference.rescale
        stored = (volume.voxels[k].astype(np.float64) - intercept) / slope
        image.PixelData = np.clip(np.rint(stored), 0, 65535).astype(np.uint16).tobytes()
        image["PixelData"].VR = "OW"
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        buffer = io.BytesIO()
        image.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()
