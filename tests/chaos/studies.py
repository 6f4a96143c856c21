"""Small studies, of which hundreds can be sent: most show no axilla, some are phantoms with nodes."""

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
NAME = "QZPLANTED"  # in every Patient's Name and Patient ID; it must not be in logs, database or file names
SLICES = 12
HTTP = 3  # every third study is sent by STOW-RS


@dataclass
class Study:
    """A study, and which of its images the node acknowledged.

    Attributes:
        datasets: the images.
        digests: sha256 (hex) of each encoded image, by SOP Instance UID.
        axillae: it shows the axillae.
        http: it is sent by STOW-RS.
        poison: its analysing process is killed in every attempt.
        acknowledged: SOP Instance UIDs that the node answered with success.
        complete_at: time at which the complete series was received and its association released; None before.
    """

    uid: str
    datasets: list[FileDataset]
    digests: dict[str, str]
    axillae: bool
    http: bool
    poison: bool = False
    acknowledged: set[str] = field(default_factory=set)
    complete_at: float | None = None

    def encode(self) -> None:
        """Compute the digests again, after a change of the images."""
        self.digests = {str(one.SOPInstanceUID): hashlib.sha256(data_set(one)).hexdigest() for one in self.datasets}


def originals(folder: Path) -> tuple[list[FileDataset], list[FileDataset]]:
    """Return the images of a phantom with nodes, and those of a block of soft tissue."""
    settings = phantom.PhantomSettings(
        size=96, slices=(20, 20), thickness_mm=(5, 5), spacing_mm=(3.7, 3.7), min_nodes_per_side=2, max_nodes_per_side=3
    )
    files = phantom.write_series(phantom.make_patient(7, 0, settings), folder)
    return [dcmread(path) for path in files], [ct_series.ct_slice(k) for k in range(SLICES)]


def make(number: int, original: list[FileDataset], *, axillae: bool, poison: bool = False) -> Study:
    """Return a study with its own UIDs and patient, and the pixels of the original."""
    study = f"{ROOT}.{number}"
    datasets = []
    for k, source in enumerate(original):
        dataset = copy.deepcopy(source)
        dataset.set_original_encoding(False, True)  # explicit VR, little endian
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
        dataset.FrameOfReferenceUID = f"{study}.2"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.{k + 1}"
        dataset.PatientName, dataset.PatientID = f"{NAME}^N{number}", f"{NAME}-{number}"
        datasets.append(dataset)
    made = Study(study, datasets, {}, axillae, number % HTTP == 1, poison)
    made.encode()
    return made
