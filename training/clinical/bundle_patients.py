"""Recognise the patients with whom a bundle was trained or selected, so that it is not evaluated on them.

The bundle contains a digest of each series used for training or validation, which reveals nothing to anyone without the series. The file
`SPLIT` beside the bundle, which stays at the site, lists the patients by their names in the table, so their other series are recognised too.
"""

from __future__ import annotations

import csv
import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from training.clinical.node_table import TEST, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from alnnode.model.bundle import Bundle
    from training.clinical.node_crops import NodeCrops
    from training.clinical.table_check import Rows
    from training.fit.protocol import FoldRows as Split

SPLIT: Final = "split.csv"
USED: Final = "used"  # for training, or for validation, which selects networks, rule and operating point
DIGITS: Final = 16


def series_digests(series: Iterable[str], cohort: str) -> list[str]:
    """Return one digest for each Series Instance UID, in an order that reveals nothing; ``cohort`` is the digest of the cohort."""
    return sorted({hashlib.sha256(f"{cohort}/{uid}".encode()).hexdigest()[:DIGITS] for uid in series})


def used_series(nodes: NodeCrops, split: Split) -> list[str]:
    """Return the digests of the series of all training and validation nodes."""
    return series_digests(nodes.series[np.concatenate([split.train, split.validation])], nodes.digest)


def write_split(path: Path, nodes: NodeCrops, split: Split) -> None:
    """Write which patient is in which part, for use at the site only."""
    tested = set(nodes.cohort.patient[split.test])
    with path.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink)
        writer.writerow(["patient", "part"])
        writer.writerows([name, TEST if name in tested else USED] for name in sorted(nodes.cohort.patients))


def known_patient_problems(rows: Rows, loaded: Bundle, folder: Path) -> list[Problem]:
    """Return the rows of patients with whom the bundle was trained or selected, as far as they can be recognised.

    Args:
        rows: by number.
        loaded: the bundle.
        folder: of the bundle; `SPLIT` is searched beside it.
    """
    cohort = loaded.manifest.provenance.get("cohort", {})
    known = set(cohort.get("used", ()))
    series = {row.series_uid for row in rows.values()}
    used = {uid for uid in series if series_digests([uid], str(cohort.get("digest", "")))[0] in known}
    patients = {row.patient for row in rows.values() if row.series_uid in used} | _used_patients(folder.parent / SPLIT)
    advice = "remove the rows of this patient, or use rows of the test part of the bundle"
    return [
        Problem(number, "patient", "the bundle was trained or selected on this patient", advice)
        for number, row in rows.items()
        if row.patient in patients
    ]


def _used_patients(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    with path.open(newline="", encoding="utf-8") as source:
        return {row["patient"] for row in csv.DictReader(source) if row.get("part") == USED and row.get("patient")}
