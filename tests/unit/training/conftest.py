"""The hospital with four patients that several test files share; a file may define its own."""

import hospitals
import pytest

from training.clinical import dicom_folder
from training.clinical.node_table import NodeRow

GEOMETRIES = {"supine": {}, "prone": {"prone": True}, "feet first": {"feet_first": True}, "tilted": {"tilt": 15.0}}


@pytest.fixture(scope="session")
def hospital(tmp_path_factory) -> hospitals.Hospital:
    patients = [hospitals.patient(n, **geometry) for n, geometry in enumerate(GEOMETRIES.values())]
    return hospitals.build(tmp_path_factory.mktemp("hospital"), patients)


@pytest.fixture(scope="session")
def images(hospital) -> dicom_folder.DicomFolder:
    (hospital.folder / "notes.txt").write_text("no DICOM")
    return dicom_folder.read_folder(hospital.folder)


@pytest.fixture
def rows(hospital) -> dict[int, NodeRow]:
    """Return the true rows by number."""
    return dict(enumerate((hospitals.row_of(*one) for one in hospital.nodes), 2))
