"""Small DICOM objects for the tests of the listener."""

import io

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

STUDY = "1.2.826.0.1.3680043.10.1"


def ct(number=1, series=f"{STUDY}.1", side=64, **changes):
    """A CT image; ``changes`` set or (None) delete attributes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{series}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, series
    dataset.PatientName, dataset.PatientID = "SECRET^NAME", "SECRET-ID"
    dataset.Modality, dataset.SeriesDescription, dataset.BodyPartExamined = "CT", "Thorax 1.0", "CHEST"
    dataset.SliceThickness, dataset.ConvolutionKernel = 1.5, "B31f"
    dataset.InstanceNumber, dataset.ImagePositionPatient = number, [0, 0, number]
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 1, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    pixels = np.random.default_rng(number).integers(0, 2000, (side, side), dtype=np.int16)
    dataset.PixelData = pixels.tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def data_set(dataset) -> bytes:
    """The data set as encoded, without File Meta Information."""
    from alnnode.receive import file_meta

    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    return data[file_meta.data_set_offset(memoryview(data)) :]


def file_of(content: bytes, uid: str, calling_ae: str = "SENDER") -> list[bytes]:
    """Return head and data set of the file of a CT image, as the spool stores it."""
    from alnnode.receive import file_meta
    from alnnode.receive.recorder import digest

    return [file_meta.head(CTImageStorage, uid, ExplicitVRLittleEndian, calling_ae, digest(content)), content]
