"""A copy of a patient's series under another name is found before training, although bytes, UIDs and Patient ID differ."""

import io
import re
from copy import deepcopy
from dataclasses import replace

import hospitals
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from alnnode.imaging.crop import CropSettings
from alnnode.locate.measure import node_from_mask
from training.__main__ import app
from training.clinical import copied_nodes, node_crops, node_table
from training.clinical.node_crops import CropOptions
from training.clinical.node_table import TableError
from training.data import cohort as cohorts

SETTINGS = CropSettings(pixels=32)


@pytest.fixture(scope="module")
def nodes(rows_of_hospital, images, tmp_path_factory) -> node_crops.NodeCrops:
    options = CropOptions(SETTINGS, tmp_path_factory.mktemp("cache"), processes=0)
    return node_crops.collect_nodes(rows_of_hospital, images, options, lambda: None)


@pytest.fixture(scope="module")
def rows_of_hospital(hospital) -> dict[int, node_table.NodeRow]:
    return rows_of(hospital)


def rows_of(hospital: hospitals.Hospital) -> dict[int, node_table.NodeRow]:
    return dict(enumerate((hospitals.row_of(*one) for one in hospital.nodes), 2))


def copy_of(one: hospitals.Patient, run: int) -> hospitals.Patient:
    """Return a patient's series under another name: cut out a few pixels away, and compressed with loss."""
    rng = np.random.default_rng([run, 3])
    shift = tuple(int(v) for v in rng.integers(-3, 4, 2))
    voxels, masks = (np.roll(array, shift, (1, 2)) for array in (one.volume.voxels, one.masks))
    levels = np.clip((voxels + 300) / 4, 0, 255).astype(np.uint8)
    for plane in levels:
        sink = io.BytesIO()
        Image.fromarray(plane).save(sink, "JPEG", quality=int(rng.integers(60, 90)))
        plane[:] = np.asarray(Image.open(sink))
    header = deepcopy(one.volume.header)
    header.PatientID, header.StudyInstanceUID, header.SeriesInstanceUID = "Z-1", "2.25.21", "2.25.22"
    slices = tuple(replace(at, sop_instance_uid=f"2.25.23{k:03d}") for k, at in enumerate(one.volume.slices))
    volume = replace(one.volume, voxels=levels.astype(np.int16) * 4 - 300, header=header, slices=slices)
    nodes = [
        replace(node_from_mask(volume, masks == node.number, (0, 0, 0), node.side, node.number), source=node.source)
        for node in one.nodes
    ]
    return replace(one, name="Z-1", volume=volume, masks=masks, nodes=nodes)


def test_a_shifted_and_recompressed_copy_under_another_name_is_found_in_twenty_of_twenty_runs(hospital, nodes) -> None:
    numbers, found = list(range(2, len(nodes) + 2)), 0
    assert copied_nodes.copy_problems(numbers, nodes.cohort) == []
    for run in range(20):
        one = hospital.patients[int(np.random.default_rng([run, 4]).integers(len(hospital.patients)))]
        copy = copy_of(one, run)
        places = [(node.box, node.slice_index) for node in copy.nodes]
        fsc, asc = cohorts.crop_nodes(copy.volume, places, SETTINGS, np.random.default_rng(1))
        planted = cohorts.Cohort(
            fsc, asc, np.array(copy.malignant), np.array(["Z-1"] * len(places)), np.ones(len(places), np.float32)
        )
        added = [len(nodes) + 2 + n for n in range(len(places))]
        problems = copied_nodes.copy_problems(numbers + added, cohorts.join_cohorts([nodes.cohort, planted]))
        found += bool(problems)
        assert {problem.row for problem in problems} <= set(added)
    assert found == 20


def test_training_refuses_a_copied_series_and_names_its_rows(hospital, tmp_path) -> None:
    cohort = hospitals.Hospital(tmp_path / "images", [*hospital.patients, copy_of(hospital.patients[2], 1)])
    hospitals.build(cohort.folder, cohort.patients)
    rows = rows_of(cohort)
    node_table.write_table(list(rows.values()), tmp_path / "table.csv")
    command = ["cohort", "train", "--table", str(tmp_path / "table.csv"), "--data", str(cohort.folder)]
    options = ["--out", str(tmp_path / "run"), "--pixels", "32", "--processes", "0", "--family", "resnet18"]
    checked = CliRunner().invoke(app, ["cohort", "check", *command[2:]])
    assert checked.exit_code == 0, checked.output  # names and UIDs do not show it
    done = CliRunner().invoke(app, [*command, *options])
    assert isinstance(done.exception, TableError)
    said = str(done.exception)
    assert "nearly the same as in row" in said
    copies = {number for number, row in rows.items() if row.patient == "Z-1"}
    named = {int(number) for number in re.findall(r"^row (\d+), patient", said, re.MULTILINE)}
    assert named
    assert named <= copies
    assert "Z-1" not in said
    assert not (tmp_path / "run" / "bundle").exists()
