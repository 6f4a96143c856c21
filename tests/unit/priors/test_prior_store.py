"""The store of prior reports: by patient, without a name, deleted after the configured time."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import Dataset

from alnnode.priors.prior_store import Patient, PriorStore, patient_of

ANNA = Patient("4711", "HOSPITAL", "19600102")


def everything(folder: Path) -> bytes:
    return b"".join(str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


def test_data_are_recalled_for_the_same_patient_only(tmp_path: Path) -> None:
    priors = PriorStore(tmp_path)
    assert priors.recall(ANNA) == []
    priors.store(ANNA, "2.25.1", b"one")
    priors.store(ANNA, "2.25.2", b"two")
    priors.store(ANNA, "2.25.1", b"one again")
    assert sorted(PriorStore(tmp_path).recall(ANNA)) == [b"one again", b"two"]
    for other in (ANNA._replace(number="4712"), ANNA._replace(issuer="ELSEWHERE"), ANNA._replace(birth_date="")):
        assert priors.recall(other) == []


def test_nothing_on_the_disk_names_the_patient(tmp_path: Path) -> None:
    PriorStore(tmp_path).store(ANNA, "2.25.1", b"figures")
    held = everything(tmp_path)
    assert b"figures" in held
    assert not any(part.encode() in held for part in ANNA)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")} == {0}


def test_two_nodes_give_the_folder_of_a_patient_different_names(tmp_path: Path) -> None:
    folders = []
    for name in ("a", "b"):
        PriorStore(tmp_path / name).store(ANNA, "2.25.1", b"x")
        folders += [path.parent.name for path in (tmp_path / name).rglob("*.json")]
    assert len(set(folders)) == 2


def test_processes_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: PriorStore(tmp_path).store(ANNA, f"2.25.{n}", b"x"), range(16)))
    assert len(PriorStore(tmp_path).recall(ANNA)) == 16
    assert not list(tmp_path.rglob("*.tmp"))


def test_old_data_are_deleted(tmp_path: Path) -> None:
    priors = PriorStore(tmp_path)
    priors.store(ANNA, "2.25.1", b"old")
    (old,) = tmp_path.rglob("*.json")
    os.utime(old, (1000, 1000))
    priors.store(ANNA, "2.25.2", b"new")
    assert priors.delete_before(2000) == 1
    assert priors.recall(ANNA) == [b"new"]
    assert priors.delete_before(1e12) == 1
    assert priors.recall(ANNA) == []
    priors.store(ANNA, "2.25.3", b"again")
    assert priors.recall(ANNA) == [b"again"]


@pytest.mark.parametrize("number", ["", None, "  "])
def test_images_without_a_patient_id_have_no_patient(number) -> None:
    header = Dataset()
    header.PatientID = number
    header.PatientBirthDate = "19600102"
    assert patient_of(header) is None
