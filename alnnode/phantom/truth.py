"""Cohorts on disk: one folder of DICOM for each patient, and truth.json beside them."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from alnnode.phantom.dicom import instance_uid, series_uid, uid, write_series
from alnnode.phantom.patient import Phantom, TruthNode, make_patient
from alnnode.phantom.settings import PhantomError, PhantomSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TRUTH_VERSION = 1


def patient_truth(phantom: Phantom, folder: str, masks: str | None = None) -> dict[str, Any]:
    """Return the truth of one patient as ``truth.json`` holds it.

    Args:
        phantom: the patient.
        folder: where the series lies, relative to ``truth.json``.
        masks: where the label volume lies, likewise; None when it is not kept.
    """
    patient = phantom.patient
    return {
        "folder": folder,
        "masks": masks,
        "seed": phantom.seed,
        "index": phantom.index,
        "study_instance_uid": uid(phantom, "study"),
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
    # k counts from the feet; the instances say the same to who sorts otherwise.
    truth["slice_sop_instance_uid"] = instance_uid(phantom, node.slice_index)
    truth["sop_instance_uids"] = [instance_uid(phantom, k) for k in range(node.box.k0, node.box.k1)]
    return truth


def write_truth(path: Path, patients: Sequence[dict[str, Any]]) -> None:
    """Write ``truth.json`` of a cohort from what `patient_truth` returned.

    Raises:
        OSError: the disk refuses.
    """
    document = {
        "version": TRUTH_VERSION,
        "note": "synthetic phantoms: no patient is behind any of this",
        "boxes": "half-open voxel boxes; k counts slices from the feet, j rows, i columns of the stored images",
        "patients": list(patients),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_masks(phantom: Phantom, path: Path) -> None:
    """Write the label volume as npz (``labels`` uint16 (slices, rows, columns), ``affine`` 4x4), the same bytes on every run.

    Raises:
        OSError: the disk refuses.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in (("labels", phantom.labels), ("affine", phantom.affine)):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            # numpy's own savez writes the time of day into the archive.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)


def make_cohort(
    out: Path,
    patients: int,
    seed: int,
    settings: PhantomSettings | None = None,
    progress: Callable[[], None] | None = None,
    masks: bool = False,
) -> Path:
    """Write a cohort: ``patient-0001/`` … with one series each, and ``truth.json``.

    Args:
        out: made when it is absent; must not hold a cohort already.
        patients: how many.
        seed: of the cohort.
        settings: what is fixed rather than drawn.
        progress: called after each patient.
        masks: whether to write the label volumes too (``patient-0001.npz``).

    Returns:
        The path of ``truth.json``.

    Raises:
        PhantomError: no patient is asked for, or ``out`` holds a cohort already.
        OSError: the disk refuses.
    """
    if patients < 1:
        raise PhantomError(f"{patients} patients were asked for: at least 1 is needed")
    path = out / "truth.json"
    if path.exists():
        raise PhantomError("the folder holds a cohort already: choose a new one")
    out.mkdir(parents=True, exist_ok=True)
    truths = []
    for index in range(patients):
        phantom = make_patient(seed, index, settings)
        name = f"patient-{index + 1:04d}"
        write_series(phantom, out / name)
        if masks:
            write_masks(phantom, out / f"{name}.npz")
        truths.append(patient_truth(phantom, name, f"{name}.npz" if masks else None))
        if progress is not None:
            progress()
    write_truth(path, truths)
    return path
