"""Training on a hospital's own nodes: from the table to the bundle and its page, and the checks against leakage."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import hospitals
import numpy as np
import pytest
from typer.testing import CliRunner

from alnnode.cli import check as node_check
from alnnode.imaging.crop import CropSettings, crops_for
from alnnode.imaging.series import read_volume
from alnnode.model import bundle
from alnnode.model.weights import load_tensors
from alnnode.settings import Settings
from training.__main__ import app
from training.clinical import bundle_patients, cohort_commands, cohort_split, dicom_folder, node_crops, node_table
from training.clinical.node_crops import CropOptions
from training.clinical.node_table import NodeRow, TableError
from training.data import cohort as cohorts

SETTINGS = CropSettings(pixels=32)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> hospitals.Hospital:
    patients = [hospitals.patient(n, prone=n == 3, feet_first=n == 4) for n in range(14)]
    return hospitals.build(tmp_path_factory.mktemp("hospital"), patients)


def rows_of(hospital: hospitals.Hospital) -> dict[int, NodeRow]:
    return dict(enumerate((hospitals.row_of(*one) for one in hospital.nodes), 2))


@pytest.fixture(scope="module")
def nodes(hospital, tmp_path_factory) -> node_crops.NodeCrops:
    series_folder = dicom_folder.read_folder(hospital.folder)
    return node_crops.collect_nodes(
        rows_of(hospital), series_folder, CropOptions(SETTINGS, tmp_path_factory.mktemp("cache"), processes=0), lambda: None
    )


def test_training_sees_byte_for_byte_what_the_node_computes(hospital, nodes) -> None:
    seen = {}
    for n in range(len(nodes)):
        seen.setdefault(nodes.cohort.patient[n], []).append(
            (nodes.cohort.fsc[n, 0].tobytes(), nodes.cohort.asc[n, 0].tobytes())
        )
    for one in hospital.patients:
        volume = read_volume(sorted((hospital.folder / one.name).iterdir(), reverse=True))
        pairs = [crops_for(volume, node, SETTINGS) for node in one.nodes]
        served = {tuple(np.rint(kind * 255).astype(np.uint8).tobytes() for kind in (pair.fsc, pair.asc)) for pair in pairs}
        assert served == set(seen[one.name])
        floats = {pair.fsc.tobytes() for pair in pairs}
        assert floats == {
            (np.frombuffer(f, np.uint8).astype(np.float32) / np.float32(255)).tobytes() for f, _ in seen[one.name]
        }


def test_crops_do_not_depend_on_the_order_of_the_rows_and_are_made_once(hospital, nodes, tmp_path) -> None:
    series_folder = dicom_folder.read_folder(hospital.folder)
    rows = rows_of(hospital)
    backwards = dict(zip(rows, reversed(list(rows.values())), strict=True))
    steps: list[int] = []
    first = node_crops.collect_nodes(
        backwards, series_folder, CropOptions(SETTINGS, tmp_path, processes=0), lambda: steps.append(1)
    )
    assert first.digest == nodes.digest
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    relabelled = rows | {2: replace(rows[2], label="malignant" if rows[2].label == "benign" else "benign", pathology="later")}
    again = node_crops.collect_nodes(
        relabelled, series_folder, CropOptions(SETTINGS, tmp_path, processes=0), lambda: steps.append(1)
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    assert len(steps) == 2 * len(hospital.patients)
    assert again.digest != nodes.digest
    assert (again.cohort.malignant != nodes.cohort.malignant).sum() == 1


def test_rows_without_a_label_are_left_out(hospital, nodes, tmp_path) -> None:
    rows = rows_of(hospital)
    some = {n: replace(row, label="") if n < 6 else row for n, row in rows.items()}
    found = node_crops.collect_nodes(
        some, dicom_folder.read_folder(hospital.folder), CropOptions(SETTINGS, tmp_path, processes=0), lambda: None
    )
    assert len(found) == len(nodes) - 4


def test_a_series_that_cannot_be_read_is_named_by_its_row(hospital, tmp_path) -> None:
    series_folder = dicom_folder.read_folder(hospital.folder)
    rows = rows_of(hospital)
    series = series_folder.series[rows[2].series_uid]
    images = dict(list(series.images.items())[::2])
    broken = replace(series_folder, series=series_folder.series | {series.series_uid: replace(series, images=images)})
    with pytest.raises(TableError, match="row 2, series_uid: the series cannot be used"):
        node_crops.collect_nodes(
            {n: rows[n] for n in (2, 3)}, broken, CropOptions(SETTINGS, tmp_path, processes=0), lambda: None
        )


def test_patients_are_split_and_the_test_is_the_same_in_every_fold(nodes) -> None:
    folds = cohort_split.split_by_patient(nodes, 1)
    patients = nodes.cohort.patient
    for rows in folds:
        np.testing.assert_array_equal(rows.test, folds[0].test)
        groups = [set(patients[part]) for part in (rows.train, rows.validation, rows.test)]
        assert sum(map(len, groups)) == len(set().union(*groups)) == len(nodes.cohort.patients)
    assert len({tuple(rows.validation) for rows in folds}) == cohort_split.FOLDS
    kept = replace(nodes, held_out=np.isin(patients, ["H-2", "H-5"]))
    assert {patients[n] for n in cohort_split.split_by_patient(kept, 1)[0].test} == {"H-2", "H-5"}


def test_too_few_patients_are_refused(nodes) -> None:
    few = node_crops.select_nodes(nodes, np.flatnonzero(np.isin(nodes.cohort.patient, ["H-0", "H-1", "H-2"])))
    with pytest.raises(TableError, match="too few"):
        cohort_split.split_by_patient(few, 1)
    scarce = np.flatnonzero(~nodes.cohort.malignant | np.isin(nodes.cohort.patient, ["H-0", "H-1", "H-2"]))
    with pytest.raises(TableError, match="needs 3"):
        cohort_split.split_by_patient(node_crops.select_nodes(nodes, scarce), 1)


def test_one_patient_under_two_names_stops_training(nodes, tmp_path) -> None:
    rows = cohort_split.split_by_patient(nodes, 1)[0]
    one = nodes.cohort.patient[rows.train[0]]
    copied = np.flatnonzero(nodes.cohort.patient == one)
    twice = node_crops.select_nodes(nodes, np.concatenate([np.arange(len(nodes)), copied]))
    names = twice.cohort.patient.astype("U8")
    names[-len(copied) :] = "renamed"
    planted = replace(twice, cohort=replace(twice.cohort, patient=names), held_out=np.isin(names, ["renamed", "H-5"]))
    node_crops.save_nodes(planted, tmp_path / cohort_split.NODES)
    with pytest.raises(cohorts.LeakageError, match="different patient names"):
        cohort_split.fold_data(tmp_path, 1, 0)


def check_lists(path: Path, digest: str) -> None:
    """Every item of CLAIM and TRIPOD+AI is there, with what the run knows and without names."""
    lists = path.read_text(encoding="utf-8")
    numbers = re.findall(r"^\| (\d+)[a-g]? \|", lists, re.MULTILINE)
    assert numbers[:42] == [str(n) for n in range(1, 43)]  # CLAIM
    assert list(dict.fromkeys(numbers[42:])) == [str(n) for n in range(1, 28)]  # TRIPOD+AI
    assert f"The bundle {digest[:12]}" in lists
    assert "56 nodes of 14 patients" in lists
    assert "| 17 | ethical approval and consent | **Fill in.** |" in lists
    for word in ("hantom", "drawings", "H-1", "{", "PLANTED", str(path.parent)):
        assert word not in lists


def test_from_a_hospitals_segmentations_to_a_bundle_that_the_node_takes(hospital, nodes, tmp_path) -> None:
    """The steps of docs/training.md: segmentations, table, check, training, bundle, `alnnode check`."""
    (tmp_path / "seg").mkdir()
    for one in hospital.patients:
        hospitals.segmentation(one, tmp_path / "seg" / f"{one.name}.dcm")
    where = ["--data", str(hospital.folder)]
    done = CliRunner().invoke(
        app, ["import", "seg", "--from", str(tmp_path / "seg"), "--out", str(tmp_path / "table.csv"), *where]
    )
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["cohort", "check", "--table", str(tmp_path / "table.csv"), *where])
    assert done.exit_code == 0, done.output
    assert "56 nodes (28 malignant) of 14 patients" in done.output
    command = ["cohort", "train", "--table", str(tmp_path / "table.csv"), *where, "--out", str(tmp_path / "run")]
    small = "--family resnet18 --folds 1 --epochs 1 --batch 8 --pixels 32 --output-stride 32 --device cpu --processes 0"
    command += [*small.split(), "--name", "st-elsewhere"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    loaded = bundle.load(tmp_path / "run" / "bundle")
    assert not loaded.identity.demonstration
    assert loaded.identity.banner == "RESEARCH USE ONLY"
    assert loaded.manifest.provenance["cohort"]["digest"] == nodes.digest
    card = loaded.contents["model-card.md"].decode()
    assert "Research use only" in card
    assert "python -m training cohort train" in card
    for word in ("hantom", "emonstration", "drawn", "H-1", str(tmp_path)):
        assert word not in card
    for word in ("H-1", "2.25.", str(tmp_path), "PLANTED"):
        assert word not in (tmp_path / "run" / "bundle" / "manifest.json").read_text()
    settings = Settings(analysis={"bundle": str(tmp_path / "run" / "bundle")})
    shown = next(result for result in node_check.run(settings, None) if result.what == "model bundle")
    assert shown.passed
    assert "st-elsewhere" in shown.found
    assert "RESEARCH USE ONLY" in shown.found
    page = (tmp_path / "run" / "report.html").read_text()
    for said in (
        "All trained models",
        "resnet18, ASC",
        "Permuted labels: ",
        "short axis alone",
        "held-out patients",
        "patients validate, so",
    ):
        assert said in page
    check_lists(tmp_path / "run" / "checklists.md", loaded.digest)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0
    assert bundle.load(tmp_path / "run" / "bundle").digest == loaded.digest
    beside = ["cohort", "evaluate", "--table", str(tmp_path / "table.csv"), "--data", str(hospital.folder), "--processes", "0"]
    beside += [
        "--bundle",
        str(tmp_path / "run" / "bundle"),
        "--out",
        str(tmp_path / "page.html"),
        "--work",
        str(tmp_path / "run" / "work"),
    ]
    made_with = CliRunner().invoke(app, beside)
    tested = set(nodes.cohort.patient[cohort_split.split_by_patient(nodes, 1)[0].test])
    rows, problems = node_table.read_table(tmp_path / "table.csv")
    assert not problems
    assert isinstance(made_with.exception, TableError)
    assert f"{sum(row.patient not in tested for row in rows.values())} problem(s)" in str(made_with.exception)
    assert "the bundle was trained or selected on this patient" in str(made_with.exception)
    node_table.write_table([row for row in rows.values() if row.patient in tested], tmp_path / "table.csv")
    done = CliRunner().invoke(app, beside)
    assert done.exit_code == 0, done.output
    assert f"{len(tested)} patients" in done.output
    apart = node_crops.select_nodes(nodes, np.flatnonzero(np.isin(nodes.cohort.patient, list(tested))))
    assert f"cohort {apart.digest[:12]}" in (tmp_path / "page.html").read_text()


def test_a_training_starts_from_the_networks_of_a_bundle_and_sees_what_they_see(hospital, tmp_path) -> None:
    table = tmp_path / "table.csv"
    node_table.write_table(list(rows_of(hospital).values()), table)
    command = ["cohort", "train", "--table", str(table), "--data", str(hospital.folder), "--out", str(tmp_path / "run")]
    small = ["--folds", "1", "--epochs", "1", "--batch", "8", "--output-stride", "32", "--device", "cpu", "--processes", "0"]
    wrong = CliRunner().invoke(app, [*command, *small, "--from-bundle", "demo", "--slices", "5"])
    assert wrong.exit_code == 2
    assert "the bundle fixes the crops" in " ".join(wrong.output.replace("│", " ").split())
    done = CliRunner().invoke(app, [*command, *small, "--from-bundle", "demo"])
    assert done.exit_code == 0, done.output
    demo, made = bundle.load(bundle.resolve("demo")), bundle.load(tmp_path / "run" / "bundle")
    assert made.crop_settings == demo.crop_settings
    assert {member.architecture for member in made.manifest.members} == {"densenet121"}
    started = f"the networks started from those of {demo.manifest.name} {demo.manifest.version} ({demo.digest[:12]})"
    assert started in made.contents["model-card.md"].decode()
    assert not made.identity.demonstration
    one, other = (load_tensors(which, "fsc") for which in (demo, made))
    name = "features.denseblock1.denselayer1.layers.conv1.weight"
    assert 0 < (one[name] - other[name]).float().abs().mean() < 0.1 * one[name].float().std()
    again = CliRunner().invoke(app, [*command, *small, "--from-bundle", str(tmp_path / "run" / "bundle")])
    assert isinstance(again.exception, TableError)
    assert "the bundle was trained or selected on this patient" in str(again.exception)


def test_slices_and_blood_are_those_of_the_bundle(hospital, tmp_path) -> None:
    table = tmp_path / "table.csv"
    node_table.write_table(list(rows_of(hospital).values()), table)
    command = ["cohort", "train", "--table", str(table), "--data", str(hospital.folder), "--out", str(tmp_path / "run")]
    small = [
        "--family",
        "resnet18",
        "--folds",
        "1",
        "--epochs",
        "1",
        "--batch",
        "8",
        "--pixels",
        "32",
        "--output-stride",
        "32",
        "--device",
        "cpu",
        "--processes",
        "0",
    ]
    assert CliRunner().invoke(app, [*command, *small, "--slices", "4"]).exit_code == 2
    done = CliRunner().invoke(app, [*command, *small, "--slices", "3", "--blood"])
    assert done.exit_code == 0, done.output
    made = bundle.load(tmp_path / "run" / "bundle")
    assert made.crop_settings == CropSettings(pixels=32, slices=3, blood_pool=True)
    assert "--pixels 32 --slices 3 --blood" in made.contents["model-card.md"].decode()


def test_few_patients_do_not_choose_between_families(hospital, tmp_path, monkeypatch) -> None:
    table, plans = tmp_path / "table.csv", []
    node_table.write_table(list(rows_of(hospital).values()), table)

    def stop(plan, *_: object) -> None:
        plans.append(plan.families)
        raise TableError("stopped here")

    monkeypatch.setattr(cohort_commands, "train_on_cohort", stop)
    command = ["cohort", "train", "--table", str(table), "--data", str(hospital.folder), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*command, "--pixels", "32", "--processes", "0"])
    assert "14 patients are too few to choose between families: only densenet121 is trained" in " ".join(done.output.split())
    CliRunner().invoke(app, [*command, "--pixels", "32", "--processes", "0", "--family", "resnet18", "--family", "resnet50"])
    assert plans == [("densenet121",), ("resnet18", "resnet50")]


def test_a_bundle_recognises_the_patients_it_was_trained_on(nodes, hospital, tmp_path) -> None:
    rows, split = rows_of(hospital), cohort_split.split_by_patient(nodes, 1)[0]
    used = {number for number, row in rows.items() if row.patient not in set(nodes.cohort.patient[split.test])}
    known = {"cohort": {"digest": nodes.digest, "used": bundle_patients.used_series(nodes, split)}}
    made, plain = (SimpleNamespace(manifest=SimpleNamespace(provenance=told)) for told in (known, {"seed": 1}))
    elsewhere = {number: replace(row, series_uid=f"2.25.7{number}") for number, row in rows.items()}

    def refused(told: dict[int, NodeRow], loaded: SimpleNamespace, place: Path) -> set[int]:
        return {problem.row for problem in bundle_patients.known_patient_problems(told, loaded, place / "bundle")}

    # The digests in the bundle identify its series; the file beside the bundle identifies other series of the same patients.
    assert refused(rows, made, tmp_path) == used
    assert refused(elsewhere, made, tmp_path) == refused(rows, plain, tmp_path) == set()
    bundle_patients.write_split(tmp_path / bundle_patients.SPLIT, nodes, split)
    assert refused(elsewhere, plain, tmp_path) == used
    # One known series identifies the patient.
    first = min(used)
    others = {n: row for n, row in elsewhere.items() if n != first} | {first: rows[first]}
    same = {n for n, row in rows.items() if row.patient == rows[first].patient}
    assert refused(others, made, tmp_path / "away") == same
