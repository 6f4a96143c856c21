"""Captures: what is on a page, in which order, where it comes from, and how large it is."""

import io
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from analyses import CONTEXT, analysis, emptied, finding, followed, volume
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from alnnode import report
from alnnode.records import Analysis, CaptureForm, Crop, NodeSource, ObjectRole, ReportOptions, Side
from alnnode.report import answer, comparison_text, wording
from alnnode.report.capture import canvas, node_map, node_page, summary_page
from alnnode.report.capture.canvas import View
from alnnode.report.capture.drawing import GAP
from alnnode.report.result_json import as_dict
from alnnode.report.sr import measurements

WINDOW = CONTEXT.window


def captures(of: Analysis, context=CONTEXT) -> list[Dataset]:
    return [dcmread(io.BytesIO(item.data)) for item in report.build(of, context) if item.role is ObjectRole.CAPTURE]


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """What is written on the pages that are drawn."""
    said: list[str] = []
    original = canvas.text

    def spy(pen, at, text, *rest) -> None:
        said.append(text)
        original(pen, at, text, *rest)

    monkeypatch.setattr(canvas, "text", spy)
    return said


@pytest.fixture
def boxes(monkeypatch) -> list[tuple[str, tuple[float, float, float, float]]]:
    """What is written on the pages that are drawn, with the rectangle that it covers."""
    found: list[tuple[str, tuple[float, float, float, float]]] = []
    original = canvas.text

    def spy(pen, at, text, size, ink=canvas.INK, anchor="la") -> None:
        found.append((text, pen.textbbox(at, text, font=canvas.font(size), anchor=anchor)))
        original(pen, at, text, size, ink, anchor)

    monkeypatch.setattr(canvas, "text", spy)
    return found


def wordy() -> Analysis:
    """Nodes of which a page has the most to say: a hilum, a change since an earlier report, who marked it, a long name of the data set."""
    of = followed(analysis(2))
    point = replace(of.model.operating_point, data_set="fresh synthetic phantoms of seed 202612, n = 493 nodes of 60 phantoms")
    marked = tuple(replace(one, node=replace(one.node, source=NodeSource.ASSISTED)) for one in of.findings)
    return replace(of, model=replace(of.model, operating_point=point), findings=marked)


@pytest.mark.parametrize(
    "of", [wordy(), emptied(wordy(), *Crop), analysis(3), analysis(0)], ids=["wordy", "empty maps", "three", "none"]
)
def test_no_text_of_a_page_lies_on_another_or_beside_the_page(boxes, of: Analysis) -> None:
    pages = [partial(summary_page.summary_page, of, of.volume, WINDOW)]
    pages += [partial(node_page.node_page, one, of.volume, of, WINDOW) for one in of.findings]
    for draw in pages:
        boxes.clear()
        draw()
        assert len(boxes) > 5
        for text, (left, top, right, bottom) in boxes:
            assert min(left, top) >= 0, text
            assert max(right, bottom) <= 1024, text
        for (one, a), (other, b) in combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], f"{one!r} lies on {other!r}"


def test_pages_come_most_probable_first_and_name_their_slice() -> None:
    of = analysis(4)  # 0.91, 0.12, 0.66, 0.0
    _, *nodes = captures(of)
    wanted = [of.volume.slices[of.findings[n].node.slice_index].sop_instance_uid for n in (0, 2, 1, 3)]
    assert [image.SourceImageSequence[0].ReferencedSOPInstanceUID for image in nodes] == wanted
    for image in nodes:
        assert [item.CodeValue for item in image.DerivationCodeSequence] == ["130403"]
        assert image.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    (frames,) = captures(of, replace(CONTEXT, options=ReportOptions(captures=CaptureForm.MULTIFRAME)))
    assert {item.ReferencedSOPInstanceUID for item in frames.SourceImageSequence} == set(wanted)


def test_captures_are_compressed_without_loss() -> None:
    of = analysis(1)
    plain = captures(of, replace(CONTEXT, options=ReportOptions(compressed=False)))
    small = captures(of)
    for one, other in zip(plain, small, strict=True):
        assert (one.file_meta.TransferSyntaxUID, other.file_meta.TransferSyntaxUID) == (ExplicitVRLittleEndian, JPEGLSLossless)
        assert one.SOPInstanceUID != other.SOPInstanceUID  # one UID, one content
        assert (one.pixel_array == other.pixel_array).all()
        assert len(other.PixelData) < 0.4 * len(one.PixelData)


def test_the_outline_is_drawn_where_the_caption_says_so(written) -> None:
    of = analysis(1)
    first = of.findings[0]
    page = node_page.node_page(first, of.volume, of, WINDOW)
    assert "slice, outline and box" in written
    node = first.node
    view = View.centred(
        of.volume, (node.slice_index, node.box.centre[1], node.box.centre[2]), node_page.FIELD_MM, node_page.PANEL
    )
    for x, y in (view.place(*point) for point in node.contour):
        row, column = 142 + round(y), GAP + round(x)
        near = page[row - 1 : row + 2, column - 1 : column + 2]
        assert (near == canvas.INK).all(axis=-1).any()


def test_a_node_below_the_operating_point_has_no_mark_in_the_colour_of_one_above() -> None:
    of = analysis(2)
    page = node_page.node_page(of.findings[1], of.volume, of, WINDOW)
    assert (page == canvas.NOT_SUSPICIOUS).all(axis=-1).any()
    assert not (page == canvas.SUSPICIOUS).all(axis=-1).any()


def test_an_attenuation_just_below_zero_has_no_sign(written) -> None:
    of = analysis(1)
    node = of.findings[0].node
    water = replace(of.findings[0], node=replace(node, attenuation=replace(node.attenuation, mean=-0.04)))
    of = replace(of, findings=(water,))
    node_page.node_page(water, of.volume, of, WINDOW)
    summary_page.summary_page(of, of.volume, WINDOW)
    assert any(text.endswith(", mean 0 HU") for text in written)
    assert "0" in written
    assert "-0" not in written
    stored = [item.value for item in measurements.volume_measurements(water.node)]
    assert "-0.0" not in map(str, stored)
    assert 0.0 in stored


def test_a_page_explains_itself(written) -> None:
    of = analysis(1)
    node_page.node_page(of.findings[0], of.volume, of, WINDOW)
    assert "probability 91 %" in written
    assert "demonstration model" in written
    assert any("level I" in text for text in written)
    assert written.count("Grad-CAM") == 2  # both insets
    assert node_page.LEGEND in written
    assert not [text for text in written if text.startswith("p ") or ", p " in text]


def test_an_empty_map_says_so_in_words_and_what_it_means(written) -> None:
    of = emptied(analysis(2), Crop.ASC)
    node_page.node_page(of.findings[0], of.volume, of, WINDOW)
    assert "Grad-CAM FSC" in written
    assert "Grad-CAM ASC: empty" in written
    assert written.count(wording.EMPTY_MAP) == 1
    assert (written.count("empty Grad-CAM"), written.count("Grad-CAM")) == (1, 1)
    assert node_page.EMPTY in written
    written.clear()
    node_page.node_page(of.findings[1], of.volume, of, WINDOW)
    assert not [text for text in written if "mpty" in text]


def test_the_report_says_how_many_maps_are_empty() -> None:
    assert wording.empty_maps(analysis(2)) is None
    one = wording.empty_maps(emptied(analysis(2), Crop.ASC))
    assert one is not None
    assert one.startswith("Grad-CAM: empty for 1 of 2 nodes (ASC): no area of the crop raised the probability of that network")
    assert "no sign of a benign node" in one
    both = emptied(analysis(1), Crop.FSC, Crop.ASC)
    assert "1 of 1 node (FSC) and 1 of 1 node (ASC)" in str(wording.empty_maps(both))
    assert wording.empty_maps(both) in answer.lines(both)
    assert as_dict(both)["nodes"][0]["empty_grad_cam"] == ["fsc", "asc"]


def test_a_slice_that_both_axillae_share_is_shown_once(written) -> None:
    of = volume()
    both = (finding(of, 1, Side.RIGHT, 0.9, (90, 25)), finding(of, 7, Side.LEFT, 0.8, (95, 192)))
    assert both[0].node.slice_index == both[1].node.slice_index
    made = replace(analysis(1), volume=of, header=of.header, findings=both)
    assert [k for k, _ in summary_page.shown_slices(made)] == [both[0].node.slice_index]
    summary_page.summary_page(made, of, WINDOW)
    assert "R node 1 and L node 7: slice 5 of 12 from the feet" in written
    assert len(summary_page.shown_slices(analysis(2))) == 2


@pytest.mark.parametrize("geometry", [{}, {"prone": True}, {"feet_first": True}, {"tilt": 20.0}], ids=str)
def test_the_map_shows_right_on_the_left_and_the_head_up(geometry) -> None:
    of = analysis(4, **geometry)
    view, picture = node_map.frontal(of.volume, 300, 200)
    assert picture.shape == (200, 300, 3)
    for one in of.findings:
        x, y = view.place(one.node.box.centre)
        assert 0 <= x < 300
        assert 0 <= y < 200
        assert (x < 150) == (one.node.side is Side.RIGHT)
    lower, higher = sorted(of.findings, key=lambda one: of.volume.patient_point(*one.node.box.centre)[2])[
        :: len(of.findings) - 1
    ]
    assert view.place(higher.node.box.centre)[1] < view.place(lower.node.box.centre)[1]


def test_the_map_of_a_patient_who_lies_on_the_side_is_upright() -> None:
    flat = volume()
    voxels = np.ascontiguousarray(np.rot90(flat.voxels, 1, axes=(1, 2)))
    affine = flat.affine.copy()
    down, right = flat.affine[:3, 1], flat.affine[:3, 2]
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = -right, down, flat.affine[:3, 3] + 219 * right
    turned = replace(flat, voxels=voxels, affine=affine)
    (view, picture), (turned_view, turned_picture) = (node_map.frontal(of, 300, 200) for of in (flat, turned))
    assert np.abs(picture.astype(int) - turned_picture.astype(int)).max() <= 2
    # Column 25 of row 90 is row 219 - 25 of the turned series.
    assert turned_view.place((5, 219 - 25, 90)) == pytest.approx(view.place((5, 90, 25)))


def test_nodes_are_counted_by_side_and_level() -> None:
    assert wording.sides(analysis(12))[0].startswith("Right axilla: 6 nodes (level I 6);")
    assert wording.levels(analysis(4).findings) == " (level I 2, not determined 2)"


def test_numbers_stay_on_the_line_of_their_nouns() -> None:
    words = "Left axilla: not fully shown; 2 nodes; largest short axis 9.9 mm (L node 3), highest probability 93 % (node 4)"
    for width in range(60, 700, 7):
        lines = canvas.wrap(words, 22, width)
        assert " ".join(lines) == words
        for whole in ("2 nodes;", "9.9 mm", "(L node 3),", "93 %", "(node 4)"):
            assert any(whole in line for line in lines), (width, whole)


def test_the_scale_bar_is_visible_on_bone() -> None:
    page, pen = canvas.sheet(300, 100)
    pen.rectangle((0, 0, 300, 100), fill=canvas.INK)
    node_page._scale_bar(pen, 50, 60, 3.0)
    column = np.asarray(page)[50:70, 80].tolist()
    assert list(canvas.INK) in column
    assert list(canvas.GROUND) in column


def test_a_node_that_may_have_been_there_before_is_not_a_question_mark() -> None:
    of = followed(analysis(3))
    assert [comparison_text.cell(one, of) for one in of.findings][1:] == ["new", "not determined"]
