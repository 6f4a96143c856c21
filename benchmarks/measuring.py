"""What the benchmarks of receiving share: CT images, a free port, the peak memory and the processor time of a process."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def make_images(folder: Path, count: int) -> None:
    """Write CT images of 512 x 512 pixels with noise, 0.5 MB each."""
    noise = np.random.default_rng(0)
    study, series = generate_uid(entropy_srcs=["study"]), generate_uid(entropy_srcs=["series"])
    for number in range(count):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["image", str(number)])
        image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.PatientID, image.PatientName, image.Modality = "BENCHMARK", "Benchmark", "CT"
        image.StudyID, image.SeriesNumber, image.InstanceNumber = "1", 1, number + 1
        image.StudyDate, image.StudyTime, image.AccessionNumber = "20260101", "120000", "1"
        image.PatientBirthDate, image.PatientSex, image.ReferringPhysicianName = "", "", ""
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [0.7, 0.7], 1.0
        image.Rows = image.Columns = 512
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 1, 1
        image.PhotometricInterpretation, image.RescaleSlope, image.RescaleIntercept = "MONOCHROME2", 1, -1024
        image.PixelData = noise.integers(0, 2000, (512, 512), dtype=np.int16).tobytes()
        image.save_as(folder / f"{number:05}.dcm", enforce_file_format=True)


def split(images: Path, associations: int, scratch: Path) -> list[Path]:
    """Distribute the images by hard links to one folder for each association."""
    folders = [scratch / f"send-{associations}-{number}" for number in range(associations)]
    for folder in folders:
        folder.mkdir()
    for number, path in enumerate(sorted(images.iterdir())):
        (folders[number % associations] / path.name).hardlink_to(path)
    return folders


def free_port() -> int:
    """Return a free TCP port."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peak_mb(pid: int) -> float:
    """Return the peak resident memory of a process in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, user and system, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
