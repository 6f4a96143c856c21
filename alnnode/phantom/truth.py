"""Cohorts on disk: one folder of DICOM files for each patient, and truth.json."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from alnnode.phantom.dicom import instance_uid, object_uid, series_uid, write_series
from alnnode.phantom.patient import Phantom, make_patient
from alnnode.phantom.settings import PhantomError, PhantomSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from alnnode.phantom.truth_node import TruthNode

TRUTH_VERSION = 1


def patient_truth(phantom: Phantom, folder: str, masks: str | None = None) -> dict[str, Any]:
    """Return the entry of one patient in ``truth.json``.

    Args:
        phantom: the patient.
        folder: path of the series, relative to ``truth.json``.
        masks: path of the label volume, likewise; None if there is none.
    """
    patient = phantom.patient
    return {
        "folder": folder,
        "masks": masks,
        "seed": phantom.seed,
        "index": phantom.index,
        "study_instance_uid": object_uid(phantom, "study"),
        "series_instance_uid": series_uid(phantom),
        "shape": list(phantom.hu.shape),
        "spacing_mm": list(phantom.spacing),
        "affine_kji_to_lps_mm": phantom.affine.tolist(),
        "patient_position": patient.position.value,
        "arms": patient.arms.value,
        "contrast_phase": patient.phase.value,
        "nodes": [_node_truth(phantom, node) for node in phantom.nodes],
    }


def _node_truth(phantom: Phantom, node: TruthNode) -> dict[str, Any]:
    truth = asdict(node)
    # Slice indices count from the feet; SOP Instance UIDs identify the slices in any other order.
    truth["slice_sop_instance_uid"] = instance_uid(phantom, node.slice_index)
    truth["sop_instance_uids"] = [instance_uid(phantom, k) for k in range(node.box.k0, node.box.k1)]
    return truth


def write_truth(path: Path, patients: Sequence[dict[str, Any]]) -> None:
    """Write ``truth.json`` of a cohort from the entries that `patient_truth` returns.

    Raises:
        OSError: the file cannot be written.
    """
    document = {
        "version": TRUTH_VERSION,
        "note": "synthetic phantoms: no patient is behind any of this",
        "boxes": "half-open voxel boxes; k counts slices from the feet, j rows, i columns of the stored images",
        "patients": list(patients),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_masks(phantom: Phantom, path: Path) -> None:
    """Write the label volume as npz: ``labels`` uint16 (slices, rows, columns) and ``affine`` 4x4.

    The bytes are the same on every run.

    Raises:
        OSError: the file cannot be written.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in (("labels", phantom.labels), ("affine", phantom.affine)):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            # numpy.savez would write the current time into the archive.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class CohortSettings:
    """Options of a cohort.

    Attributes:
        patients: number of patients, at least 1.
        seed: of the cohort, not negative.
        phantoms: options of each phantom.
        masks: whether to write the label volumes as well (``patient-0001.npz``).
    """

    patients: int
    seed: int
    phantoms: PhantomSettings = field(default_factory=PhantomSettings)
    masks: bool = False


def make_cohort(out: Path, settings: CohortSettings, progress: Callable[[], None] | None = None) -> Path:
    """Write a cohort: ``patient-0001/`` … with one series each, and ``truth.json``.

    Args:
        out: the folder; created if it does not exist, and must not contain a cohort.
        settings: what to write.
        progress: called after each patient.

    Returns:
        The path of ``truth.json``.

    Raises:
        PhantomError: fewer than 1 patient is requested, or ``out`` already contains a cohort.
        OSError: a file cannot be written.
    """
    if settings.patients < 1:
        raise PhantomError(f"Cannot make a cohort of {settings.patients} patients: at least 1 is needed")
    path = out / "truth.json"
    if path.exists():
        raise PhantomError("Cannot write the cohort: the folder already contains one; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    truths = []
    for index in range(settings.patients):
        phantom = make_patient(settings.seed, index, settings.phantoms)
        name = f"patient-{index + 1:04d}"
        write_series(phantom, out / name)
        if settings.masks:
            write_masks(phantom, out / f"{name}.npz")
        truths.append(patient_truth(phantom, name, f"{name}.npz" if settings.masks else None))
        if progress is not None:
            progress()
    write_truth(path, truths)
    return path
