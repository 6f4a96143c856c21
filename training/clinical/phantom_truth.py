"""Read the truth of ``alnnode phantom`` as the table of a cohort, to try training without patients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from training.clinical.imported import ImportedNodes, patient_of
from training.clinical.node_table import BENIGN, MALIGNANT, NodeRow, TableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from training.clinical.dicom_folder import DicomFolder, ImageSeries


SOURCE: Final = "phantom"


def any_phantom(rows: Iterable[NodeRow]) -> bool:
    """Return whether any node is a phantom's; a bundle trained on such nodes must say that it is a demonstration."""
    return any(row.source == SOURCE for row in rows)


def read_truth(path: Path, folder: DicomFolder) -> ImportedNodes:
    """Return the nodes of a ``truth.json``.

    Raises:
        TableError: `alnnode phantom` did not write this file.
    """
    try:
        patients = json.loads(path.read_text(encoding="utf-8"))["patients"]
        found = ImportedNodes()
        for number, patient in enumerate(patients, 1):
            series = folder.series.get(patient["series_instance_uid"])
            if series is None:
                found.left_out.append(f"phantom {number}: its series is not in the folder")
            else:
                found.rows += [_row(node, series) for node in patient["nodes"]]
    except (KeyError, TypeError, ValueError) as error:
        raise TableError(f"{path.name} was not written by `alnnode phantom`") from error
    return found


def _row(node: dict[str, Any], series: ImageSeries) -> NodeRow:
    box = node["box"]
    return NodeRow(
        patient=patient_of(series),
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        sop_uid=node["slice_sop_instance_uid"],
        frame=None,
        left=box["i0"],
        top=box["j0"],
        right=box["i1"],
        bottom=box["j1"],
        below=node["slice_index"] - box["k0"],
        above=box["k1"] - 1 - node["slice_index"],
        label=MALIGNANT if node["malignant"] else BENIGN,
        side=node["side"],
        level=node["level"],
        short_axis_mm=node["short_axis_mm"],
        source=SOURCE,
        source_uid=str(node["number"]),
    )
