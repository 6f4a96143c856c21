"""A reader's marks on a phantom, in every form they come in: the same node comes out, measured, on the right side, with its tracking UID."""

from __future__ import annotations

import tracemalloc
from copy import copy
from dataclasses import replace

import marked
import numpy as np
import pytest
from hostile import damage, edits
from hypothesis import given, settings
from pydicom import Dataset
from scipy.ndimage import binary_erosion

from alnnode import IMPLEMENTATION_CLASS_UID, MANUFACTURER, phantom
from alnnode.imaging.series import read_volume
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.marks import items, placing
from alnnode.locate.marks.nodes import merge_nodes, nodes_from_marks
from alnnode.locate.marks.placing import Placed
from alnnode.locate.marks.reading import read_marks
from alnnode.locate.measure import node_from_mask
from alnnode.phantom import PhantomSettings, Position
from alnnode.records import Drawing, MarkShape, MaskPlane, NodeSource, Side, Volume
from alnnode.report import modules

UID = "2.25.4711"


@pytest.fixture(scope="module", params=[Position.HFS, Position.HFP])
def made(request, tmp_path_factory):
    """A volume, its true nodes (the largest four) and their masks."""
    options = PhantomSettings(
        size=256, slices=(40, 40), thickness_mm=(2.5, 2.5), spacing_mm=(1.4, 1.4), min_nodes_per_side=2, max_nodes_per_side=3,
        position=request.param,
    )  # fmt: skip
    patient = phantom.make_patient(7, 0, options)
    volume = read_volume(phantom.write_series(patient, tmp_path_factory.mktemp("ct")))
    chosen = sorted(patient.nodes, key=lambda n: -n.short_axis_mm)[:4]
    found = []
    for truth in chosen:
        mask = patient.labels == truth.number
        found.append((node_from_mask(volume, mask, (0, 0, 0), truth.side, 1), mask))
    return volume, found


CHESTS: dict[int, ChestAnatomy] = {}


def chest_of(volume) -> ChestAnatomy:
    """Return the chest of a phantom. It is found once for the same voxels, because it does not depend on the header."""
    known = CHESTS.setdefault(id(volume.voxels), ChestAnatomy(volume))
    assert known.axillae
    chest = copy(known)
    chest.volume = volume
    return chest


def located(volume, tmp_path, *objects):
    return nodes_from_marks(chest_of(volume), [read_marks(marked.write(item, tmp_path)) for item in objects])


def dice(volume, node, mask) -> float:
    full = np.zeros(volume.voxels.shape, bool)
    full[tuple(slice(a, b) for a, b in zip(node.box.low, node.box.high, strict=True))] = node.mask
    return 2 * float((full & mask).sum()) / float(full.sum() + mask.sum())


def outlines(volume, mask):
    """Contours (slice, (column, row) points) of every slice of a mask."""
    return [
        (int(k), node_from_mask(volume, mask[k : k + 1], (int(k), 0, 0), Side.LEFT, 1).contour)
        for k in np.flatnonzero(mask.any(axis=(1, 2)))
    ]


def forms(volume, node, mask):
    """The same node in every form, with its Dice floor: a limit against regression, set after the results were seen."""
    k, contour = node.slice_index, [*node.contour, node.contour[0]]
    (x0, y0), (x1, y1) = np.min(node.contour, axis=0), np.max(node.contour, axis=0)
    middle, radius = ((x0 + x1) / 2, (y0 + y1) / 2), node.long_axis.length_mm / 2 / volume.spacing[1]
    axes = [node.long_axis.start, node.long_axis.end, node.short_axis.start, node.short_axis.end]
    box = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]

    def sr(tool, kind, points):
        line = marked.scoord(volume, k, kind, points)
        return marked.report(volume, [marked.group(UID, tool, [marked.number(marked.code("G-D7FE", "SRT"), 1, [line])])])

    region = marked.scoord(volume, k, "POLYLINE", contour, "CONTAINS", marked.code("111030"))
    yield "bidirectional", marked.report(volume, [marked.bidirectional(volume, node, UID)]), 0.6
    yield "planar region", marked.report(volume, [marked.group(UID, "PlanarFreehandROI", [region])]), 0.65
    yield "freehand", sr("PlanarFreehandROI", "POLYLINE", contour), 0.65
    yield "rectangle", sr("RectangleROI", "POLYLINE", [*box, box[0]]), 0.6
    yield "ellipse", sr("EllipticalROI", "ELLIPSE", axes), 0.6
    yield "circle", sr("CircleROI", "CIRCLE", [middle, (middle[0] + radius, middle[1])]), 0.4
    yield "length", sr("Length", "POLYLINE", axes[:2]), 0.4
    yield "arrow", sr("ArrowAnnotate", "POINT", [middle]), 0.1  # of a node with a wide hilum, no more than the cortex
    yield "structures", marked.structures(volume, [("Node", outlines(volume, mask))]), 0.9
    yield "segment", marked.segmentation(volume, [("Node", UID, mask)]), 0.999
    yield "fractions", marked.segmentation(volume, [("Node", UID, mask)], fractional=True), 0.999
    yield "polyline graphic", marked.presentation(volume, [(k, "POLYLINE", contour)]), 0.65
    yield "ellipse graphic", marked.presentation(volume, [(k, "ELLIPSE", axes)]), 0.6
    yield "circle graphic", marked.presentation(volume, [(k, "CIRCLE", [middle, (middle[0] + radius, middle[1])])]), 0.4


def test_every_form_leads_to_the_node(made, tmp_path) -> None:
    volume, truths = made
    scores = {}
    for truth, mask in truths[:2]:
        for name, made_of, least in forms(volume, truth, mask):
            found, remarks = located(volume, tmp_path, made_of)
            assert len(found) == 1, (name, remarks)
            node = found[0]
            scores[name, truth.side] = (round(dice(volume, node, mask), 3), least)
            assert (node.side, node.source, node.score) == (truth.side, NodeSource.READER, 1.0), name
            if made_of.Modality in {"SR", "SEG"}:
                assert node.tracking_uid == UID, name
            if name in {"bidirectional", "ellipse", "planar region"}:
                assert node.slice_index == truth.slice_index, name
                assert abs(node.short_axis.length_mm - truth.short_axis.length_mm) < 1.5, name
            assert not remarks, name
    assert not {form: score for form, score in scores.items() if score[0] < score[1]}


def test_round_shapes_lie_where_they_were_drawn_to_half_a_pixel(made, tmp_path) -> None:
    """Beside the circle and the ellipse of the same centre and area, in image coordinates, as the phantom's true nodes."""
    volume, truths = made
    for truth, mask in truths:
        k = truth.slice_index
        rows, columns = np.nonzero(mask[k])
        (x, y), area = (
            (columns.mean() + 0.5, rows.mean() + 0.5),
            mask[k].sum(),
        )  # of pixels that reach from 0 to 1, from 1 to 2 …
        radius, longer = np.sqrt(area / np.pi), (columns.var() / rows.var()) ** 0.25
        for kind, (a, b) in {"CIRCLE": (radius, radius), "ELLIPSE": (radius * longer, radius / longer)}.items():
            points = [(x, y), (x + a, y)] if kind == "CIRCLE" else [(x - a, y), (x + a, y), (x, y - b), (x, y + b)]
            line = marked.scoord(volume, k, kind, points, "CONTAINS", marked.code("111030"))
            (node,), remarks = located(volume, tmp_path, marked.report(volume, [marked.group(UID, "", [line], "lymph node")]))
            assert not remarks
            drawn = node.mask[k - node.box.k0]
            j, i = np.nonzero(drawn)
            edges = np.add([i.min(), j.min(), i.max() + 1, j.max() + 1], [node.box.i0, node.box.j0] * 2)
            # A row that the shape's end enters counts where a pixel's centre is inside: a little more than half a pixel at small radii.
            np.testing.assert_allclose(edges, [x - a, y - b, x + a, y + b], atol=0.5 + 1 / (8 * min(a, b)))
            assert abs(i.mean() + node.box.i0 + 0.5 - x) < 0.2
            assert abs(j.mean() + node.box.j0 + 0.5 - y) < 0.2
            assert drawn.sum() == pytest.approx(area, rel=0.1)


def test_a_contour_traced_along_the_outermost_pixels_holds_them(made) -> None:
    """As OpenCV traces a mask, and so rt-utils writes it; the edge of a hole is traced along the pixels around it."""
    volume, _ = made
    j, i = np.mgrid[: volume.voxels.shape[1], : volume.voxels.shape[2]]
    mask = ((j - 100) / 6.3) ** 2 + ((i - 60) / 9.2) ** 2 < 1
    rim = np.argwhere(mask & ~binary_erosion(mask)).astype(float)
    outline = rim[np.argsort(np.arctan2(rim[:, 0] - 100, rim[:, 1] - 60))]
    whole, first = placing.stacked(volume, [Placed(MarkShape.OUTLINE, 20, outline + 0.004)])
    assert first == 20
    assert (whole[0] == mask).all()
    hole = np.array([(98, 58), (98, 62), (102, 62), (102, 58)], float)
    rest, _ = placing.stacked(volume, [Placed(MarkShape.OUTLINE, 20, points) for points in (outline, hole)])
    mask[99:102, 59:62] = False
    assert (rest[0] == mask).all()


def test_a_contour_along_the_very_edge_of_the_image_breaks_nothing(made) -> None:
    volume, _ = made
    rows, columns = volume.voxels.shape[1:]
    for outline in (
        [(-1, 5), (-1, 9), (-1, 7)],
        [(rows, 5), (rows, 9), (rows, 7)],
        [(4, columns), (9, columns)],
        [(4, 4), (9, 4)],
    ):
        mask, _ = placing.stacked(volume, [Placed(MarkShape.OUTLINE, 20, np.array(outline, float))])
        assert 0 < mask.sum() < 9


def test_a_cross_section_is_measured_on_the_slice_on_which_it_was_drawn(made, tmp_path) -> None:
    """In uniform tissue with thin slices its neighbours are as large."""
    volume, _ = made
    affine = volume.affine.copy()
    affine[:3, 0] *= 0.1
    thin = replace(
        volume, voxels=np.full_like(volume.voxels, 40), affine=affine, spacing=(0.1 * volume.spacing[0], *volume.spacing[1:])
    )
    circle = marked.presentation(thin, [(20, "CIRCLE", [(100, 100), (106, 100)])])
    (node,), _ = nodes_from_marks(ChestAnatomy(thin), [read_marks(marked.write(circle, tmp_path))])
    assert node.box.k0 < 20 < node.box.k1 - 1
    assert node.slice_index == 20


def test_what_cannot_be_a_node_here_gives_a_remark_and_no_node(made, tmp_path) -> None:
    volume, ((node, mask), *_) = made
    k, contour = node.slice_index, node.contour
    elsewhere = replace(volume, slices=tuple(replace(s, sop_instance_uid=f"9.{n}") for n, s in enumerate(volume.slices)))
    other_frame = replace(volume, header=marked.item(**{e.keyword: e.value for e in volume.header if e.keyword}))
    other_frame.header.FrameOfReferenceUID = "9.9"
    big = np.array([(5, 5), (200, 5), (200, 200), (5, 200), (5, 6)])
    lung = volume.voxels[k].shape[0] / 2

    def graphic(*shapes):
        return marked.presentation(volume, [(k, kind, points) for kind, points in shapes])

    cases = {
        "not of this series": marked.report(elsewhere, [marked.bidirectional(elsewhere, node, UID)]),
        "another frame of reference": marked.structures(other_frame, [("Node", outlines(other_frame, mask))]),
        "outside the images": graphic(("POLYLINE", np.array([*contour, contour[0]]) + 1000)),
        "too large": graphic(("POLYLINE", big)),
        "outside both axillae": graphic(("CIRCLE", [(lung, lung), (lung + 3, lung)])),
        "empty": marked.structures(volume, [("Node", [])]),
        "no measurement groups": marked.report(volume, []),
        "flags whole images": marked.key_objects(volume, [k]),
        "open line": graphic(("POLYLINE", [(10, 10), (20, 10), (30, 40)])),
        "no mark of a node": marked.report(
            volume, [marked.group(UID, "Angle", [marked.scoord(volume, k, "POLYLINE", contour[:3])])]
        ),
    }
    for words, item in cases.items():
        found, remarks = located(volume, tmp_path, item)
        assert not found, words
        assert any(words in remark for remark in remarks), (words, remarks)


def test_a_lymph_node_that_is_called_one_counts_outside_the_axillae_too(made, tmp_path) -> None:
    volume, ((node, _), *_) = made
    middle = volume.voxels.shape[1] / 2
    spot = [(middle, middle), (middle + 3, middle)]
    circle = marked.scoord(volume, node.slice_index, "CIRCLE", spot)
    plain, called = (marked.report(volume, [marked.group(UID, "CircleROI", [circle], label)]) for label in ("", "lymph node?"))
    assert not located(volume, tmp_path, plain)[0]
    assert len(located(volume, tmp_path, called)[0]) == 1


def test_contours_in_the_same_frame_of_reference_are_mapped_onto_another_reconstruction(made, tmp_path) -> None:
    volume, ((node, mask), *_) = made
    contours = marked.structures(volume, [("Node", outlines(volume, mask))])
    header = marked.item(**{e.keyword: e.value for e in volume.header if e.keyword})
    header.SeriesInstanceUID = "9.1"
    slices = tuple(replace(s, sop_instance_uid=f"9.{n}") for n, s in enumerate(volume.slices))
    found, _ = located(replace(volume, header=header, slices=slices), tmp_path, contours)
    assert dice(volume, found[0], mask) > 0.9
    assert found[0].side is node.side


def test_contours_that_name_no_frame_of_reference_take_that_of_the_set_or_of_their_image(made, tmp_path) -> None:
    volume, ((_, mask), *_) = made
    drawn = outlines(volume, mask)

    own = volume.header.FrameOfReferenceUID

    def unnamed(*frames: str, imaged: bool):
        """The structure set lists these frames of reference, its ROI none."""
        written = marked.structures(volume, [("Node", drawn)])
        written.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = ""
        studies = written.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
        written.ReferencedFrameOfReferenceSequence = [
            marked.item(FrameOfReferenceUID=uid, RTReferencedStudySequence=studies) for uid in frames
        ]
        for (k, _), contour in zip(drawn, written.ROIContourSequence[0].ContourSequence, strict=True):
            if imaged:
                contour.ContourImageSequence = [marked.image(volume, k)]
        return located(volume, tmp_path, written)

    for found, remarks in (unnamed("", imaged=True), unnamed(own, imaged=False), unnamed(own, "9.9", imaged=True)):
        assert dice(volume, found[0], mask) > 0.9
        assert not remarks
    for found, remarks in (unnamed("", imaged=False), unnamed(own, "9.9", imaged=False)):
        assert not found
        assert "names no frame of reference and no image of this series" in str(remarks)
    found, remarks = unnamed("9.9", imaged=True)
    assert not found
    assert "another frame of reference" in str(remarks)


def test_points_in_space_are_never_taken_for_pixels(made) -> None:
    volume, _ = made
    corners = ((10.0, 10.0, 10.0), (20.0, 10.0, 15.0), (20.0, 20.0, 20.0))
    with pytest.raises(placing.MisplacedError, match="does not lie in a slice"):
        placing.place(volume, Drawing(MarkShape.OUTLINE, corners, volume.slices[3].sop_instance_uid))
    with pytest.raises(placing.MisplacedError, match="names no frame of reference"):
        placing.place(volume, Drawing(MarkShape.OUTLINE, corners))


def test_the_place_counts_where_the_stated_side_differs(made, tmp_path) -> None:
    volume, ((node, _), *_) = made
    wrong = {Side.RIGHT: ("G-A101", "Left"), Side.LEFT: ("G-A100", "Right")}[node.side]
    side = marked.content(
        "CODE",
        marked.code("G-C171", "SRT", "Laterality"),
        "HAS CONCEPT MOD",
        ConceptCodeSequence=[marked.code(wrong[0], "SRT", wrong[1])],
    )
    group = marked.bidirectional(volume, node, UID)
    group.ContentSequence.append(side)
    found, remarks = located(volume, tmp_path, marked.report(volume, [group]))
    assert found[0].side is node.side
    assert any("its place counts" in remark for remark in remarks)


def test_the_newest_of_two_versions_counts_and_one_place_is_one_node(made, tmp_path) -> None:
    volume, ((node, _), (other, _), *_) = made
    first = marked.report(volume, [marked.bidirectional(volume, node, UID)], 1)
    moved = marked.report(volume, [marked.bidirectional(volume, other, UID)], 2)
    again = marked.report(volume, [marked.bidirectional(volume, other, "2.25.9")], 3)
    found, remarks = located(volume, tmp_path, moved, first)
    assert [(n.tracking_uid, n.slice_index) for n in found] == [(UID, other.slice_index)]
    found, remarks = located(volume, tmp_path, first, moved, again)
    assert [n.tracking_uid for n in found] == ["2.25.9"]
    assert any("a newer mark is of the same node" in remark for remark in remarks)


def test_a_report_on_a_segment_takes_its_mask_from_the_segmentation(made, tmp_path) -> None:
    volume, ((_, mask), *_) = made
    seg = marked.segmentation(volume, [("Segment 1", "2.25.8", mask)], 5)
    reference = marked.item(
        ReferencedSOPClassUID=marked.SEG, ReferencedSOPInstanceUID=seg.SOPInstanceUID, ReferencedSegmentNumber=1
    )
    segment = marked.content("IMAGE", marked.code("121191"), ReferencedSOPSequence=[reference])
    report = marked.report(volume, [marked.group(UID, "Segment", [segment])], 6)
    found, _ = located(volume, tmp_path, seg, report)
    assert [(n.tracking_uid, dice(volume, n, mask) > 0.99) for n in found] == [(UID, True)]


def test_own_results_are_no_marks_and_edited_ones_are(made, tmp_path) -> None:
    volume, ((node, _), *_) = made
    assert modules.MANUFACTURER == MANUFACTURER
    own = marked.report(volume, [marked.bidirectional(volume, node, UID)], Manufacturer=MANUFACTURER)
    observed = marked.report(volume, [marked.bidirectional(volume, node, UID)])
    device = marked.content("UIDREF", marked.code("121012"), "HAS OBS CONTEXT", UID=IMPLEMENTATION_CLASS_UID)
    observed.ContentSequence.append(device)
    for item in (own, observed):
        assert read_marks(marked.write(item, tmp_path)).own
        assert located(volume, tmp_path, item) == ([], ())
    # OHIF keeps the tracking UID of what it restored, and the object is its own.
    edited = marked.report(volume, [marked.bidirectional(volume, node, UID)])
    assert located(volume, tmp_path, edited)[0][0].tracking_uid == UID


def test_a_found_node_under_a_mark_is_the_marked_one(made) -> None:
    volume, ((_, mask), (_, far), *_) = made
    reader = replace(node_from_mask(volume, mask, (0, 0, 0), Side.LEFT, 1), source=NodeSource.READER)
    grown = np.zeros_like(mask)
    grown[:, 1:] = mask[:, :-1]
    same = node_from_mask(volume, grown, (0, 0, 0), Side.LEFT, 2)
    apart = node_from_mask(volume, far, (0, 0, 0), Side.LEFT, 3)
    assert merge_nodes([reader], [same, apart]) == [reader, apart]


def test_a_group_that_no_reader_could_have_meant_is_bounded(made, tmp_path, monkeypatch) -> None:
    volume, ((node, mask), *_) = made
    groups = [marked.bidirectional(volume, node, f"2.25.{n}") for n in range(7)]
    monkeypatch.setattr(items, "MAX_MARKS", 5)
    read = read_marks(marked.write(marked.report(volume, groups), tmp_path))
    assert (len(read.marks), read.remarks) == (5, ("only the first 5 measurement groups were read",))
    deep = marked.bidirectional(volume, node, UID)
    for _ in range(100):
        deep = marked.content("CONTAINER", marked.code("126010"), "CONTAINS", [deep])
    assert read_marks(marked.write(marked.report(volume, [deep]), tmp_path)).marks == ()
    huge = marked.segmentation(volume, [("Node", UID, mask)])
    huge.NumberOfFrames = 2_000_000
    assert "too large" in str(read_marks(marked.write(huge, tmp_path)).remarks)
    wide = marked.presentation(volume, [(0, "POLYLINE", np.zeros((30_000, 2)))])
    assert read_marks(marked.write(wide, tmp_path)).marks == ()
    for bad in ("not a uid", "1." * 40, "../../etc"):
        assert (
            read_marks(marked.write(marked.report(volume, [marked.bidirectional(volume, node, bad)]), tmp_path))
            .marks[0]
            .tracking_uid
            is None
        )


@given(changes=edits)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_damaged_objects_never_raise(made, tmp_path_factory, changes) -> None:
    volume, ((node, mask), *_) = made
    folder = tmp_path_factory.mktemp("damaged")
    for item in (
        marked.report(volume, [marked.bidirectional(volume, node, UID)]),
        marked.structures(volume, [("Node", outlines(volume, mask))]),
        marked.segmentation(volume, [("Node", UID, mask)]),
        marked.presentation(volume, [(node.slice_index, "POLYLINE", node.contour)]),
    ):
        path = folder / "mark.dcm"
        path.write_bytes(damage(marked.encoded(item), changes, head=2000))
        for found in (read_marks(path),):
            assert isinstance(found.remarks, tuple)
            nodes_from_marks(chest_of(volume), [found])
            for mark in found.marks:
                assert all(len(drawing.points) for drawing in mark.drawings)
                assert all(isinstance(drawing.shape, MarkShape) for drawing in mark.drawings)


def test_a_large_segment_needs_no_more_memory_than_a_few_copies_of_itself() -> None:
    """A ball of 90 mm on slices of 1 mm: coordinates of all its voxels at once would be 2.3 GB."""
    side, slices, spacing = 160, 100, (1.0, 0.7, 0.7)
    affine = np.eye(4)
    affine[:3] = [[0, 0, spacing[2], -56], [0, spacing[1], 0, -56], [spacing[0], 0, 0, -50]]
    header = Dataset()
    header.FrameOfReferenceUID = "2.25.13"
    volume = Volume(np.zeros((slices, side, side), np.int16), affine, (), header, spacing, 1.0)
    k, j, i = np.mgrid[0:slices, 0:side, 0:side]
    ball = ((k - 50) * 1.0) ** 2 + ((j - 80) * 0.7) ** 2 + ((i - 80) * 0.7) ** 2 < 45**2
    planes = []
    for number in np.flatnonzero(ball.any(axis=(1, 2))):
        origin = tuple(affine[:3, 3] + number * affine[:3, 0])
        planes.append(MaskPlane(ball[number], origin, (0.0, 0.7, 0.0), (0.7, 0.0, 0.0), "2.25.13"))
    tracemalloc.start()
    # Cut to what is set in it, as the reader of segmentations does.
    mask, offset = placing.segment(volume, [_cut(plane) for plane in planes])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = np.zeros_like(ball)
    whole[tuple(slice(start, start + size) for start, size in zip(offset, mask.shape, strict=True))] = mask
    assert (whole == ball).all()
    assert peak < 60 * 2**20


def _cut(plane: MaskPlane) -> MaskPlane:
    rows, columns = np.flatnonzero(plane.pixels.any(axis=1)), np.flatnonzero(plane.pixels.any(axis=0))
    origin = np.array(plane.origin) + rows[0] * np.array(plane.along_rows) + columns[0] * np.array(plane.along_columns)
    return replace(plane, pixels=plane.pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], origin=tuple(origin))
