"""The experiment on real nodules: the folds of the cross-validation, and the table from the scores."""

import os
from pathlib import Path

import numpy as np
import pytest

from alnnode.records import Crop
from training.data import arrays
from training.data.cohort import LeakageError
from training.fit import lidc
from training.report import lidc_report

DATA = Path(os.environ.get("ALNNODE_TEST_DATA", Path(__file__).parents[4] / "shared" / "data")) / "lidc_nodule_2crop"


def write(folder: Path, nodules: int = 120, twin: bool = False) -> None:
    rng = np.random.default_rng(0)
    median = rng.choice([1, 2, 3, 4, 5], nodules).astype(np.float32)
    context = rng.integers(0, 255, (nodules, 128, 128), np.uint8)
    if twin:  # two patients with the same crop
        context[1:] = context[0]
    np.savez(
        folder / lidc.ARRAYS,
        context=context,
        tight=context[:, 32:96, 32:96],
        malignancy_median=median,
        malignancy_mean=median,
        n_raters=rng.choice([1, 3, 4], nodules),
        patient=np.array([f"P{n // 2}" for n in range(nodules)]),
        diameter_mm=(4 + 2 * median + rng.normal(0, 2, nodules)).astype(np.float32),
    )


def test_every_clear_nodule_is_tested_once_by_networks_that_never_saw_its_patient(tmp_path) -> None:
    write(tmp_path)
    nodules = lidc.read_nodules(tmp_path)
    tested = []
    for fold in range(lidc.FOLDS):
        split = lidc.LidcSplit.for_fold(nodules, fold, 3)
        seen = set(nodules.cohort.patient[np.concatenate([split.train, split.validation])])
        assert not seen & set(nodules.cohort.patient[split.test])
        tested += split.test.tolist()
        parts = lidc.fold_data(tmp_path, 3, fold)
        assert len(parts.train) == len(parts.targets)
        assert (abs(parts.targets - 0.5) > 0.2).all()
    assert sorted(tested) == np.flatnonzero(nodules.clear).tolist()


def test_one_picture_under_two_patients_stops_it(tmp_path) -> None:
    write(tmp_path, twin=True)
    with pytest.raises(LeakageError, match="different patient names"):
        lidc.fold_data(tmp_path, 3, 0)


def test_the_table_follows_from_the_scores(tmp_path) -> None:
    write(tmp_path)
    nodules = lidc.read_nodules(tmp_path)
    rng = np.random.default_rng(1)
    tasks = lidc.training_tasks(("resnet18", "densenet121"), 3, 1)
    for task in tasks:
        split = lidc.LidcSplit.for_fold(nodules, task.fold, 3)
        skill = 5.0 if task.family == "densenet121" else 0.0
        found = {
            name: skill * nodules.cohort.malignant[rows] + rng.normal(0, 1, len(rows))
            for name, rows in (("validation", split.validation), ("test", split.test))
        }
        arrays.save_arrays(task.file(tmp_path), found)
    features = dict.fromkeys(Crop, rng.normal(0, 1, (len(nodules.clear), 8)).astype(np.float32))
    rows = {row.name: row for row in lidc_report.rows_of(nodules, tasks, features, tmp_path, 3)}
    order = np.concatenate([lidc.LidcSplit.for_fold(nodules, fold, 3).test for fold in range(lidc.FOLDS)])
    np.testing.assert_array_equal(rows[lidc_report.DIAMETER].scores, nodules.cohort.short_axis[order])
    labels = nodules.cohort.malignant[order]
    assert (rows["densenet121, both"].called == labels).mean() > 0.9 > (rows["resnet18, both"].called == labels).mean()
    said = lidc_report.markdown(nodules, list(rows.values()), "python -m training lidc", 3, "a test")
    assert f"{int(labels.sum())} suspicious" in said
    assert "| densenet121, context (FSC) |" in said
    assert "the images **do** add to the diameter" in said


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="the real nodules are not here (../shared/data or ALNNODE_TEST_DATA)")
def test_the_real_set_is_the_one_that_the_figures_are_of() -> None:
    nodules = lidc.read_nodules(DATA)
    clear = nodules.cohort.malignant[nodules.clear]
    assert (len(nodules.clear), len(clear), int(clear.sum())) == (2539, 815, 382)
    assert nodules.cohort.fsc.shape == nodules.cohort.asc.shape == (2539, 1, 1, 64, 64)
    lidc.fold_data(DATA, 7, 0)  # no leak
