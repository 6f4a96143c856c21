"""The table of a hospital's cohort: written and read, checked row by row, slices merged, labels joined."""

from dataclasses import replace
from pathlib import Path

import ct_series
import pytest
from typer.testing import CliRunner

from training.__main__ import app
from training.clinical import dicom_folder, labels, merge_slices, node_table, table_check
from training.clinical.node_table import NodeRow, TableError


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


def test_a_right_table_has_no_problems(rows, images) -> None:
    assert table_check.table_problems(rows, images) == []
    assert images.unread == 1


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
def test_each_wrong_row_is_named_with_what_to_do(rows, images, values, column, said) -> None:
    found = table_check.table_problems(changed(rows, 5, **values), images)
    assert [p for p in found if p.column == column and said in str(p) and (p.row == 5 or column == "part")], found
    assert "somebody" not in str(found)


def test_one_patient_id_under_two_names_is_found_unless_patient_ids_are_ignored(rows, images) -> None:
    swapped = {n: replace(r, patient="B") if n == 2 else r for n, r in rows.items() if n in {2, 6}}
    series = {uid: replace(s, patient_id="ANON", study_uid=uid) for uid, s in images.series.items()}
    same = replace(images, series=series)
    swapped = {n: replace(r, study_uid="") for n, r in swapped.items()}
    assert "Patient ID" in str(table_check.table_problems(swapped, same))
    assert table_check.table_problems(swapped, same, by_patient_id=False) == []


def test_a_series_that_is_not_ct_is_named(rows, images) -> None:
    uid = rows[2].series_uid
    other = replace(images, series=images.series | {uid: replace(images.series[uid], modality="MR", is_ct=False)})
    found = table_check.table_problems({2: rows[2]}, other)
    assert [p.column for p in found] == ["series_uid"]
    assert "MR, not CT" in str(found[0])


def test_duplicates_and_slices_of_one_node_are_distinguished(rows, images, hospital) -> None:
    volume = hospital.patients[0].volume
    at = [s.sop_instance_uid for s in volume.slices].index(rows[2].sop_uid)
    beside = replace(rows[2], sop_uid=volume.slices[at + 1].sop_instance_uid, right=rows[2].right - 1)
    again = replace(rows[2], left=rows[2].left + 1)
    found = {p.row: str(p) for p in table_check.table_problems(rows | {90: beside, 91: again}, images)}
    assert "another slice of the node in row 2" in found[90]
    assert "is a duplicate of the node in row 2" in found[91]
    tracked = replace(beside, left=150.0, right=160.0, tracking_uid="2.25.5")
    found = table_check.table_problems({2: replace(rows[2], tracking_uid="2.25.5"), 3: tracked}, images)
    assert [p.row for p in found] == [3]
    merged = merge_slices.merge_rows([rows[2], beside], images)
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
    series_folder = thin()
    one, near = stack(3, 10)
    (said,) = table_check.table_warnings({2: one, 3: near}, series_folder)
    assert said.row == 3
    assert "may be the node in row 2, 7 mm away" in str(said)
    assert "its own tracking_uid" in str(said)
    assert not table_check.table_problems({2: one, 3: near}, series_folder)
    told = {2: replace(one, tracking_uid="a"), 3: replace(near, tracking_uid="b")}
    whole = {2: replace(one, above=2), 3: replace(near, below=2)}
    far = dict(enumerate(stack(3, 14), 2))
    beside = dict(enumerate([*stack(3), *stack(10, left=30)], 2))
    assert [table_check.table_warnings(some, series_folder) for some in (told, whole, far, beside)] == [[], [], [], []]
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
    images = dicom_folder.read_folder(tmp_path)
    one = NodeRow("A", "", image.SeriesInstanceUID, image.SOPInstanceUID, 2, 10, 10, 20, 20)
    boxes_ = [one, replace(one, frame=3, right=19), replace(one, frame=4, right=18)]
    (merged,) = merge_slices.merge_rows(boxes_, images)
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
