"""Import of nodes from COCO, NIfTI and phantoms, and the import command."""

import json
from dataclasses import replace
from pathlib import Path

import hospitals
import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from alnnode import phantom
from alnnode.errors import AlnnodeError
from alnnode.phantom import PhantomSettings
from training.__main__ import app
from training.clinical import coco, dicom_folder, import_command, labels, nifti, node_table, phantom_truth, table_check
from training.clinical.node_table import NodeRow, TableError


def boxes(found: list[NodeRow]) -> list[tuple]:
    """Return the values of a node that all formats of marks must give."""
    return sorted((r.series_uid, r.sop_uid, r.left, r.top, r.right, r.bottom, r.below, r.above) for r in found)


def alike(found: list[NodeRow], truth: list[NodeRow], images: dicom_folder.DicomFolder) -> None:
    """Return whether the boxes agree, on the same slice or the next: a box does not show which of two slices has the larger cross-section."""
    assert len(found) == len(truth)
    for one in truth:
        series = images.series[one.series_uid]
        here = series.slice_of(one.sop_uid, None)
        twins = [r for r in found if r.series_uid == one.series_uid and (r.left, r.top) == (one.left, one.top)]
        assert [(r.right, r.bottom) for r in twins] == [(one.right, one.bottom)]
        there = series.slice_of(twins[0].sop_uid, None)
        assert abs(there - here) <= 1
        assert (there - twins[0].below, there + twins[0].above) == (here - one.below, here + one.above)


@pytest.mark.parametrize("tracked", [True, False])
def test_coco_boxes_become_one_row_for_each_node(tmp_path, hospital, images, rows, tracked) -> None:
    hospitals.coco(hospital, tmp_path / "boxes.json", tracked)
    found = import_command.read_nodes(import_command.ImportKind.COCO, tmp_path / "boxes.json", images, labels.KNOWN)
    assert not found.left_out
    alike(found.rows, list(rows.values()), images)
    done = labels.apply_mapping(found.rows, labels.label_mapping(["ductal carcinoma=malignant"]))
    assert sorted(r.label for r in done) == sorted(r.label for r in rows.values())


def test_a_coco_attribute_without_a_value_is_no_text(tmp_path, hospital, images) -> None:
    """Tools write null for an empty attribute; then the category counts."""
    path = tmp_path / "boxes.json"
    hospitals.coco(hospital, path)
    told = json.loads(path.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in told["categories"]}
    for annotation in told["annotations"]:
        annotation["attributes"] = {"pathology": None, "side": None, "level": None}
    path.write_text(json.dumps(told), encoding="utf-8")
    rows = coco.read_coco(path, images).rows
    assert {(row.pathology, row.side, row.level) for row in rows} == {(name, "", "") for name in names.values()}


def test_coco_images_that_are_missing_or_were_scaled_are_reported(tmp_path, hospital, images) -> None:
    hospitals.coco(hospital, tmp_path / "boxes.json")
    told = json.loads((tmp_path / "boxes.json").read_text())
    told["images"][0]["width"] = 512
    told["images"][1]["file_name"] = "unknown.png"
    told["annotations"][-1] = {"id": 1, "image_id": told["images"][2]["id"]}
    (tmp_path / "boxes.json").write_text(json.dumps(told))
    left = " ".join(coco.read_coco(tmp_path / "boxes.json", images).left_out)
    for said in ("512 x 200 pixels, the CT image 220 x 200", "not in the folder", "bbox does not have four numbers"):
        assert said in left
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(TableError, match="no COCO"):
        coco.read_coco(tmp_path / "none.json", images)


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
def test_nifti_masks_lie_where_the_nodes_are_however_the_file_is_turned(tmp_path, hospital, images, rows, form) -> None:
    for one in hospital.patients:
        # (column, row, slice) of the file to RAS, as dcm2niix and ITK write it.
        affine = RAS @ one.volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
        mask, turned = STORED[form](one.masks.transpose(2, 1, 0), affine)
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(mask), turned), tmp_path / f"{one.name}.nii.gz")
    found = import_command.read_nodes(import_command.ImportKind.NIFTI, tmp_path, images, labels.KNOWN)
    assert not found.left_out
    assert boxes(found.rows) == boxes(list(rows.values()))
    assert sorted((r.series_uid, r.sop_uid, r.side) for r in found.rows) == sorted(
        (r.series_uid, r.sop_uid, r.side) for r in rows.values()
    )


def test_a_nifti_mask_without_a_header_is_not_imported(tmp_path, hospital, images) -> None:
    one = hospital.patients[0]
    mask = np.ascontiguousarray(one.masks.transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([0.8, 0.8, 2.0, 1.0])), tmp_path / f"{one.name}.nii")
    found = nifti.read_mask(tmp_path / f"{one.name}.nii", images)
    assert len(found.rows) + len(found.left_out) == len(one.nodes)
    assert any("does not lie in this series" in line for line in found.left_out)
    (tmp_path / "unknown.nii").write_bytes(b"no")
    assert "0 CT series match its name" in nifti.read_mask(tmp_path / "unknown.nii", images).left_out[0]


def test_pieces_of_a_mask_of_one_value_are_nodes(tmp_path, hospital, images) -> None:
    one = hospital.patients[0]
    affine = RAS @ one.volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
    mask = (one.masks.transpose(2, 1, 0) > 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / f"{one.volume.header.SeriesInstanceUID}.nii")
    assert len(import_command.read_nodes(import_command.ImportKind.NIFTI, tmp_path, images, labels.KNOWN).rows) == len(
        one.nodes
    )


def masked(one: hospitals.Patient, folder_: Path, values: dict[int, int]) -> Path:
    """Write a NIfTI mask in which each node has one of these values."""
    affine = RAS @ one.volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
    mask = np.zeros_like(one.masks)
    for number, value in values.items():
        mask[one.masks == number] = value
    path = folder_ / f"{one.name}.nii"
    nibabel.save(nibabel.Nifti1Image(mask.transpose(2, 1, 0), affine), path)
    return path


def test_distant_components_of_a_value_are_nodes(tmp_path, hospital, images) -> None:
    one = hospital.patients[0]
    values = {node.number: 1 + bad for node, bad in zip(one.nodes, one.malignant, strict=True)}
    found = nifti.read_mask(masked(one, tmp_path, values), images)
    truth = [hospitals.row_of(*node) for node in hospital.nodes if node[0] is one]
    assert boxes(found.rows) == boxes(truth)
    assert ["value 1" in line and "2 components" in line for line in found.left_out] == [True, False]
    # A table of labels can still be joined by the value.
    (tmp_path / "classes.csv").write_text("source_uid,label\n1,benign\n2,malignant\n")
    joined, problems = labels.join_labels(found.rows, tmp_path / "classes.csv")
    assert not problems
    assert sorted((r.left, r.label) for r in joined) == sorted((r.left, r.label) for r in truth)


def test_near_components_of_a_value_are_one_node_with_a_remark(tmp_path, hospital, images) -> None:
    one = hospital.patients[0]
    found = nifti.read_mask(masked(one, tmp_path, {1: 1, 2: 1, 3: 2, 4: 3}), images)
    assert len(found.rows) == 3
    (line,) = found.left_out
    assert "value 1" in line
    assert "imported as one node" in line


@pytest.mark.parametrize("others", [{}, {1: 2}])
def test_a_component_that_is_longer_than_a_node_is_not_imported(tmp_path, hospital, images, others) -> None:
    one = hospital.patients[0]
    masks = one.masks.copy()
    masks[6, 60, 30:180] = 9
    found = nifti.read_mask(masked(replace(one, masks=masks), tmp_path, {9: 5, **others}), images)
    assert len(found.rows) == len(others)
    (line,) = found.left_out
    assert "extends over 120 mm, which is too large for a node" in line


def test_a_nifti_mask_without_an_orientation_is_refused(tmp_path, hospital, images) -> None:
    path = masked(hospital.patients[0], tmp_path, {1: 1, 2: 2})
    image = nibabel.load(path)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    bare = tmp_path / "bare"
    bare.mkdir()
    nibabel.save(image, bare / path.name)
    found = nifti.read_mask(bare / path.name, images)
    assert not found.rows
    assert "sform_code and qform_code are 0" in found.left_out[0]
    assert "save it with the geometry of the CT" in found.left_out[0]


def test_the_command_writes_the_table_and_says_what_is_missing(tmp_path, hospital, images, rows) -> None:
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
    alike(list(found.values()), list(rows.values()), images)
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
    phantom.make_cohort(tmp_path, phantom.CohortSettings(1, 5, settings))
    images = dicom_folder.read_folder(tmp_path)
    found = import_command.read_nodes(import_command.ImportKind.PHANTOM, tmp_path, images, labels.KNOWN)
    (made,) = json.loads((tmp_path / "truth.json").read_text())["patients"]
    assert len(found.rows) == len(made["nodes"]) > 0
    assert table_check.table_problems(dict(enumerate(found.rows, 2)), images) == []
    assert phantom_truth.any_phantom(found.rows)
    assert not phantom_truth.any_phantom([replace(found.rows[0], source="SR")])
    for row, node in zip(found.rows, made["nodes"], strict=True):
        assert (row.label == "malignant", row.left, row.sop_uid) == (
            node["malignant"],
            node["box"]["i0"],
            node["slice_sop_instance_uid"],
        )
