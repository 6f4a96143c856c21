"""Studies that are small enough for hundreds of them: mostly chests of which no axilla is shown, now and then a phantom to analyse."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ct_series
from dicom_objects import data_set
from pydicom import dcmread

from alnnode import phantom

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import FileDataset

ROOT = "1.2.826.0.1.3680043.10.999.6"
NAME = "QZPLANTED"  # in every Patient's Name and Patient ID: nothing that the node writes about itself may hold it
SLICES = 12
HTTP = 3  # each of so many studies comes by STOW-RS


@dataclass
class Study:
    """What a sender has, and what it was told.

    Attributes:
        datasets: the images.
        digests: sha256 (hex) of each image as it is encoded, by SOP Instance UID.
        acknowledged: SOP Instance UIDs answered with success.
        complete_at: when the whole series was taken and its association released; None before.
        poison: kills its worker each time.
        whole: it shows the axillae.
        http: it comes by STOW-RS.
    """

    uid: str
    datasets: list[FileDataset]
    digests: dict[str, str]
    whole: bool
    http: bool
    poison: bool = False
    acknowledged: set[str] = field(default_factory=set)
    complete_at: float | None = None


def originals(folder: Path) -> tuple[list[FileDataset], list[FileDataset]]:
    """Return the images of a phantom with nodes, and those of a block of soft tissue."""
    settings = phantom.PhantomSettings(
        size=96, slices=(20, 20), thickness_mm=(5, 5), spacing_mm=(3.7, 3.7), min_nodes_per_side=2, max_nodes_per_side=3
    )
    files = phantom.write_series(phantom.make_patient(7, 0, settings), folder)
    return [dcmread(path) for path in files], [ct_series.ct_slice(k) for k in range(SLICES)]


def make(number: int, original: list[FileDataset], *, whole: bool, poison: bool = False) -> Study:
    """Return a study of its own: other UIDs, another patient, the same pixels."""
    study = f"{ROOT}.{number}"
    datasets, digests = [], {}
    for k, source in enumerate(original):
        dataset = copy.deepcopy(source)
        dataset.set_original_encoding(False, True)  # explicit VR, little endian
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
        dataset.FrameOfReferenceUID = f"{study}.2"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.{k + 1}"
        dataset.PatientName, dataset.PatientID = f"{NAME}^N{number}", f"{NAME}-{number}"
        digests[dataset.SOPInstanceUID] = hashlib.sha256(data_set(dataset)).hexdigest()
        datasets.append(dataset)
    return Study(study, datasets, digests, whole, number % HTTP == 1, poison)
