"""result.json, the context of an analysis without a job, and the page of the demonstration, from synthetic analyses."""

import io
import json
import sys
from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

sys.path.insert(0, str(Path(__file__).parents[2]))
from analyses import CONTEXT, analysis, variants

from alnnode import report
from alnnode.cli.offline import DATELESS, offline_context
from alnnode.demo import page
from alnnode.report import answer
from alnnode.report.result_json import as_dict
from alnnode.report.sr import prior_record
from alnnode.settings import Settings


@pytest.mark.parametrize("name", variants())
def test_every_analysis_becomes_json(name: str) -> None:
    of = variants()[name]
    said = json.loads(json.dumps(as_dict(of)))
    assert len(said["nodes"]) == len(of.findings)
    assert said["notice"] == of.model.banner
    assert said["text"] == answer.lines(of)
    assert "PHANTOM^REPORT" not in json.dumps(said)


def test_boxes_are_given_in_voxels_and_patient_millimetres() -> None:
    of = analysis(1)
    (node,) = as_dict(of)["nodes"]
    box = of.findings[0].node.box
    assert node["box_voxels"] == [[box.k0, box.j0, box.i0], [box.k1, box.j1, box.i1]]
    low, high = node["box_mm"]
    assert low == pytest.approx([(box.i0 - 0.5) * 0.8 - 88, (box.j0 - 0.5) * 0.8 - 80, (box.k0 - 0.5) * 2.0], abs=0.01)
    assert high == pytest.approx([(box.i1 - 0.5) * 0.8 - 88, (box.j1 - 0.5) * 0.8 - 80, (box.k1 - 0.5) * 2.0], abs=0.01)
    assert set(node["members"]) == {"fsc", "asc"}


def write(path: Path, **attributes: str) -> Path:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "2.25.5"
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    image.file_meta = dcmread_meta()
    image.save_as(path, enforce_file_format=True)
    return path


def dcmread_meta():
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def test_the_moment_is_the_newest_acquisition(tmp_path: Path) -> None:
    older = write(tmp_path / "a", AcquisitionDate="20250101", AcquisitionTime="120000.123")
    newer = write(tmp_path / "b", AcquisitionDate="20250101", AcquisitionTime="120001")
    assert offline_context([newer, older], Settings()).created == datetime(2025, 1, 1, 12, 0, 1)
    assert offline_context([older, newer], Settings()) == offline_context([newer, older], Settings())


def test_another_device_has_results_in_series_of_their_own(tmp_path: Path) -> None:
    image = write(tmp_path / "a")
    contexts = [offline_context([image], Settings(), arithmetic=device) for device in ("CPU, 1 thread(s)", "CPU, 2 thread(s)")]
    series = [{item.series_instance_uid for item in report.build(analysis(1), context)} for context in contexts]
    assert series[0].isdisjoint(series[1])


@pytest.mark.parametrize(
    ("time", "moment"),
    [
        ("09", datetime(2026, 11, 1, 9)),  # was 10 January
        ("0930", datetime(2026, 11, 1, 9, 30)),  # was 09:03
        ("093015.5", datetime(2026, 11, 1, 9, 30, 15)),
        ("", datetime(2026, 11, 1)),
        ("9 h", datetime(2026, 11, 1)),
    ],
)
def test_a_time_without_minutes_or_seconds_is_read_as_it_is(tmp_path: Path, time: str, moment: datetime) -> None:
    """PS3.5 section 6.2: a TM may end after the hour or the minute."""
    with pydicom.config.disable_value_validation():
        image = write(tmp_path / "a", StudyDate="20261101", StudyTime=time)
    assert offline_context([image], Settings()).created == moment


def test_a_series_without_dates_has_a_moment_too(tmp_path: Path) -> None:
    assert offline_context([write(tmp_path / "a")], Settings()).created == DATELESS


def test_the_page_shows_the_report_and_every_capture_and_escapes_what_it_shows() -> None:
    sr, *captures = (dcmread(io.BytesIO(item.data)) for item in report.build(analysis(2), CONTEXT))
    text = page.render("<notice>", sr, captures, [("send", "1.0 s")], ["one & only"])
    assert text.count("data:image/png;base64,") == len(captures) == 3
    assert "&lt;notice&gt;" in text
    assert "one &amp; only" in text
    assert "Probability, demonstration model" in text
    assert "91" in text
    assert "<script" not in text


def test_of_two_earlier_series_the_one_with_slices_alike_is_compared_with(tmp_path: Path) -> None:
    paths = []
    for uid, slice_mm in (("2.25.901", 1.0), ("2.25.902", 5.0)):
        earlier = dcmread(io.BytesIO(report.build(analysis(1), CONTEXT)[0].data))
        element = earlier.private_block(prior_record.GROUP, prior_record.CREATOR)[prior_record.ELEMENT]
        element.value = json.dumps(json.loads(element.value) | {"slice_mm": slice_mm})
        earlier.SOPInstanceUID = earlier.file_meta.MediaStorageSOPInstanceUID = uid
        paths.append(tmp_path / f"{uid}.dcm")
        earlier.save_as(paths[-1])
    image = write(
        tmp_path / "image.dcm", PatientID="P-1", PatientBirthDate="19600102", StudyDate="20260901", SliceThickness="5"
    )
    found = offline_context([image], Settings(), paths).prior.report
    assert found.sop_instance_uid == "2.25.902"
