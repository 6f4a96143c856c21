"""Import of nodes from SR, SEG and RTSTRUCT objects of highdicom, dcmqi, dcmjs (the library of OHIF) and others."""

import subprocess
from dataclasses import replace
from pathlib import Path

import analyses
import hospitals
import nibabel
import numpy as np
import pytest
from programs import system
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code
from sources import ct_files
from typer.testing import CliRunner

from alnnode import report
from alnnode.imaging.crop import CropSettings, crops_for
from alnnode.imaging.series import read_volume
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.marks.nodes import nodes_from_marks
from alnnode.locate.marks.reading import read_marks
from alnnode.records import (
    Analysis,
    Crop,
    Finding,
    Heatmap,
    ObjectRole,
    Prediction,
    ReportOptions,
    ResultObject,
    SliceRef,
    Volume,
)
from alnnode.report import codes
from training.__main__ import app
from training.clinical import dicom_folder, import_command, labels, mark_labels, node_crops, node_table
from training.clinical.import_command import ImportKind

DATA = Path(__file__).parents[4] / "shared" / "data" / "sr"
KNOWN = labels.label_mapping([])
WRITERS = {ImportKind.SEG: hospitals.segmentation, ImportKind.RTSTRUCT: hospitals.structures}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> hospitals.Hospital:
    patients = [hospitals.patient(0), hospitals.patient(1, prone=True), hospitals.patient(2, tilt=15.0)]
    return hospitals.build(tmp_path_factory.mktemp("hospital"), patients)


def places(rows) -> list[tuple]:
    """Return slice and box of each node."""
    return sorted((r.series_uid, r.sop_uid, r.left, r.top, r.right, r.bottom) for r in rows)


@pytest.mark.parametrize("kind", WRITERS)
def test_masks_and_contours_become_the_rows_of_their_nodes(tmp_path, hospital, kind) -> None:
    for one in hospital.patients:
        WRITERS[kind](one, tmp_path / f"{one.name}.dcm")
    found = import_command.read_nodes(kind, tmp_path, dicom_folder.read_folder(hospital.folder), KNOWN)
    truth = [hospitals.row_of(*one) for one in hospital.nodes]
    assert not found.left_out
    assert places(found.rows) == places(truth)
    for column in ("side", "label", "patient", "below", "above", "short_axis_mm"):
        told = [{(r.series_uid, r.left, r.top): getattr(r, column) for r in rows} for rows in (found.rows, truth)]
        assert told[0] == told[1], column


@pytest.mark.skipif(system("plastimatch") is None, reason="### PLASTIMATCH IS MISSING: apt install plastimatch ###")
def test_a_structure_set_by_plastimatch(tmp_path, hospital) -> None:
    for one in hospital.patients:
        masks, written = tmp_path / "masks" / one.name, tmp_path / "written" / one.name
        masks.mkdir(parents=True)
        # NIfTI arrays are indexed (column, row, slice), and the first two axes of its coordinates have the opposite direction (RAS, not LPS).
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ one.volume.affine[:, [2, 1, 0, 3]]
        for node in one.nodes:
            mask = (one.masks == node.number).astype(np.uint8).transpose(2, 1, 0)
            nibabel.save(nibabel.Nifti1Image(mask, affine), masks / f"node {node.number}.nii.gz")
        command = ("convert", "--input-prefix", masks, "--referenced-ct", hospital.folder / one.name, "--output-dicom", written)
        subprocess.run([system("plastimatch"), *map(str, command)], check=True, capture_output=True, timeout=60)
    found = import_command.read_nodes(
        ImportKind.RTSTRUCT, tmp_path / "written", dicom_folder.read_folder(hospital.folder), KNOWN
    )
    truth = [hospitals.row_of(*one) for one in hospital.nodes]
    assert not found.left_out
    assert places(found.rows) == places(truth)
    assert sorted(r.short_axis_mm for r in found.rows) == pytest.approx(sorted(r.short_axis_mm for r in truth), abs=0.01)


def test_a_corrected_report_becomes_rows_with_what_the_reader_said(tmp_path, hospital) -> None:
    said = {1: "malignant", 2: "Carcinoma", 3: "no metastasis"}
    for one in hospital.patients:
        hospitals.report(one, tmp_path / f"{one.name}.dcm", said)
    known = labels.label_mapping(["carcinoma=malignant"])
    found = import_command.read_nodes(ImportKind.SR, tmp_path, dicom_folder.read_folder(hospital.folder), known)
    assert not found.left_out
    truth = [hospitals.row_of(*one) for one in hospital.nodes]
    assert places(found.rows) == places(truth)
    assert [r.side for r in sorted(found.rows, key=str)] == [r.side for r in sorted(found.rows, key=str)]
    by_node = {int(r.tracking_uid[-1]): r.label for r in found.rows}
    assert by_node == {1: "malignant", 2: "malignant", 3: "", 4: ""}
    assert {r.source for r in found.rows} == {"SR"}


def asked(question: str, answer: str) -> tuple[Code, Code]:
    """Return a qualitative evaluation in the codes of a site."""
    return Code(question.upper(), "99SITE", question), Code(answer.upper(), "99SITE", answer)


def test_the_question_of_the_nodes_own_reports_is_one_after_the_class() -> None:
    assert (codes.ASSESSMENT.value, codes.SCHEME) in mark_labels.CLASS_CODES


def test_only_statements_on_the_class_become_the_label(tmp_path, hospital) -> None:
    one = hospital.patients[0]
    coded = Code("111042", "DCM", "Pathologie"), Code("N1", "99SITE", "Carcinoma")
    evaluated = {
        1: [asked("Fatty hilum", "normal")],
        2: [asked("HER2 status", "negative"), asked("Node", "malignant")],
        3: [coded, asked("Margin", "normal")],
        4: [asked("Histology", "malignant"), asked("Assessment of  lymph node", "benign")],
    }
    hospitals.report(one, tmp_path / "sr.dcm", {}, evaluated=evaluated)
    found = import_command.read_nodes(
        ImportKind.SR, tmp_path, dicom_folder.read_folder(hospital.folder), labels.label_mapping(["carcinoma=malignant"])
    )
    done = labels.apply_mapping(found.rows, labels.label_mapping(["carcinoma=malignant"]))
    assert {int(r.tracking_uid[-1]): r.label for r in done} == {1: "", 2: "malignant", 3: "malignant", 4: ""}
    disputed, unasked = found.left_out
    assert "mark 4 of its object: its class, finding and name contradict" in disputed
    assert "the label of 1 mark(s) of one series: a known word answers a question that does not ask for the class" in unasked


def test_a_name_and_a_class_that_contradict_each_other_leave_the_label_empty(tmp_path, hospital) -> None:
    one = hospital.patients[0]
    evaluated = {1: [asked("Class", "benign")], 2: [asked("Class", "malignant")]}
    hospitals.report(one, tmp_path / "sr.dcm", dict.fromkeys((1, 2), "malignant"), evaluated=evaluated)
    found = import_command.read_nodes(ImportKind.SR, tmp_path, dicom_folder.read_folder(hospital.folder), KNOWN)
    done = labels.apply_mapping(found.rows, KNOWN)
    assert {int(r.tracking_uid[-1]): r.label for r in done} == {1: "", 2: "malignant", 3: "", 4: ""}
    assert len(found.left_out) == 1


def test_the_newer_version_of_a_mark_counts_and_own_results_do_not(tmp_path, hospital) -> None:
    one = hospital.patients[0]
    hospitals.report(one, tmp_path / "old.dcm", {1: "benign"})
    hospitals.report(one, tmp_path / "new.dcm", {1: "malignant"})
    newer = dcmread(tmp_path / "new.dcm")
    newer.SOPInstanceUID = newer.file_meta.MediaStorageSOPInstanceUID = "2.25.8799"
    newer.ContentDate = "29990101"
    newer.save_as(tmp_path / "new.dcm")
    hospitals.report(hospital.patients[1], tmp_path / "own.dcm", {}, maker="alnnode")
    found = import_command.read_nodes(ImportKind.SR, tmp_path, dicom_folder.read_folder(hospital.folder), KNOWN)
    assert len(found.rows) == len(one.nodes)
    assert [r.label for r in found.rows if r.tracking_uid.endswith("1")] == ["malignant"]
    assert any("1 object(s) that alnnode made" in line for line in found.left_out)


def test_marks_of_a_missing_series_are_reported(tmp_path, hospital) -> None:
    hospitals.report(hospitals.patient(7), tmp_path / "sr.dcm", {})
    found = import_command.read_nodes(ImportKind.SR, tmp_path, dicom_folder.read_folder(hospital.folder), KNOWN)
    assert not found.rows
    assert len(found.left_out) == 4
    assert "not in the folder" in found.left_out[0]


def test_training_sees_of_a_report_what_the_node_makes_of_it(tmp_path, hospital) -> None:
    """Crops from an SR through the table on disk equal those that the node makes from the SR."""
    one = hospital.patients[1]
    hospitals.report(one, tmp_path / "sr.dcm", dict.fromkeys((1, 2, 3, 4), "benign"))
    command = [
        "import",
        "sr",
        "--from",
        str(tmp_path / "sr.dcm"),
        "--data",
        str(hospital.folder),
        "--out",
        str(tmp_path / "t.csv"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rows, problems = node_table.read_table(tmp_path / "t.csv")
    assert not problems
    settings = CropSettings(pixels=32)
    seen = node_crops.collect_nodes(
        rows,
        dicom_folder.read_folder(hospital.folder),
        node_crops.CropOptions(settings, tmp_path / "cache", processes=0),
        lambda: None,
    )
    volume = read_volume(sorted((hospital.folder / one.name).iterdir()))
    served, _ = nodes_from_marks(ChestAnatomy(volume), [read_marks(tmp_path / "sr.dcm")])
    assert len(served) == len(seen) == 4
    pairs = [crops_for(volume, node, settings) for node in served]
    for kind in ("fsc", "asc"):
        trained = {(crop[0].astype(np.float32) / np.float32(255)).tobytes() for crop in getattr(seen.cohort, kind)}
        assert trained == {getattr(pair, kind).tobytes() for pair in pairs}


def test_objects_of_alnnode_give_positions_on_request_and_never_a_label(tmp_path, hospital) -> None:
    one = hospital.patients[0]
    for item in results(one):
        (tmp_path / f"{item.role}.dcm").write_bytes(item.data)
    series_folder = dicom_folder.read_folder(hospital.folder)
    # This also holds with a mapping for the codes of the node.
    known = labels.label_mapping(["SUSPICIOUS=malignant", "Lymph node=benign"])
    for kind in (ImportKind.SR, ImportKind.SEG):
        assert import_command.read_nodes(kind, tmp_path, series_folder, known).rows == []
        found = import_command.read_nodes(kind, tmp_path, series_folder, known, own=True)
        assert places(found.rows) == places(hospitals.row_of(*node) for node in hospital.nodes if node[0] is one)
        assert {(r.label, r.pathology) for r in found.rows} == {("", "")}


def results(one: hospitals.Patient) -> list[ResultObject]:
    """Return the report and the segmentation that the node makes from these nodes."""
    findings = []
    for node in one.nodes:
        pair = crops_for(one.volume, node, CropSettings(pixels=32))
        blank = np.zeros((32, 32), np.float32)
        heatmaps = (Heatmap(Crop.FSC, blank, pair.fsc_geometry), Heatmap(Crop.ASC, blank, pair.asc_geometry))
        findings.append(Finding(node, Prediction(0.9, dict.fromkeys(Crop, 0.9)), heatmaps, pair))
    analysis = Analysis(one.volume.header, analyses.MODEL, one.volume, tuple(findings), analyses.COVERED)
    context = replace(analyses.CONTEXT, options=ReportOptions(kinds=frozenset({ObjectRole.SEGMENTATION})))
    return [item for item in report.build(analysis, context) if item.role in {ObjectRole.SR, ObjectRole.SEGMENTATION}]


def stack(place: Path, series: str, frame: str, positions, orientation, spacing, shape, uids) -> None:
    """Write a CT of soft tissue to which an object of another program refers."""
    header = analyses.header()
    header.SeriesInstanceUID, header.FrameOfReferenceUID, header.PatientID = series, frame, "X"
    header.Rows, header.Columns, header.PixelSpacing, header.ImageOrientationPatient = *shape, list(spacing), list(orientation)
    header.StudyInstanceUID = "2.25.5"
    refs = tuple(
        SliceRef(str(header.SOPClassUID), uid, None, tuple(p), (1.0, -1024.0)) for uid, p in zip(uids, positions, strict=True)
    )
    volume = Volume(np.full((len(refs), *shape), 40, np.int16), np.eye(4), refs, header, (1.0, *spacing))
    place.mkdir()
    for k, data in enumerate(ct_files(volume)):
        (place / f"{k}.dcm").write_bytes(data)


needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="### ../shared/data/sr IS MISSING: objects written by others are NOT READ ###"
)


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(("kind", "name"), [(ImportKind.SEG, "seg.dcm"), (ImportKind.SR, "sr.dcm")])
def test_a_segmentation_and_a_report_by_dcmqi(tmp_path, kind, name) -> None:
    source = DATA / "QIICR+dcmqi" / "data" / "sr-example"
    seg = dcmread(source / "seg.dcm")
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = [float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    frames = seg.pixel_array.astype(bool)
    normal = np.cross(orientation[:3], orientation[3:])
    at = np.array([g.PlanePositionSequence[0].ImagePositionPatient for g in seg.PerFrameFunctionalGroupsSequence], float)
    heights = at @ normal
    gap = np.diff(np.sort(heights)).min()
    places_ = [at[heights.argmin()] + n * gap * normal for n in range(-3, round(np.ptp(heights) / gap) + 4)]
    series = seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    uids = [f"2.25.4{n:03d}" for n in range(len(places_))]
    stack(tmp_path / "ct", series, seg.FrameOfReferenceUID, places_, orientation, spacing, frames.shape[1:], uids)
    marked = source if kind is ImportKind.SR else source / name
    found = import_command.read_nodes(kind, marked, dicom_folder.read_folder(tmp_path / "ct"), KNOWN)
    (row,) = found.rows
    _, rows, columns = np.nonzero(frames)
    assert (row.left, row.top, row.right, row.bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    used = heights[frames.any(axis=(1, 2))]
    assert row.below + row.above == round(np.ptp(used) / gap)
    assert row.source == kind.value.upper()
    if kind is ImportKind.SR:
        assert row.tracking_uid == "2.25.318774060119084600392715520575818119084"


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        # A circle by its centre and a point; a rectangle by its corners, with a circle that covers a third of it and so is the same node.
        ("ImagingDataCommons+highdicom/data/test_files/sr_document.dcm", [(47, 41, 69, 63)]),
        (
            "ImagingDataCommons+highdicom/data/test_files/sr_document_with_multiple_groups.dcm",
            [(25, 45, 45, 65)],
        ),
    ],
)
def test_reports_by_highdicom(tmp_path, name, boxes) -> None:
    # The four objects of highdicom refer to one image.
    (series,), image = read_marks(DATA / name).marks[0].series_uids, "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
    positions = [(0.0, 0.0, float(2 * n)) for n in range(7)]
    uids = [image if n == 3 else f"2.25.4{n:03d}" for n in range(7)]
    stack(tmp_path / "ct", series, "2.25.6", positions, (1, 0, 0, 0, 1, 0), (0.8, 0.8), (128, 128), uids)
    found = import_command.read_nodes(ImportKind.SR, DATA / name, dicom_folder.read_folder(tmp_path / "ct"), KNOWN)
    for row in found.rows:
        at = uids.index(row.sop_uid)
        assert at - row.below <= 3 <= at + row.above
    for one, other in zip(sorted((r.left, r.top, r.right, r.bottom) for r in found.rows), sorted(boxes), strict=True):
        np.testing.assert_allclose(one, other, atol=0.5)


@needs_data
@pytest.mark.data
def test_a_report_by_dcmjs_which_ohif_writes_with(tmp_path) -> None:
    path = DATA / "dcmjs-org+dcmjs" / "examples" / "data" / "structured_report.dcm"
    marked = [mark for mark in read_marks(path).marks if mark.tracking_identifier.endswith(("EllipticalRoi", "Bidirectional"))]
    images = sorted({d.sop_instance_uid for mark in marked for d in mark.drawings})
    positions = [(0.0, 0.0, float(2 * n)) for n in range(7)]
    uids = [images[n - 2] if 2 <= n < 2 + len(images) else f"2.25.4{n:03d}" for n in range(7)]
    stack(tmp_path / "ct", marked[0].series_uids[0], "2.25.6", positions, (1, 0, 0, 0, 1, 0), (0.4, 0.4), (512, 512), uids)
    found = import_command.read_nodes(ImportKind.SR, path, dicom_folder.read_folder(tmp_path / "ct"), KNOWN)
    by_mark = {r.tracking_uid: r for r in found.rows}
    read = 0
    for group in groups_of(dcmread(path)):
        named = {item.ConceptNameCodeSequence[0].CodeValue: item for item in group.ContentSequence}
        below = [graphic for item in group.ContentSequence for graphic in item.get("ContentSequence", [])]
        for graphic in below:
            if graphic.get("GraphicType") != "ELLIPSE":
                continue
            # Ends of the major axis, then of the minor one (PS3.3 C.18.6.1.2); both lie along rows and columns here.
            points = np.array(graphic.GraphicData).reshape(-1, 2)
            row = by_mark[named["112040"].UID]
            np.testing.assert_allclose((row.left, row.top, row.right, row.bottom), (*points.min(0), *points.max(0)), atol=0.5)
            read += 1
    assert read == 2
    assert len(found.rows) >= 3


def groups_of(item: Dataset) -> list[Dataset]:
    """Return the measurement groups (125007, DCM) below a content item."""
    name = item.get("ConceptNameCodeSequence")
    if name and name[0].CodeValue == "125007":
        return [item]
    return [group for child in item.get("ContentSequence", []) for group in groups_of(child)]
