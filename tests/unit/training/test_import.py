"""The table of a hospital's cohort: written and read, checked row by row, and imported from the files of annotation tools."""

import json
from dataclasses import replace
from pathlib import Path

import ct_series
import hospitals
import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from alnnode import phantom
from alnnode.errors import AlnnodeError
from alnnode.phantom import PhantomSettings
from training.__main__ import app
from training.clinical import (
    coco,
    dicom_folder,
    import_command,
    labels,
    merge_slices,
    nifti,
    node_table,
    phantom_truth,
    table_check,
)
from training.clinical.node_table import NodeRow, TableError

GEOMETRIES = {"supine": {}, "prone": {"prone": True}, "feet first": {"feet_first": True}, "tilted": {"tilt": 15.0}}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> hospitals.Hospital:
    patients = [hospitals.patient(n, **geometry) for n, geometry in enumerate(GEOMETRIES.values())]
    return hospitals.build(tmp_path_factory.mktemp("hospital"), patients)


@pytest.fixture(scope="module")
def lying(hospital) -> dicom_folder.DicomFolder:
    (hospital.folder / "notes.txt").write_text("no DICOM")
    return dicom_folder.read_folder(hospital.folder)


@pytest.fixture
def rows(hospital) -> dict[int, NodeRow]:
    """Return the true rows by number."""
    return dict(enumerate((hospitals.row_of(*one) for one in hospital.nodes), 2))


def boxes(found: list[NodeRow]) -> list[tuple]:
    """Return the values of a node that all formats of marks must give."""
    return sorted((r.series_uid, r.sop_uid, r.left, r.top, r.right, r.bottom, r.below, r.above) for r in found)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_table_is_read_as_it_was_written(tmp_path, rows, name) -> None:
    first = replace(rows[2], frame=3, level="II", pathology='said "no, not\nsure"; ö', part="test")
    node_table.write_table([first, *list(rows.values())[1:]], tmp_path / name)
    found, problems = node_table.read_table(tmp_path / name)
    assert not problems
    assert list(found) == list(rows)
    assert found[2] == first
    assert list(found.values())[1:] == list(rows.values())[1:]


def test_a_spreadsheet_with_semicolons_and_decimal_commas_is_read(tmp_path) -> None:
    path = tmp_path / "table.csv"
    text = "patient;series_uid;sop_uid;left;top;right;bottom;label\r\nA;1.2;1.3;10,5;20;30;40;Malignant\r\n"
    path.write_text("\ufeff" + text, encoding="utf-8")
    found, problems = node_table.read_table(path)
    assert not problems
    assert (found[2].left, found[2].label, found[2].frame) == (10.5, "malignant", None)


def test_invalid_cells_are_named_by_row_and_column_and_not_quoted(tmp_path) -> None:
    path = tmp_path / "table.csv"
    head = "patient,series_uid,sop_uid,left,top,right,bottom,label,side,frame,contour"
    path.write_text(f"{head}\nA,1.2,1.3,1,2,3,4,benign,left,,\n,1.2,1.3,x,2,3,4,SECRET,middle,-1,1;2 3\n")
    found, problems = node_table.read_table(path)
    assert list(found) == [2]
    assert {(p.row, p.column) for p in problems} == {(3, c) for c in ("patient", "left", "label", "side", "frame", "contour")}
    assert "SECRET" not in str(problems)
    assert "malignant or benign" in next(str(p) for p in problems if p.column == "label")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patient,left\nA,1\n", r"missing column\(s\) series_uid, sop_uid, top, right, bottom"),
        ("patient,series_uid,sop_uid,left,top,right,bottom,lable\nA,1,2,3,4,5,6,benign\n", r"unknown column\(s\) lable"),
        ("patient\n", "no rows"),
    ],
)
def test_a_table_of_other_columns_is_refused(tmp_path, text, said) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=said):
        node_table.read_table(tmp_path / "t.csv")


def test_a_right_table_has_no_problems(rows, lying) -> None:
    assert table_check.table_problems(rows, lying) == []
    assert lying.unread == 1


def changed(rows: dict[int, NodeRow], number: int, **values) -> dict[int, NodeRow]:
    return rows | {number: replace(rows[number], **values)}


@pytest.mark.parametrize(
    ("values", "column", "said"),
    [
        ({"series_uid": "1.2.3"}, "series_uid", "no image of this series"),
        ({"study_uid": "1.2.3"}, "study_uid", "another study"),
        ({"sop_uid": "1.2.3"}, "sop_uid", "no such image"),
        ({"frame": 2}, "frame", "has one frame"),
        ({"right": 220.5}, "right", "outside the image; image coordinates run from 0 to 220"),
        ({"top": -1.0}, "top", "outside the image"),
        ({"left": 40.0, "right": 30.0}, "right", "swapped"),
        ({"patient": "somebody else"}, "patient", "another name"),
        ({"part": "test"}, "part", "for all nodes of the patient or for none"),
    ],
)
def test_each_wrong_row_is_named_with_what_to_do(rows, lying, values, column, said) -> None:
    found = table_check.table_problems(changed(rows, 5, **values), lying)
    assert [p for p in found if p.column == column and said in str(p) and (p.row == 5 or column == "part")], found
    assert "somebody" not in str(found)


def test_one_patient_id_under_two_names_is_found_unless_patient_ids_are_ignored(rows, lying) -> None:
    swapped = {n: replace(r, patient="B") if n == 2 else r for n, r in rows.items() if n in {2, 6}}
    series = {uid: replace(s, patient_id="ANON", study_uid=uid) for uid, s in lying.series.items()}
    same = replace(lying, series=series)
    swapped = {n: replace(r, study_uid="") for n, r in swapped.items()}
    assert "Patient ID" in str(table_check.table_problems(swapped, same))
    assert table_check.table_problems(swapped, same, by_patient_id=False) == []


def test_a_series_that_is_not_ct_is_named(rows, lying) -> None:
    uid = rows[2].series_uid
    other = replace(lying, series=lying.series | {uid: replace(lying.series[uid], modality="MR", is_ct=False)})
    found = table_check.table_problems({2: rows[2]}, other)
    assert [p.column for p in found] == ["series_uid"]
    assert "MR, not CT" in str(found[0])


def test_duplicates_and_slices_of_one_node_are_distinguished(rows, lying, hospital) -> None:
    volume = hospital.patients[0].volume
    at = [s.sop_instance_uid for s in volume.slices].index(rows[2].sop_uid)
    beside = replace(rows[2], sop_uid=volume.slices[at + 1].sop_instance_uid, right=rows[2].right - 1)
    again = replace(rows[2], left=rows[2].left + 1)
    found = {p.row: str(p) for p in table_check.table_problems(rows | {90: beside, 91: again}, lying)}
    assert "another slice of the node in row 2" in found[90]
    assert "is a duplicate of the node in row 2" in found[91]
    tracked = replace(beside, left=150.0, right=160.0, tracking_uid="2.25.5")
    found = table_check.table_problems({2: replace(rows[2], tracking_uid="2.25.5"), 3: tracked}, lying)
    assert [p.row for p in found] == [3]
    merged = merge_slices.merge_rows([rows[2], beside], lying)
    assert len(merged) == 1
    assert (merged[0].sop_uid, merged[0].above) == (rows[2].sop_uid, max(rows[2].above, 1))


def thin(step_mm: float = 1.0) -> dicom_folder.DicomFolder:
    """Return a folder of one series with a slice "1.n" at each n-th step."""
    images = {f"1.{n}": dicom_folder.ImageHeader(Path("x"), 64, 64, 1, {None: n * step_mm}) for n in range(40)}
    return dicom_folder.DicomFolder(
        Path(), {"1": dicom_folder.ImageSeries("1", "2", "A", "CT", is_ct=True, images=images)}, {}, 0
    )


def stack(*slices: int, left: float = 10, tracking_uid: str = "") -> list[NodeRow]:
    """Return one box on each of these slices."""
    return [NodeRow("A", "", "1", f"1.{n}", None, left, 10, left + 9, 20, tracking_uid=tracking_uid) for n in slices]


@pytest.mark.parametrize(
    ("rows_", "expected"),
    [
        # Boxes on every third slice, with one missing.
        (stack(3, 6, 9, 15) + stack(24, 27, 30), [(3, 15), (24, 30)]),
        # Boxes on every slice: even a small gap separates two nodes.
        (stack(3, 4, 5, 6) + stack(11, 12, 13), [(3, 6), (11, 13)]),
        # Slices farther apart than those of one node; boxes beside each other.
        (stack(3, 15), [(3, 3), (15, 15)]),
        (stack(3, 6) + stack(4, 7, left=30), [(3, 6), (4, 7)]),
        # Different tracking UIDs.
        (stack(3, tracking_uid="a") + stack(6, tracking_uid="b"), [(3, 3), (6, 6)]),
    ],
)
def test_boxes_on_some_slices_only_are_joined_by_their_distance(rows_, expected) -> None:
    merged = merge_slices.merge_rows(rows_, thin())
    at = [int(row.sop_uid[2:]) for row in merged]
    assert sorted((k - row.below, k + row.above) for k, row in zip(at, merged, strict=True)) == expected


def test_two_rows_that_may_be_one_node_cause_a_warning(tmp_path, hospital, rows) -> None:
    lying_ = thin()
    one, near = stack(3, 10)
    (said,) = table_check.table_warnings({2: one, 3: near}, lying_)
    assert said.row == 3
    assert "may be the node in row 2, 7 mm away" in str(said)
    assert "its own tracking_uid" in str(said)
    assert not table_check.table_problems({2: one, 3: near}, lying_)
    told = {2: replace(one, tracking_uid="a"), 3: replace(near, tracking_uid="b")}
    whole = {2: replace(one, above=2), 3: replace(near, below=2)}
    far = dict(enumerate(stack(3, 14), 2))
    beside = dict(enumerate([*stack(3), *stack(10, left=30)], 2))
    assert [table_check.table_warnings(some, lying_) for some in (told, whole, far, beside)] == [[], [], [], []]
    # With slices of 2 mm; the command prints a warning and accepts the table.
    volume = hospital.patients[0].volume
    at = [s.sop_instance_uid for s in volume.slices].index(rows[2].sop_uid)
    above = replace(rows[2], sop_uid=volume.slices[at + 4].sop_instance_uid, below=0, above=0)
    node_table.write_table([replace(rows[2], below=0, above=0), above], tmp_path / "table.csv")
    command = ["cohort", "check", "--table", str(tmp_path / "table.csv"), "--data", str(hospital.folder)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "warning: row 3, sop_uid: may be the node in row 2, 8 mm away" in done.output


def test_frames_stored_from_the_head_down_count_from_the_feet(tmp_path) -> None:
    image = ct_series.enhanced()
    ct_series.write([image], tmp_path)
    lying = dicom_folder.read_folder(tmp_path)
    one = NodeRow("A", "", image.SeriesInstanceUID, image.SOPInstanceUID, 2, 10, 10, 20, 20)
    boxes_ = [one, replace(one, frame=3, right=19), replace(one, frame=4, right=18)]
    (merged,) = merge_slices.merge_rows(boxes_, lying)
    assert (merged.frame, merged.below, merged.above) == (2, 2, 0)
    undescribed = ct_series.enhanced(PerFrameFunctionalGroupsSequence=None)
    ct_series.write([undescribed], tmp_path)
    assert dicom_folder.read_folder(tmp_path).series[one.series_uid].slice_of(one.sop_uid, 2) is None


def test_a_mapping_knows_whole_texts_only() -> None:
    known = labels.label_mapping(["Invasive ductal carcinoma=malignant", "pN0=benign"])
    row = NodeRow("A", "", "1", "2", None, 0, 0, 1, 1)
    said = ["invasive  DUCTAL carcinoma", "pN0", "Metastatic", "no metastasis", "negative for malignancy", ""]
    found = labels.apply_mapping([replace(row, pathology=text) for text in said], known)
    assert [r.label for r in found] == ["malignant", "benign", "malignant", "", "", ""]
    kept = labels.apply_mapping([replace(row, label="benign", pathology="metastatic")], known)
    assert kept[0].label == "benign"
    with pytest.raises(TableError, match="=malignant or"):
        labels.label_mapping(["carcinoma"])


def test_pathology_is_joined_by_what_both_tables_have(tmp_path, rows) -> None:
    path = tmp_path / "pathology.csv"
    path.write_text(
        "patient,side,pathology\nH-0,left,metastatic\nH-0,right,reactive\nH-9,left,reactive\nH-0,left,Metastatic\n",
        encoding="utf-8",
    )
    # Pathology replaces the class of a reader; without pathology it stays.
    plain = [replace(row, label="benign" if row.patient == "H-0" else "") for row in rows.values()]
    joined, problems = labels.join_labels(plain, path)
    found = labels.apply_mapping(joined, labels.label_mapping([]))
    assert {(r.side, r.label) for r in found if r.patient == "H-0"} == {("left", "malignant"), ("right", "benign")}
    assert {r.label for r in found if r.patient != "H-0"} == {""}
    assert [(p.row, p.what) for p in problems] == [(4, "matches no marked node")]


def test_rows_that_contradict_each_other_label_nothing(tmp_path, rows) -> None:
    path = tmp_path / "pathology.csv"
    path.write_text("patient,label\nH-0,malignant\nH-1,Benign\nH-0,benign\nH-1,benign\nH-0,malignant\n", encoding="utf-8")
    joined, problems = labels.join_labels([replace(row, pathology="metastatic") for row in rows.values()], path)
    found = labels.apply_mapping(joined, labels.label_mapping([]))
    told = {name: {row.label for row in found if row.patient == name} for name in ("H-0", "H-1")}
    assert told == {"H-0": {""}, "H-1": {"benign"}}
    assert [(p.row, p.what) for p in problems] == [(2, "contradicts row 4"), (4, "contradicts row 2"), (6, "contradicts row 4")]


@pytest.mark.parametrize("lines", ["H-0,left\nH-0,right,reactive\n", "H-0,right,reactive\nH-0,left\n"])
def test_a_short_row_has_empty_cells_which_say_nothing(tmp_path, rows, lines) -> None:
    path = tmp_path / "pathology.csv"
    path.write_text(f"patient,side,pathology\n{lines}H-0,left,metastatic\nH-1,left\n", encoding="utf-8")
    joined, problems = labels.join_labels([replace(row, label="") for row in rows.values()], path)
    found = labels.apply_mapping(joined, labels.label_mapping([]))
    assert not problems
    assert {(r.side, r.label) for r in found if r.patient == "H-0"} == {("left", "malignant"), ("right", "benign")}
    assert {r.label for r in found if r.patient != "H-0"} == {""}


def alike(found: list[NodeRow], truth: list[NodeRow], lying: dicom_folder.DicomFolder) -> None:
    """Return whether the boxes agree, on the same slice or the next: a box does not show which of two slices has the larger cross-section."""
    assert len(found) == len(truth)
    for one in truth:
        series = lying.series[one.series_uid]
        here = series.slice_of(one.sop_uid, None)
        twins = [r for r in found if r.series_uid == one.series_uid and (r.left, r.top) == (one.left, one.top)]
        assert [(r.right, r.bottom) for r in twins] == [(one.right, one.bottom)]
        there = series.slice_of(twins[0].sop_uid, None)
        assert abs(there - here) <= 1
        assert (there - twins[0].below, there + twins[0].above) == (here - one.below, here + one.above)


@pytest.mark.parametrize("tracked", [True, False])
def test_coco_boxes_become_one_row_for_each_node(tmp_path, hospital, lying, rows, tracked) -> None:
    hospitals.coco(hospital, tmp_path / "boxes.json", tracked)
    found = import_command.read_nodes(import_command.ImportKind.COCO, tmp_path / "boxes.json", lying, labels.KNOWN)
    assert not found.left_out
    alike(found.rows, list(rows.values()), lying)
    done = labels.apply_mapping(found.rows, labels.label_mapping(["ductal carcinoma=malignant"]))
    assert sorted(r.label for r in done) == sorted(r.label for r in rows.values())


def test_a_coco_attribute_without_a_value_is_no_text(tmp_path, hospital, lying) -> None:
    """Tools write null for an empty attribute; then the category counts."""
    path = tmp_path / "boxes.json"
    hospitals.coco(hospital, path)
    told = json.loads(path.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in told["categories"]}
    for annotation in told["annotations"]:
        annotation["attributes"] = {"pathology": None, "side": None, "level": None}
    path.write_text(json.dumps(told), encoding="utf-8")
    rows = coco.read_coco(path, lying).rows
    assert {(row.pathology, row.side, row.level) for row in rows} == {(name, "", "") for name in names.values()}


def test_coco_images_that_are_missing_or_were_scaled_are_reported(tmp_path, hospital, lying) -> None:
    hospitals.coco(hospital, tmp_path / "boxes.json")
    told = json.loads((tmp_path / "boxes.json").read_text())
    told["images"][0]["width"] = 512
    told["images"][1]["file_name"] = "unknown.png"
    told["annotations"][-1] = {"id": 1, "image_id": told["images"][2]["id"]}
    (tmp_path / "boxes.json").write_text(json.dumps(told))
    left = " ".join(coco.read_coco(tmp_path / "boxes.json", lying).left_out)
    for said in ("512 x 200 pixels, the CT image 220 x 200", "not in the folder", "bbox does not have four numbers"):
        assert said in left
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(TableError, match="no COCO"):
        coco.read_coco(tmp_path / "none.json", lying)


RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Axes of the file: as stored (columns, rows, slices), each flipped, and in another order.
STORED = {
    "as stored": lambda m, a: (m, a),
    "flipped": lambda m, a: (m[::-1], a @ np.array([[-1, 0, 0, m.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
    "slices from the head": lambda m, a: (
        m[:, :, ::-1],
        a @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, m.shape[2] - 1], [0, 0, 0, 1.0]]),
    ),
    "other order": lambda m, a: (m.transpose(2, 0, 1), a @ np.eye(4)[:, [2, 0, 1, 3]]),
}


@pytest.mark.parametrize("form", STORED)
def test_nifti_masks_lie_where_the_nodes_are_however_the_file_is_turned(tmp_path, hospital, lying, rows, form) -> None:
    for one in hospital.patients:
        # (column, row, slice) of the file to RAS, as dcm2niix and ITK write it.
        affine = RAS @ one.volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
        mask, turned = STORED[form](one.masks.transpose(2, 1, 0), affine)
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(mask), turned), tmp_path / f"{one.name}.nii.gz")
    found = import_command.read_nodes(import_command.ImportKind.NIFTI, tmp_path, lying, labels.KNOWN)
    assert not found.left_out
    assert boxes(found.rows) == boxes(list(rows.values()))
    assert sorted((r.series_uid, r.sop_uid, r.side) for r in found.rows) == sorted(
        (r.series_uid, r.sop_uid, r.side) for r in rows.values()
    )


def test_a_nifti_mask_without_a_header_is_not_imported(tmp_path, hospital, lying) -> None:
    one = hospital.patients[0]
    mask = np.ascontiguousarray(one.masks.transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([0.8, 0.8, 2.0, 1.0])), tmp_path / f"{one.name}.nii")
    found = nifti.read_mask(tmp_path / f"{one.name}.nii", lying)
    assert len(found.rows) + len(found.left_out) == len(one.nodes)
    assert any("does not lie in this series" in line for line in found.left_out)
    (tmp_path / "unknown.nii").write_bytes(b"no")
    assert "0 CT series match its name" in nifti.read_mask(tmp_path / "unknown.nii", lying).left_out[0]


def test_pieces_of_a_mask_of_one_value_are_nodes(tmp_path, hospital, lying) -> None:
    one = hospital.patients[0]
    affine = RAS @ one.volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
    mask = (one.masks.transpose(2, 1, 0) > 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / f"{one.volume.header.SeriesInstanceUID}.nii")
    assert len(import_command.read_nodes(import_command.ImportKind.NIFTI, tmp_path, lying, labels.KNOWN).rows) == len(one.nodes)


def masked(one: hospitals.Patient, folder_: Path, values: dict[int, int]) -> Path:
    """Write a NIfTI mask in which each node has one of these values."""
    affine = RAS @ one.volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
    mask = np.zeros_like(one.masks)
    for number, value in values.items():
        mask[one.masks == number] = value
    path = folder_ / f"{one.name}.nii"
    nibabel.save(nibabel.Nifti1Image(mask.transpose(2, 1, 0), affine), path)
    return path


def test_distant_components_of_a_value_are_nodes(tmp_path, hospital, lying) -> None:
    one = hospital.patients[0]
    values = {node.number: 1 + bad for node, bad in zip(one.nodes, one.malignant, strict=True)}
    found = nifti.read_mask(masked(one, tmp_path, values), lying)
    truth = [hospitals.row_of(*node) for node in hospital.nodes if node[0] is one]
    assert boxes(found.rows) == boxes(truth)
    assert ["value 1" in line and "2 components" in line for line in found.left_out] == [True, False]
    # A table of labels can still be joined by the value.
    (tmp_path / "classes.csv").write_text("source_uid,label\n1,benign\n2,malignant\n")
    joined, problems = labels.join_labels(found.rows, tmp_path / "classes.csv")
    assert not problems
    assert sorted((r.left, r.label) for r in joined) == sorted((r.left, r.label) for r in truth)


def test_near_components_of_a_value_are_one_node_with_a_remark(tmp_path, hospital, lying) -> None:
    one = hospital.patients[0]
    found = nifti.read_mask(masked(one, tmp_path, {1: 1, 2: 1, 3: 2, 4: 3}), lying)
    assert len(found.rows) == 3
    (line,) = found.left_out
    assert "value 1" in line
    assert "imported as one node" in line


@pytest.mark.parametrize("others", [{}, {1: 2}])
def test_a_component_that_is_longer_than_a_node_is_not_imported(tmp_path, hospital, lying, others) -> None:
    one = hospital.patients[0]
    masks = one.masks.copy()
    masks[6, 60, 30:180] = 9
    found = nifti.read_mask(masked(replace(one, masks=masks), tmp_path, {9: 5, **others}), lying)
    assert len(found.rows) == len(others)
    (line,) = found.left_out
    assert "extends over 120 mm, which is too large for a node" in line


def test_a_nifti_mask_without_an_orientation_is_refused(tmp_path, hospital, lying) -> None:
    path = masked(hospital.patients[0], tmp_path, {1: 1, 2: 2})
    image = nibabel.load(path)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    bare = tmp_path / "bare"
    bare.mkdir()
    nibabel.save(image, bare / path.name)
    found = nifti.read_mask(bare / path.name, lying)
    assert not found.rows
    assert "sform_code and qform_code are 0" in found.left_out[0]
    assert "save it with the geometry of the CT" in found.left_out[0]


def test_the_command_writes_the_table_and_says_what_is_missing(tmp_path, hospital, lying, rows) -> None:
    hospitals.coco(hospital, tmp_path / "boxes.json")
    (tmp_path / "truth.csv").write_text("patient,label\nH-7,benign\n")
    command = ["import", "coco", "--from", str(tmp_path / "boxes.json"), "--data", str(hospital.folder)]
    command += ["--out", str(tmp_path / "table.csv"), "--map", "ductal carcinoma=malignant"]
    command += ["--labels", str(tmp_path / "truth.csv")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "16 nodes" in done.output
    assert "row 2, patient: matches no marked node" in done.output
    found, problems = node_table.read_table(tmp_path / "table.csv")
    assert not problems
    alike(list(found.values()), list(rows.values()), lying)
    checked = CliRunner().invoke(
        app, ["cohort", "check", "--table", str(tmp_path / "table.csv"), "--data", str(hospital.folder)]
    )
    assert checked.exit_code == 0, checked.output
    node_table.write_table([replace(found[2], sop_uid="1.2")], tmp_path / "table.csv")
    checked = CliRunner().invoke(
        app, ["cohort", "check", "--table", str(tmp_path / "table.csv"), "--data", str(hospital.folder)]
    )
    assert checked.exit_code == 1
    assert "row 2, sop_uid" in checked.output
    empty = CliRunner().invoke(
        app, ["import", "nifti", "--from", str(tmp_path), "--data", str(hospital.folder), "--out", "x.csv"]
    )
    assert isinstance(empty.exception, AlnnodeError)


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_nodes_of_one_class_are_refused_before_any_image_is_read(tmp_path, hospital, rows, command) -> None:
    path, work = tmp_path / "table.csv", tmp_path / "work"
    node_table.write_table([replace(row, label="benign" if row.label == "benign" else "") for row in rows.values()], path)
    options = {
        "evaluate": ["--bundle", "demo", "--out", str(tmp_path / "page.html"), "--work", str(work)],
        "train": ["--out", str(work)],
    }
    given = ["cohort", command, "--table", str(path), "--data", str(hospital.folder), "--processes", "0", *options[command]]
    done = CliRunner().invoke(app, given)
    assert isinstance(done.exception, TableError), done.exception
    assert "8 nodes are benign and 0 malignant: label nodes of both classes" in str(done.exception)
    assert not work.exists()


def test_the_truth_of_phantoms_is_a_table(tmp_path) -> None:
    settings = PhantomSettings(min_nodes_per_side=2, max_nodes_per_side=3, slices=(16, 16))
    phantom.make_cohort(tmp_path, 1, 5, settings)
    lying = dicom_folder.read_folder(tmp_path)
    found = import_command.read_nodes(import_command.ImportKind.PHANTOM, tmp_path, lying, labels.KNOWN)
    (made,) = json.loads((tmp_path / "truth.json").read_text())["patients"]
    assert len(found.rows) == len(made["nodes"]) > 0
    assert table_check.table_problems(dict(enumerate(found.rows, 2)), lying) == []
    assert phantom_truth.any_phantom(found.rows)
    assert not phantom_truth.any_phantom([replace(found.rows[0], source="SR")])
    for row, node in zip(found.rows, made["nodes"], strict=True):
        assert (row.label == "malignant", row.left, row.sop_uid) == (
            node["malignant"],
            node["box"]["i0"],
            node["slice_sop_instance_uid"],
        )
