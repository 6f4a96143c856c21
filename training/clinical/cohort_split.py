"""Split a hospital's nodes by patient into test, training and validation nodes of several folds."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from training.clinical import node_crops
from training.clinical.node_table import TableError
from training.fit import protocol
from training.fit.protocol import FoldRows

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from training.clinical.node_crops import NodeCrops
    from training.data.cohort import Cohort
    from training.fit.grid import FoldData

    Indices = npt.NDArray[np.intp]

FIFTH: Final = 5  # one fifth of the patients is for the test
FOLDS: Final = 4  # of the other patients; each fold validates once, so a fifth of all patients validates
FEWEST: Final = 3  # nodes of each class in every part
NODES: Final = "nodes.npz"


def split_by_patient(nodes: NodeCrops, seed: int) -> list[FoldRows]:
    """Return the rows of the four folds; the test rows are those that the table reserves, or a fifth. No patient is in two parts.

    Raises:
        TableError: there are too few patients of a class.
    """
    cohort = nodes.cohort
    every = np.arange(len(nodes))
    test = np.flatnonzero(nodes.held_out) if nodes.held_out.any() else _parts(cohort, every, FIFTH, seed)[0]
    rest = np.setdiff1d(every, test)
    folds = _parts(cohort, rest, FOLDS, seed)
    found = [FoldRows(np.setdiff1d(rest, validation), validation, test) for validation in folds]
    for rows in found:
        for name in (field.name for field in fields(FoldRows)):
            malignant = cohort.malignant[getattr(rows, name)]
            fewest = min(int(malignant.sum()), int((~malignant).sum()))
            if fewest < FEWEST:
                raise TableError(
                    f"the {name} part would have {fewest} nodes of one class and needs {FEWEST}: add patients with nodes of that class"
                )
    return found


def _parts(cohort: Cohort, rows: Indices, parts: int, seed: int) -> list[Indices]:
    """Return the rows in ``parts`` parts with about as many nodes of each class; no patient is in two parts."""
    labels, patients = cohort.malignant[rows], cohort.patient[rows]
    if min(int(labels.sum()), int((~labels).sum())) < parts or len(np.unique(patients)) < parts:
        raise TableError(f"{len(np.unique(patients))} patients are too few, or nearly all their nodes are of one class")
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    return [rows[held] for _, held in splitter.split(labels, labels, patients)]


def fold_data(folder: Path, seed: int, fold: int) -> FoldData:
    """Return the cohorts of a fold from the nodes that are stored in ``folder``.

    Raises:
        LeakageError: a patient or a crop is in two parts.
    """
    nodes = node_crops.load_nodes(folder / NODES)
    return protocol.fold_data(nodes.cohort, split_by_patient(nodes, seed)[fold])


def fold_data_permuted(folder: Path, seed: int, fold: int) -> FoldData:
    """Return the cohorts of a fold of the cohort whose labels are permuted; the split is that of the right labels."""
    nodes = node_crops.load_nodes(folder / NODES)
    return protocol.fold_data(protocol.permute_labels(nodes.cohort, seed), split_by_patient(nodes, seed)[fold])
