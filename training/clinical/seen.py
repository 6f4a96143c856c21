"""Whom a bundle was made with, so that nobody measures it on its own patients.

Two things tell: in the bundle a digest of every series that it was trained or chosen on, which says nothing to who has not that series; and
`SPLIT` beside the bundle, at the site, which knows the patients by the table's names, and so their other series, too.
"""

from __future__ import annotations

import csv
import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from training.clinical.table import TEST, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from alnnode.model.bundle import Bundle
    from training.clinical.check import Rows
    from training.clinical.crops import Nodes
    from training.fit.protocol import Rows as Split

SPLIT: Final = "split.csv"
USED: Final = "used"  # in training, or in validation, which chose networks, rule and operating point
DIGITS: Final = 16


def digests(series: Iterable[str], cohort: str) -> list[str]:
    """Return one digest for each Series Instance UID, in no order that says anything; ``cohort`` is the digest of the cohort."""
    return sorted({hashlib.sha256(f"{cohort}/{uid}".encode()).hexdigest()[:DIGITS] for uid in series})


def of_split(nodes: Nodes, split: Split) -> list[str]:
    """Return the digests of the series that a bundle is made with: everything that is not tested."""
    return digests(nodes.series[np.concatenate([split.train, split.validation])], nodes.digest)


def keep(path: Path, nodes: Nodes, split: Split) -> None:
    """Write which patient is in which part; for the site alone."""
    tested = set(nodes.cohort.patient[split.test])
    with path.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink)
        writer.writerow(["patient", "part"])
        writer.writerows([name, TEST if name in tested else USED] for name in sorted(nodes.cohort.patients))


def problems(rows: Rows, loaded: Bundle, folder: Path) -> list[Problem]:
    """Return the rows of patients whom the bundle was made with, as far as that can be known.

    Args:
        rows: by number.
        loaded: the bundle.
        folder: where it lies; `SPLIT` is looked for beside it.
    """
    cohort = loaded.manifest.provenance.get("cohort", {})
    known = set(cohort.get("used", ()))
    series = {row.series_uid for row in rows.values()}
    seen = {uid for uid in series if digests([uid], str(cohort.get("digest", "")))[0] in known}
    patients = {row.patient for row in rows.values() if row.series_uid in seen} | _kept(folder.parent / SPLIT)
    advice = "take the patient's rows out, or evaluate on rows of the bundle's own test part"
    return [
        Problem(number, "patient", "the bundle was trained or chosen on this patient", advice)
        for number, row in rows.items()
        if row.patient in patients
    ]


def _kept(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    with path.open(newline="", encoding="utf-8") as source:
        return {row["patient"] for row in csv.DictReader(source) if row.get("part") == USED and row.get("patient")}
