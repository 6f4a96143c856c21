"""What the node keeps of its reports: by patient, without a name, for as long as the site says."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import Dataset

from alnnode.priors.memory import Memory, Patient, patient_of

ANNA = Patient("4711", "HOSPITAL", "19600102")


def everything(folder: Path) -> bytes:
    return b"".join(str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


def test_a_patient_gets_back_what_was_kept_and_nobody_else_does(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.recall(ANNA) == []
    memory.remember(ANNA, "2.25.1", b"one")
    memory.remember(ANNA, "2.25.2", b"two")
    memory.remember(ANNA, "2.25.1", b"one again")
    assert sorted(Memory(tmp_path).recall(ANNA)) == [b"one again", b"two"]
    for other in (ANNA._replace(number="4712"), ANNA._replace(issuer="ELSEWHERE"), ANNA._replace(birth_date="")):
        assert memory.recall(other) == []


def test_nothing_on_the_disk_names_the_patient(tmp_path: Path) -> None:
    Memory(tmp_path).remember(ANNA, "2.25.1", b"figures")
    held = everything(tmp_path)
    assert b"figures" in held
    assert not any(part.encode() in held for part in ANNA)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")} == {0}


def test_two_nodes_name_the_folder_of_a_patient_otherwise(tmp_path: Path) -> None:
    folders = []
    for name in ("a", "b"):
        Memory(tmp_path / name).remember(ANNA, "2.25.1", b"x")
        folders += [path.parent.name for path in (tmp_path / name).rglob("*.json")]
    assert len(set(folders)) == 2


def test_processes_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Memory(tmp_path).remember(ANNA, f"2.25.{n}", b"x"), range(16)))
    assert len(Memory(tmp_path).recall(ANNA)) == 16
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_is_old_is_forgotten(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.remember(ANNA, "2.25.1", b"old")
    (old,) = tmp_path.rglob("*.json")
    os.utime(old, (1000, 1000))
    memory.remember(ANNA, "2.25.2", b"new")
    assert memory.forget(2000) == 1
    assert memory.recall(ANNA) == [b"new"]
    assert memory.forget(1e12) == 1
    assert memory.recall(ANNA) == []
    memory.remember(ANNA, "2.25.3", b"again")
    assert memory.recall(ANNA) == [b"again"]


@pytest.mark.parametrize("number", ["", None, "  "])
def test_images_without_a_patient_id_are_nobodys(number) -> None:
    header = Dataset()
    header.PatientID = number
    header.PatientBirthDate = "19600102"
    assert patient_of(header) is None
