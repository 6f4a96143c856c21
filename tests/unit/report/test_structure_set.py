"""RT Structure Set: the outlines agree with the masks, lie on their images, and are never read back as a reader's marks."""

import io
from dataclasses import replace

import numpy as np
import pytest
from analyses import CONTEXT, EVERYTHING, UNVALIDATED, analysis, built, variants
from pydicom import Dataset, dcmread
from pydicom.uid import RTStructureSetStorage
from skimage.measure import points_in_poly

from alnnode import report
from alnnode.locate.marks.reading import read_marks
from alnnode.records import Analysis, MarkShape, ObjectRole, ReportOptions, ResultObject
from alnnode.report import wording
from alnnode.report.capture import canvas
from alnnode.report.outlines import outlines
from alnnode.settings import Settings

PLACED = ["one", "prone", "feet-first", "tilted", "enhanced", "bare", "reader", "own-frames"]
ONLY = replace(CONTEXT, options=ReportOptions(kinds=frozenset({ObjectRole.STRUCTURE_SET})))


def written(of: Analysis, context=ONLY) -> ResultObject:
    (item,) = [item for item in built(of, context) if item.role is ObjectRole.STRUCTURE_SET]
    return item


def made(of: Analysis) -> Dataset:
    return dcmread(io.BytesIO(written(of).data))


def on_slices(of: Analysis, roi: Dataset) -> dict[int, list[np.ndarray]]:
    """The contours of an ROI by slice, as (row, column) of the voxel grid."""
    images = {(s.sop_instance_uid, s.frame_number): k for k, s in enumerate(of.volume.slices)}
    found: dict[int, list[np.ndarray]] = {}
    for contour in roi.ContourSequence:
        (image,) = contour.ContourImageSequence
        k = images[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")]
        assert image.ReferencedSOPClassUID == of.volume.slices[k].sop_class_uid
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        assert contour.NumberOfContourPoints == len(points) >= 3
        steps = of.volume.affine[:3, 1:3]
        from_corner = points - of.volume.slices[k].position
        assert np.abs(from_corner @ np.cross(steps[:, 0], steps[:, 1]) / 0.64).max() < 1e-3, "on the plane of its image"
        found.setdefault(k, []).append(np.linalg.lstsq(steps, from_corner.T, rcond=None)[0].T)
    return found


def area(polygon: np.ndarray) -> float:
    rows, columns = polygon.T
    return abs(float(rows @ np.roll(columns, 1) - columns @ np.roll(rows, 1))) / 2


def inside(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return points_in_poly(np.argwhere(np.ones(shape, bool)), polygon).reshape(shape)


@pytest.mark.parametrize("name", PLACED)
def test_contours_enclose_exactly_the_pixels_of_the_node(name: str) -> None:
    of = variants()[name]
    for finding, roi in zip(of.findings, made(of).ROIContourSequence, strict=True):
        node, drawn, box = finding.node, on_slices(of, roi), finding.node.box
        if node.mask is None:  # only the outline on the measured slice is known
            ((k, (polygon,)),) = drawn.items()
            assert k == node.slice_index
            assert np.allclose(polygon[:, ::-1] + 0.5, node.contour, atol=1e-3)
            continue
        assert sorted(drawn) == list(range(box.k0, box.k1))
        for k, polygons in drawn.items():
            plane = np.zeros(of.volume.voxels.shape[1:], bool)
            plane[box.j0 : box.j1, box.i0 : box.i1] = node.mask[k - box.k0]
            (polygon,) = polygons
            assert 0.9 < area(polygon) / plane.sum() < 1.1
            assert (inside(polygon, plane.shape) == plane).all()


def test_parts_have_contours_of_their_own_and_holes_are_joined_by_channels() -> None:
    """The corners of each ring are cut: its area is that of its pixels less half a pixel, and so is that of a hole."""
    mask = np.zeros((1, 14, 30), bool)
    mask[0, 2:12, 2:14] = True
    mask[0, 4:6, 4:6] = mask[0, 8:10, 9:12] = False  # holes of 4 and of 6 pixels
    mask[0, 3:7, 20:25] = True
    node = replace(analysis(1).findings[0].node, mask=mask)
    ((k, first), (_, second)) = outlines(node)
    assert k == node.box.k0
    assert area(first) == pytest.approx((120 - 0.5) - (4 - 0.5) - (6 - 0.5))
    assert area(second) == pytest.approx(20 - 0.5)
    assert (first.min(axis=0) == [node.box.j0 + 1.5, node.box.i0 + 1.5]).all()


def test_parts_of_one_or_two_pixels_have_no_contour() -> None:
    """Beside the node on a slice, touching it at a corner, or alone on a slice; a node of so few pixels keeps its outline."""
    mask = np.zeros((3, 9, 12), bool)
    mask[1, 2:6, 2:6] = True
    mask[1, 6, 6] = mask[1, 1, 9] = mask[2, 4, 4] = True  # at a corner, apart, and on a slice of its own
    mask[1, 7, 8:10] = True
    mask[0, 2, 2:5] = True  # three pixels are kept
    node = replace(analysis(1).findings[0].node, mask=mask)
    drawn = list(outlines(node))
    assert [k - node.box.k0 for k, _ in drawn] == [0, 1]
    assert area(drawn[0][1]) == pytest.approx(3 - 0.5)
    assert area(drawn[1][1]) == pytest.approx(16 - 0.5)
    mask[:2] = False
    ((k, tip),) = outlines(replace(node, mask=mask))
    assert k == node.box.k0 + 2
    assert area(tip) == pytest.approx(0.5)


@pytest.mark.parametrize("name", PLACED)
def test_every_node_is_an_roi_in_the_frame_of_reference_of_the_images(name: str) -> None:
    of, item = variants()[name], made(variants()[name])
    assert (item.SOPClassUID, item.Modality, item.ApprovalStatus) == (RTStructureSetStorage, "RTSTRUCT", "UNAPPROVED")
    (frame,) = item.ReferencedFrameOfReferenceSequence
    own = [f"2.25.13{k}" for k in range(12)] if name == "own-frames" else []
    assert (frame.FrameOfReferenceUID == "2.25.13") == (not own)
    assert frame.FrameOfReferenceUID not in own, "one frame of reference, derived from the series"
    assert item.FrameOfReferenceUID == frame.FrameOfReferenceUID
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert (study.ReferencedSOPInstanceUID, series.SeriesInstanceUID) == ("2.25.11", "2.25.12")
    images = [image.ReferencedSOPInstanceUID for image in series.ContourImageSequence]
    assert images == list(dict.fromkeys(s.sop_instance_uid for s in of.volume.slices))
    numbers = [finding.node.number for finding in of.findings]
    assert [roi.ROINumber for roi in item.StructureSetROISequence] == numbers
    assert [roi.ReferencedROINumber for roi in item.ROIContourSequence] == numbers
    assert [seen.ReferencedROINumber for seen in item.RTROIObservationsSequence] == numbers
    for finding, roi in zip(of.findings, item.StructureSetROISequence, strict=True):
        assert roi.ROIName == wording.title(finding)
        assert roi.ReferencedFrameOfReferenceUID == frame.FrameOfReferenceUID
        assert roi.ROIGenerationAlgorithm == ("SEMIAUTOMATIC" if name == "reader" else "AUTOMATIC")
    assert {seen.RTROIInterpretedType for seen in item.RTROIObservationsSequence} == {""}, "no role in a treatment"


def test_colours_and_labels_say_what_the_captures_say() -> None:
    item = made(analysis(2))  # 0.91 and 0.12 at an operating point of 0.5
    colours = [tuple(roi.ROIDisplayColor) for roi in item.ROIContourSequence]
    assert colours == [canvas.SUSPICIOUS, canvas.NOT_SUSPICIOUS]
    assert item.StructureSetLabel == "AI nodes - DEMO"
    assert "DEMO, NOT FOR CLINICAL USE" in item.StructureSetName
    assert item.StructureSetDescription == analysis(2).model.banner
    assert "demonstration model" in item.StructureSetROISequence[0].ROIDescription
    assert (item.StructureSetDate, item.StructureSetTime) == (item.SeriesDate, item.SeriesTime)
    assert "ContentDate" not in item, "the IOD has none"
    assert made(replace(analysis(2), model=UNVALIDATED)).StructureSetLabel == "AI nodes"


def test_the_node_recognises_its_own_structure_set(tmp_path) -> None:
    of = variants()["tilted"]
    path = tmp_path / "own.dcm"
    path.write_bytes(written(of).data)
    found = read_marks(path)
    assert found.own
    assert not found.remarks
    assert [mark.label for mark in found.marks] == [wording.title(finding) for finding in of.findings]
    assert {drawing.shape for mark in found.marks for drawing in mark.drawings} == {MarkShape.OUTLINE}
    assert found.marks[0].series_uids == ("2.25.12",)


def test_its_bytes_repeat_and_the_results_tree_lists_it() -> None:
    of = analysis(2)
    assert written(of) == written(analysis(2))
    context = replace(EVERYTHING, options=replace(EVERYTHING.options, kinds=ONLY.options.kinds | {ObjectRole.RESULTS_TREE}))
    *_, tree = report.build(of, context)
    assert tree.role is ObjectRole.RESULTS_TREE
    evidence = dcmread(io.BytesIO(tree.data)).CurrentRequestedProcedureEvidenceSequence
    listed = {
        i.ReferencedSOPInstanceUID
        for study in evidence
        for s in study.ReferencedSeriesSequence
        for i in s.ReferencedSOPSequence
    }
    assert written(of, context).sop_instance_uid in listed


def test_settings_ask_for_it_and_destinations_take_it() -> None:
    destination = {"name": "tps", "ae_title": "TPS", "host": "127.0.0.1", "port": 104, "objects": ["rtstruct"]}
    chosen = Settings.model_validate({"report": {"kinds": ["rtstruct"]}, "destinations": [destination]})
    assert chosen.report.options.kinds == {ObjectRole.STRUCTURE_SET}
    assert chosen.destinations[0].objects == ("rtstruct",)


@pytest.mark.parametrize("name", ["none", "not-analysed"])
def test_there_is_none_without_nodes(name: str) -> None:
    assert {item.role for item in report.build(variants()[name], ONLY)} <= {ObjectRole.SR, ObjectRole.CAPTURE}
