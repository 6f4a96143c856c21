"""Reports and captures: what they say, that they repeat, what viewers need of them."""

import io
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom import DataElement, Dataset, config, dcmread
from pydicom.uid import ImplicitVRLittleEndian
from skimage.measure import points_in_poly

sys.path.insert(0, str(Path(__file__).parents[2]))
from analyses import (
    CONTEXT,
    COVERED,
    EVERYTHING,
    MODEL,
    UNVALIDATED,
    VALIDATED,
    analysis,
    as_sent,
    built,
    finding,
    header,
    variants,
    volume,
)

from alnnode import report
from alnnode.errors import ReportError
from alnnode.records import Analysis, AxillaCoverage, Crop, NodeSource, ObjectRole, Prediction, Side
from alnnode.report import answer, comparison_text, wording
from alnnode.report.ascii_text import ascii_words
from alnnode.report.capture import canvas, drawing
from alnnode.report.capture.canvas import View
from alnnode.report.sr import prior_record
from alnnode.report.uids import tracking_identifier, tracking_uid, uid


def objects(of: Analysis, context=CONTEXT) -> list[Dataset]:
    return [dcmread(io.BytesIO(item.data)) for item in built(of, context)]


@cache
def variant_objects(name: str) -> list[Dataset]:
    """The objects of a variant. Tests share them and do not change them."""
    return objects(variants()[name])


def walk(item: Dataset):
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child)


def meaning(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""


def groups(sr: Dataset) -> list[Dataset]:
    return [item for item in walk(sr) if meaning(item) == "Measurement Group"]


def of_nodes(sr: Dataset) -> dict[int, tuple[Dataset, Dataset, Dataset]]:
    """The groups of every node (axes, outline, whole node) by its number, in the order of the report."""
    found = groups(sr)
    of_each = zip(found[::3], found[1::3], found[2::3], strict=True)
    return {
        int(re.search(r"node (\d+)", next(c.TextValue for c in of[0].ContentSequence if meaning(c) == "Comment"))[1]): of
        for of in of_each
    }


def regions(group: Dataset) -> list[tuple[str, np.ndarray]]:
    """The image regions of a group: SOP Instance UID and points (column, row)."""
    drawn = [c for c in group.ContentSequence if c.ValueType == "SCOORD"]
    sources = [c.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for c in drawn]
    return [(uid, np.array(c.GraphicData).reshape(-1, 2)) for uid, c in zip(sources, drawn, strict=True)]


def numbers(group: Dataset) -> list[tuple[str, float]]:
    return [(meaning(c), float(c.MeasuredValueSequence[0].NumericValue)) for c in group.ContentSequence if c.ValueType == "NUM"]


def texts(sr: Dataset) -> str:
    return "\n".join(item.TextValue for item in walk(sr) if item.get("ValueType") == "TEXT")


@pytest.mark.parametrize("name", variants())
def test_every_variant_gives_one_report_and_its_captures(name: str) -> None:
    of = variants()[name]
    made = built(of)
    assert [item.role for item in made].count(ObjectRole.SR) == 1
    assert made[0].role is ObjectRole.SR
    assert len(made) == (1 if of.volume is None else 2 + len(of.findings))
    assert len({item.sop_instance_uid for item in made}) == len(made)
    assert {item.series_instance_uid for item in made[1:]}.isdisjoint({made[0].series_instance_uid})


@pytest.mark.parametrize("name", sorted(set(variants()) - {"forty"}))
@pytest.mark.parametrize("context", [CONTEXT, EVERYTHING], ids=["default", "everything"])
def test_the_same_input_gives_the_same_bytes(name: str, context) -> None:
    first, second = built(variants()[name], context), report.build(variants()[name], context)
    assert [item.data for item in first] == [item.data for item in second]


def test_bytes_repeat_in_another_process() -> None:
    code = (
        "import hashlib, sys; sys.path.insert(0, 'tests')\n"
        "from analyses import CONTEXT, EVERYTHING, analysis\nfrom alnnode import report\n"
        "made = report.build(analysis(2), CONTEXT) + report.build(analysis(2), EVERYTHING)\n"
        "print(hashlib.sha256(b''.join(o.data for o in made)).hexdigest())"
    )
    root = Path(__file__).parents[3]
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONPATH": str(root), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


@pytest.mark.parametrize("change", ["input_digest", "settings_digest", "revision"])
def test_what_changes_the_result_changes_its_uids(change: str) -> None:
    other = replace(CONTEXT, **{change: 2 if change == "revision" else "99" * 32})
    before = {item.sop_instance_uid for item in report.build(analysis(1), CONTEXT)}
    assert before.isdisjoint(item.sop_instance_uid for item in report.build(analysis(1), other))


def test_uids_are_valid_and_never_ambiguous() -> None:
    assert uid("a", "bc") != uid("ab", "c")
    assert len(uid("x")) <= 64
    assert uid("x").startswith("2.25.")


def test_dates_are_those_of_the_job() -> None:
    for item in objects(analysis(1)):
        assert (item.ContentDate, item.ContentTime) == ("20260504", "030201")
        assert (item.InstanceCreationDate, item.SeriesDate) == ("20260504", "20260504")
        assert item.file_meta.FileMetaInformationVersion == b"\x00\x01"


def test_every_object_says_that_it_is_not_for_clinical_use() -> None:
    for name in variants():
        sr, *captures = variant_objects(name)
        assert MODEL.banner in texts(sr), name
        for item in (sr, *captures):
            assert "DEMO, NOT FOR CLINICAL USE" in item.SeriesDescription
        for capture in captures:
            assert capture.ImageComments == MODEL.banner
            # The band with the words, in the pixels.
            assert (capture.pixel_array[2, :, :] == canvas.NOTICE).all()
            assert (capture.pixel_array[10:34] == 255).any()


def test_each_node_has_its_groups_with_one_tracking_uid() -> None:
    sr = objects(analysis(3))[0]
    found = groups(sr)
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in found] == ["1501", "1410", "1411"] * 3
    assert list(of_nodes(sr)) == [1, 3, 2]  # most probable first: 0.91, 0.66, 0.12
    for of_node in of_nodes(sr).values():
        first, second, _ = of_node
        (tracked,) = {next(c.UID for c in g.ContentSequence if c.ValueType == "UIDREF") for g in of_node}
        tracking, plain, same = (
            next(c.TextValue for c in group.ContentSequence if meaning(c) == "Tracking Identifier") for group in of_node
        )
        assert tracking == f"Cornerstone3DTools@^0.1.0:Bidirectional:{plain}"
        assert plain == same == tracking_identifier(tracked)
        drawn = [c for c in first.ContentSequence if c.ValueType == "NUM"]
        assert [meaning(c) for c in drawn[:2]] == ["Long Axis", "Short Axis"]
        for number in drawn[:2]:
            (line,) = number.ContentSequence
            assert (line.ValueType, line.GraphicType, len(line.GraphicData)) == ("SCOORD", "POLYLINE", 4)
        outline = next(c for c in second.ContentSequence if c.ValueType == "SCOORD")
        assert list(outline.GraphicData[:2]) == list(outline.GraphicData[-2:])
    assert len({next(c.UID for c in g.ContentSequence if c.ValueType == "UIDREF") for g in found}) == 3


def test_side_site_probability_and_reference_of_a_node() -> None:
    of = analysis(2)
    found = of_nodes(objects(of)[0])
    for one in of.findings:
        group = found[one.node.number][0]
        site = next(c for c in group.ContentSequence if meaning(c) == "Finding Site")
        assert site.ConceptCodeSequence[0].CodeValue == "68171009"
        side = site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning
        assert side.lower() == one.node.side.value
        probability = next(
            c for c in group.ContentSequence if meaning(c) == "Probability, demonstration model"
        ).MeasuredValueSequence[0]
        assert float(probability.NumericValue) == pytest.approx(100 * one.prediction.probability)
        assert probability.MeasurementUnitsCodeSequence[0].CodeValue == "%"
        image = next(c for c in walk(group) if c.get("ValueType") == "IMAGE").ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == of.volume.slices[one.node.slice_index].sop_instance_uid


def test_a_probability_of_zero_is_never_blank() -> None:
    assert wording.percent(0.0) == 1
    assert wording.percent(1.0) == 100


def test_probabilities_have_no_decimals_and_stay_on_their_side_of_the_threshold() -> None:
    assert [wording.probability(p) for p in (0.0, 0.004, 0.794, 0.955, 0.996)] == [
        "below 1 %",
        "below 1 %",
        "79 %",
        "96 %",
        "above 99 %",
    ]
    assert [wording.table_percent(p) for p in (0.0, 0.004, 0.794, 0.955, 0.996, 1.0)] == ["<1", "<1", "79", "96", ">99", ">99"]
    assert [wording.percent(p, 0.18) for p in (0.176, 0.18, 0.184)] == [17, 18, 18]
    assert [wording.percent(p, 0.175) for p in (0.1749, 0.175)] == [17, 18]
    assert wording.percent(0.29, 0.29) == 29


@pytest.mark.parametrize("model", [MODEL, UNVALIDATED], ids=["demonstration", "not validated"])
def test_a_model_that_was_not_validated_on_patients_gives_no_verdict(model) -> None:
    """Neither in the headline nor in a sentence, a label or a title; its probabilities say whose they are."""
    of = replace(analysis(4), model=model)
    assert wording.headline(of) == ("4 axillary lymph nodes located: 2 right, 2 left", False)
    for item in report.build(of, EVERYTHING):
        for element in dcmread(io.BytesIO(item.data)).iterall():
            if element.VR in {"LO", "SH", "ST", "LT", "UC", "UT"}:
                assert "suspicious" not in str(element.value).lower(), element
    sr = objects(of)[0]
    assert f"R node 1: probability 91 % ({model.kind})" in texts(sr)
    names = {meaning(item) for item in walk(sr)}
    assert ("Probability of cancer" in names) == (not model.demonstration)
    assert ("Probability, demonstration model" in names) == model.demonstration


def test_a_model_that_was_validated_on_patients_gives_the_verdict() -> None:
    of = replace(analysis(4), model=VALIDATED)
    assert wording.headline(of) == ("Suspicious: right axilla; R node 1, probability 91 %", True)
    assert "R node 1: suspicious, probability 91 % (research use only)" in texts(objects(of)[0])
    assert "Probability of cancer" in {meaning(item) for item in walk(objects(of)[0])}


def test_evidence_lists_exactly_what_the_tree_references_once() -> None:
    for name in variants():
        sr = variant_objects(name)[0]
        tree = {r.ReferencedSOPInstanceUID for c in walk(sr) for r in c.get("ReferencedSOPSequence", [])}
        listed = [
            i.ReferencedSOPInstanceUID
            for study in (*sr.CurrentRequestedProcedureEvidenceSequence, *sr.get("PertinentOtherEvidenceSequence", []))
            for series in study.ReferencedSeriesSequence
            for i in series.ReferencedSOPSequence
        ]
        assert sorted(listed) == sorted(tree), name


def test_frames_are_referenced_by_number() -> None:
    of = variants()["enhanced"]
    sr = objects(of)[0]
    frames = {int(r.ReferencedFrameNumber) for g in groups(sr) for c in walk(g) for r in c.get("ReferencedSOPSequence", [])}
    assert frames == {k + 1 for one in of.findings for k in range(one.node.box.k0, one.node.box.k1)}


def test_figures_of_a_slice_and_of_the_whole_node_are_in_groups_of_their_own() -> None:
    """The brightest voxel of a node on another slice is in the figures of the volume, and not in those of the outline or beside the axes."""
    of = analysis(2)
    node = of.findings[0].node
    box, k = node.box, node.slice_index
    volume_of = of.volume
    volume_of.voxels[k + 1, 90, 25] = 751
    whole = replace(node, attenuation=replace(node.attenuation, maximum=751.0))
    of = replace(of, findings=(replace(of.findings[0], node=whole), of.findings[1]))
    axes, planar, volumetric = of_nodes(objects(of)[0])[1]
    inside = volume_of.voxels[k, box.j0 : box.j1, box.i0 : box.i1][node.mask[k - box.k0]]
    assert [value for name, value in numbers(planar)] == pytest.approx([inside.mean(), inside.max(), inside.std()], abs=0.06)
    assert {name for name, _ in numbers(planar)} == {"Attenuation Coefficient"}
    assert numbers(volumetric) == [
        ("Attenuation Coefficient", 51.3),
        ("Attenuation Coefficient", 751.0),
        ("Attenuation Coefficient", 12.4),
        ("Volume", 812.5),
        ("Fat fraction", 12.4),
        ("Cortical thickness of lymph node", 2.3),
    ]
    assert {name for name, _ in numbers(axes)}.isdisjoint(name for name, _ in numbers(volumetric))


@pytest.mark.parametrize("name", ["one", "feet-first", "own-frames", "reader"])
def test_the_volumetric_group_has_the_outline_on_every_slice_of_the_node(name: str) -> None:
    of = variants()[name]
    sr = objects(of)[0]
    for finding_ in of.findings:
        node, (_, planar, volumetric) = finding_.node, of_nodes(sr)[finding_.node.number]
        planes = range(node.box.k0, node.box.k1) if node.mask is not None else [node.slice_index]
        drawn = regions(volumetric)
        assert [uid for uid, _ in drawn] == [of.volume.slices[k].sop_instance_uid for k in planes]
        for k, (_, points) in zip(planes, drawn, strict=True):
            assert (points[0] == points[-1]).all()
            if node.mask is None:
                assert np.allclose(points, regions(planar)[0][1])
                continue
            expected = np.zeros(of.volume.voxels.shape[1:], bool)
            expected[node.box.j0 : node.box.j1, node.box.i0 : node.box.i1] = node.mask[k - node.box.k0]
            centres = np.argwhere(np.ones(expected.shape, bool))[:, ::-1] + 0.5  # column and row of the pixel centres
            assert (points_in_poly(centres, points).reshape(expected.shape) == expected).all()


def test_no_group_is_without_coordinates() -> None:
    """OHIF shows nothing of a report that has one."""
    for name in ("one", "twelve", "reader"):
        for group in groups(variant_objects(name)[0]):
            assert any(c.get("ValueType") == "SCOORD" for c in walk(group))


def test_the_answer_is_the_first_thing_in_every_report() -> None:
    """The same statements in the same order in each report in words or figures, and before any detail."""
    for name in ("one", "none", "not-analysed", "follow-up"):
        of = variants()[name]
        for item in objects(of, EVERYTHING):
            if item.Modality != "SR":
                continue
            said = answer.lines(of)
            lines = [c.TextValue for c in walk(item) if c.get("ValueType") == "TEXT" and c.RelationshipType == "CONTAINS"]
            assert lines[: len(said)] == [ascii_words(line) for line in said], (name, item.SOPClassUID.name)
            items = list(walk(item))
            place = next(n for n, c in enumerate(items) if meaning(c) == "Conclusion" and c.ValueType == "TEXT")
            assert place < min(
                (n for n, c in enumerate(items) if meaning(c) in {"Image Library", "Measurement Group"}), default=999
            )


def test_the_notice_stands_once_in_a_report_and_the_parameters_too() -> None:
    for item in objects(analysis(4), EVERYTHING):
        if item.Modality == "SR":
            assert texts(item).count(MODEL.banner) == 1
            assert texts(item).count(MODEL.digest) == 1
            assert texts(item).count("sensitivity 0.95") == 1


def test_a_series_without_an_answer_quotes_no_sensitivity() -> None:
    for name in ("not-analysed", "none"):
        for item in objects(variants()[name], EVERYTHING):
            if item.Modality == "SR":
                assert "sensitivity" not in texts(item)
                assert "operating point" not in texts(item).lower()


def test_the_first_screen_answers_side_place_size_certainty_model_and_coverage() -> None:
    of = analysis(12)
    said = answer.lines(of)
    assert len(said) <= 15
    assert said[:3] == [
        MODEL.banner,
        "12 axillary lymph nodes located: 6 right, 6 left",
        wording.conclusion(of),
    ]
    assert (
        said[5] == "1. R node 1: level I, slice 5 of 12 from the feet, 16.0 x 11.2 mm, probability 91 % (demonstration model)"
    )
    assert "9 less probable nodes: see the measurements of the structured report" in said
    outside = "Not covered: lymph nodes outside the axillae, and nodes with a short axis below 4 mm"
    assert f"Both axillae are fully shown. {outside}" in said
    cut = replace(of, coverage=(AxillaCoverage(Side.RIGHT, True), AxillaCoverage(Side.LEFT, False, "cut off at the side")))
    assert outside in answer.lines(cut)
    assert "Left axilla: not fully shown (cut off at the side); 6 nodes" in "\n".join(answer.lines(cut))
    assert f"Model: alnnode-demo 0.1.0, bundle {'ab' * 6}; trained on synthetic phantoms; not validated on patients" in said


def test_slices_are_counted_one_way() -> None:
    """By the numbers that viewers show where every image has one; else from the feet, for the whole series."""
    of = volume()
    assert wording.slice_name(of, 4) == "slice 5 of 12 from the feet"
    numbered = replace(of, slices=tuple(replace(s, image_number=12 - k) for k, s in enumerate(of.slices)))
    assert wording.slice_name(numbered, 4) == "image 8"
    twice = replace(of, slices=tuple(replace(s, image_number=max(k, 1)) for k, s in enumerate(of.slices)))
    assert wording.slice_name(twice, 4) == "slice 5 of 12 from the feet"


def test_results_name_the_series_that_they_are_of_and_their_network() -> None:
    described, series_numbers = [], []
    for number in ("4", "12"):
        source = header()
        source.SeriesNumber, source.SeriesInstanceUID = number, f"2.25.12{number}"
        made = objects(analysis(1, source), EVERYTHING)
        described += [item.SeriesDescription for item in made]
        series_numbers += [int(item.SeriesNumber) for item in made]
    assert described[0] == "AI nodes of series 4: report - DEMO, NOT FOR CLINICAL USE"
    assert "AI nodes of series 12: Grad-CAM FSC - DEMO, NOT FOR CLINICAL USE" in described
    assert "AI nodes of series 12: Grad-CAM ASC - DEMO, NOT FOR CLINICAL USE" in described
    assert len(set(described)) == len(set(series_numbers)) == len(described)
    assert all(len(text) <= 64 for text in described)
    assert min(series_numbers) > 12


def test_the_tracking_identifier_of_a_node_stays_in_a_follow_up() -> None:
    before, after = analysis(2), variants()["follow-up"]
    uid_before = tracking_uid(before, before.findings[0].node)
    moved = replace(after.findings[2].node, tracking_uid=uid_before)
    after = replace(after, findings=(*after.findings[:2], replace(after.findings[2], node=moved)))

    def identifiers(sr: Dataset) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for group in groups(sr):
            said = next(c.TextValue for c in group.ContentSequence if meaning(c) == "Tracking Identifier")
            found.setdefault(next(c.UID for c in group.ContentSequence if c.ValueType == "UIDREF"), set()).add(said)
        return found

    assert identifiers(objects(before)[0])[uid_before] == identifiers(objects(after)[0])[uid_before]


def test_coordinates_stay_inside_the_image() -> None:
    of = volume()
    edge = finding(of, 1, at=(90, 5))
    edge = replace(edge, node=replace(edge.node, mask=None))  # the contour passes the edge of the image
    sr = objects(Analysis(of.header, MODEL, of, (edge,), COVERED))[0]
    points = [list(c.GraphicData) for c in walk(sr) if c.get("ValueType") == "SCOORD"]
    assert points
    assert min(min(p) for p in points) >= 0


def test_negative_reports_do_not_use_the_root_that_ends_viewers() -> None:
    for name in ("none", "not-analysed"):
        sr = variant_objects(name)[0]
        assert sr.ConceptNameCodeSequence[0].CodeValue != "126000"
        assert not groups(sr)
    assert "no axillary lymph node found with a short axis of 4 mm or more" in texts(variant_objects("none")[0])
    assert "8 mm apart" in texts(variant_objects("not-analysed")[0])


def test_an_axilla_that_is_not_covered_is_said() -> None:
    said = texts(variant_objects("partial")[0])
    assert "Left axilla: not fully shown (cut off at the side of the image); no node found in what is shown" in said


def test_no_node_is_claimed_only_for_what_is_shown() -> None:
    hidden = AxillaCoverage(Side.LEFT, False, "above the top slice", shown=False)
    partly = AxillaCoverage(Side.RIGHT, False, "lower part below the bottom slice")
    said = replace(analysis(0), coverage=(partly, hidden))
    assert wording.sides(said) == [
        "Right axilla: not fully shown (lower part below the bottom slice); no node found in what is shown",
        "Left axilla: not shown (above the top slice)",
    ]
    assert wording.headline(said) == ("Axillary lymph nodes: no node found in what is shown", False)
    assert wording.conclusion(said).endswith("; not fully shown: right axilla; not shown: left axilla")
    found = replace(analysis(1), coverage=(partly, hidden))
    assert wording.sides(found)[0].startswith(
        "Right axilla: not fully shown (lower part below the bottom slice); 1 node (level I 1); largest short axis"
    )


def test_a_threshold_of_the_sites_own_carries_no_measured_figures() -> None:
    said = texts(variant_objects("own-threshold")[0])
    assert "Operating point 70 %: threshold set by the site" in said
    assert "sensitivity 0." not in said


@pytest.mark.parametrize(
    ("name", "person"), [("greek", "Παπαδοπούλου^Μαρία"), ("japanese", "Yamada^Hanako=山田^花子=やまだ^はなこ")]
)
def test_names_survive_in_their_character_set(name: str, person: str) -> None:
    for item in variant_objects(name):
        assert str(item.PatientName) == person
        assert item.SpecificCharacterSet == "ISO_IR 192"


def test_a_predecessor_is_named() -> None:
    named = replace(CONTEXT, revision=2, predecessor=("1.2.840.10008.5.1.4.1.1.88.33", "2.25.7", "2.25.8", "2.25.11"))
    (study,) = objects(analysis(1), named)[0].PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.7"


def test_no_patient_data_in_the_pixels() -> None:
    """The pixels do not depend on who the patient is."""
    one, other = (objects(analysis(1, header(name)))[1:] for name in ("ALPHA^ANNA", "OMEGA^OLGA"))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.pixel_array, b.pixel_array)


def test_views_show_the_patients_right_on_the_left_in_every_position() -> None:
    supine, prone = volume(), volume(prone=True)
    prone.voxels[:] = supine.voxels[:, ::-1, ::-1]
    window = (40.0, 400.0)
    pictures = [canvas.grey(of, View.fitted(of, 5, 300, 260), window) for of in (supine, prone)]
    # Different roundings at tissue borders may differ by a grey level.
    assert np.abs(pictures[0].astype(int) - pictures[1].astype(int)).max() <= 2


def test_orientation_letters_follow_the_geometry() -> None:
    for prone in (False, True):
        of = volume(prone=prone)
        assert canvas.orientation(of, View.fitted(of, 5, 300, 260)) == ("R", "L", "A", "P")
    on_the_side = volume()
    on_the_side.affine[:3, 1:3] = on_the_side.affine[:3, 2:0:-1] * [1.0, -1.0]  # rows run to the left, columns to the front
    as_stored = View(5, (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), 200, 220)
    assert canvas.orientation(on_the_side, as_stored) == ("P", "A", "R", "L")
    assert canvas.orientation(on_the_side, View.fitted(on_the_side, 5, 300, 260)) == ("R", "L", "A", "P")


def test_the_box_is_drawn_where_the_node_is() -> None:
    of = analysis(1)
    node = of.findings[0].node
    view = View.centred(of.volume, (node.slice_index, node.box.centre[1], node.box.centre[2]), 110.0, 324)
    x, y = view.place(node.box.centre[2] + 0.5, node.box.centre[1] + 0.5)
    assert (x, y) == pytest.approx((161.5, 161.5))
    assert node.side is Side.RIGHT
    whole = View.fitted(of.volume, node.slice_index, 400, 400)
    assert whole.place(node.box.centre[2], node.box.centre[1])[0] < 200  # a right node, on the left of the picture


@pytest.mark.parametrize(
    ("person", "charset"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"]),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", ["ISO 2022 IR 13", "ISO 2022 IR 87"]),
        ("Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"]),
        ("Wang^XiaoDong=王^小东", "GB18030"),
        ("Щукина^Юлия", "ISO_IR 144"),
        ("Buc^Jérôme", "ISO_IR 100"),
    ],
)
def test_names_survive_in_the_character_sets_of_hospitals(person: str, charset: str | list[str]) -> None:
    source = header(person, charset)
    came = as_sent(source)
    for item in objects(analysis(1, came)):
        assert str(item.PatientName) == person
        assert item.SpecificCharacterSet == charset


def test_our_own_words_are_written_in_any_character_set() -> None:
    source = header()
    del source.SpecificCharacterSet
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (sr,) = objects(Analysis(source, MODEL, None, not_analysed="tilt 31° \u2013 “too much” (≥ 30), Müller"))
    assert 'tilt 31 degrees - "too much" (>= 30), Muller' in texts(sr)
    assert "SpecificCharacterSet" not in sr


def test_values_that_break_the_standard_in_the_source_do_not_cost_the_report() -> None:
    source = header()
    for tag, vr, value in (
        (0x00100040, "CS", "female"),
        (0x00080050, "SH", "A" * 40),
        (0x00080030, "TM", "99:99"),
        (0x00101010, "AS", "old"),
    ):
        source[tag] = DataElement(tag, vr, value, validation_mode=config.IGNORE)
    del source.SeriesInstanceUID
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reader of the test says that the values are wrong: they are
        sr = objects(analysis(1, source))[0]
        assert (sr.PatientSex, sr.AccessionNumber) == ("female", "A" * 40)


def test_what_nothing_can_refer_to_is_an_error() -> None:
    with pytest.raises(ReportError, match="SOPInstanceUID"):
        report.build(Analysis(Dataset(), MODEL, None, not_analysed="x"), CONTEXT)


@pytest.mark.parametrize("probability", [float("nan"), -0.1, 1.1])
def test_a_probability_that_is_none_is_an_error(probability: float) -> None:
    of = analysis(1)
    wrong = replace(of.findings[0], prediction=Prediction(probability, {Crop.FSC: 0.5, Crop.ASC: 0.5}))
    with pytest.raises(ReportError, match="node 1"):
        report.build(replace(of, findings=(wrong,)), CONTEXT)


@pytest.mark.parametrize("turn", [1, 3])
def test_a_patient_who_lies_on_the_side_is_shown_front_up_right_on_the_left(turn: int) -> None:
    """The source's raster turned by 90 degrees gives the same picture, and coordinates land on the same place of it."""
    flat = volume()
    flat.voxels[:, 60:80, 20:40] = 300  # at the patient's right, in front
    voxels = np.ascontiguousarray(np.rot90(flat.voxels, turn, axes=(1, 2)))
    down, right, origin = flat.affine[:3, 1], flat.affine[:3, 2], flat.affine[:3, 3]
    affine = flat.affine.copy()
    if turn == 1:  # row j' is column last - j' of the flat one, column i' its row i'
        affine[:3, 1], affine[:3, 2], affine[:3, 3] = -right, down, origin + 219 * right
        corner = (60.0, 180.0)
    else:
        affine[:3, 1], affine[:3, 2], affine[:3, 3] = right, -down, origin + 199 * down
        corner = (140.0, 40.0)
    turned = replace(flat, voxels=voxels, affine=affine)
    views = [View.fitted(of, 5, 300, 260) for of in (flat, turned)]
    pictures = [canvas.grey(of, view, (40.0, 400.0)).astype(int) for of, view in zip((flat, turned), views, strict=True)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 2
    assert canvas.orientation(turned, views[1]) == ("R", "L", "A", "P")
    # The corner (column 40, row 60) of the mark: image coordinates of both rasters.
    assert views[1].place(*corner) == pytest.approx(views[0].place(40.0, 60.0))


def test_an_axilla_that_is_cut_off_is_said_in_the_conclusion() -> None:
    said = wording.conclusion(variants()["partial"])
    assert said.endswith("not fully shown: left axilla")


@pytest.mark.parametrize("name", ["one", "twelve", "prone", "enhanced"])
def test_nodes_are_drawn_on_the_side_that_the_report_names(name: str) -> None:
    of = variants()[name]
    for one in of.findings:
        view = View.fitted(of.volume, one.node.slice_index, 400, 300)
        x, _ = view.place(one.node.box.centre[2] + 0.5, one.node.box.centre[1] + 0.5)
        assert (x < 200) == (one.node.side is Side.RIGHT)


def test_a_comparison_is_in_report_and_evidence() -> None:
    of = variants()["follow-up"]
    sr = objects(of)[0]
    first, second, third = (of_nodes(sr)[number][0] for number in (1, 2, 3))

    def said(group: Dataset) -> dict[str, float]:
        return dict(numbers(group))

    assert said(first)["Change of short axis"] == pytest.approx(2.1)
    assert said(first)["Relative change of short axis"] == 23
    assert said(first)["Interval since prior report"] == 183
    assert said(first)["Change of probability of cancer, percentage points"] == pytest.approx(49)
    kinds = [
        next(c for c in group.ContentSequence if meaning(c) == "Compared with prior report").ConceptCodeSequence[0].CodeValue
        for group in (first, second, third)
    ]
    assert kinds == ["SEEN-BEFORE", "NEW", "CHANGE-UNCLEAR"]
    assert next(c.UID for c in first.ContentSequence if c.ValueType == "UIDREF") == "2.25.881"
    assert "183 days earlier: 1 seen before, 1 new, 1 not determined, 1 no longer found" in texts(sr)
    assert "No longer found: earlier L node 41 (7.9 mm)" in texts(sr)
    (study,) = sr.PertinentOtherEvidenceSequence
    assert study.StudyInstanceUID == "2.25.903"
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.901"
    (reference,) = [c for c in walk(sr) if meaning(c) == "Prior report for current patient"]
    assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.901"


def test_a_comparison_says_that_a_more_recent_report_may_be_missing() -> None:
    of = variants()["follow-up"]
    assert "more recent" not in "".join(answer.lines(of))
    away = replace(of, comparison=replace(of.comparison, incomplete="archive vna did not answer in time"))
    assert "A more recent report may be missing: archive vna did not answer in time" in answer.lines(away)


def test_a_change_within_the_measurement_error_does_not_read_as_growth() -> None:
    """Neither in the sentences nor on the node's line; a larger one comes with the error."""
    of = variants()["follow-up"]
    first, change = of.findings[0], of.comparison.nodes[1]
    sr = objects(of)[0]
    assert comparison_text.change_sentence(first, of).endswith("(+2.1 mm, +23 %), probability +49 points")
    assert "R node 3: probability 66 % (demonstration model), not determined whether seen on 2025-11-02" in texts(sr)
    assert "R node 1: probability 91 % (demonstration model), short axis +2.1 mm since 2025-11-02" in texts(sr)
    assert "largest growth of a short axis +2.1 mm (R node 1; error 1.4 mm)" in texts(sr)
    assert "Measurement error of the change of a short axis: 1.4 mm" in texts(sr)
    (error,) = [item for item in walk(sr) if meaning(item) == "Measurement error of change of short axis, 95 %"]
    value = error.MeasuredValueSequence[0]
    assert (float(value.NumericValue), value.MeasurementUnitsCodeSequence[0].CodeValue) == (1.4, "mm")

    for millimetres, size in ((1.5, "LARGER"), (1.4, "WITHIN-ERROR"), (-1.4, "WITHIN-ERROR"), (-1.5, "SMALLER")):
        earlier = change.prior_node.model_copy(
            update={"short_axis_mm": round(first.node.short_axis.length_mm - millimetres, 1)}
        )
        other = replace(
            of, comparison=replace(of.comparison, nodes={**of.comparison.nodes, 1: replace(change, prior_node=earlier)})
        )
        sr = objects(other)[0]
        (said,) = [item for item in walk(sr) if meaning(item) == "Short axis compared with prior report"]
        assert said.ConceptCodeSequence[0].CodeValue == size
        within = size == "WITHIN-ERROR"
        assert ("(within the measurement error of 1.4 mm)" in comparison_text.change_sentence(first, other)) == within
        assert ("short axis within error since 2025-11-02" in texts(sr)) == within
        assert (f"{millimetres:+.1f} mm" in texts(sr)) == (not within)
        assert ("no short axis grew by more than the measurement error (1.4 mm)" in texts(sr)) == (size != "LARGER")


def test_what_the_search_left_out_is_told() -> None:
    cut = replace(analysis(2), more_found=True)
    assert "there are more, less certain, that are not reported" in wording.conclusion(cut)
    assert "there are more" not in wording.conclusion(analysis(2))
    assert prior_record.read(objects(cut)[0]).record.more_found
    assert not prior_record.read(objects(analysis(2))[0]).record.more_found


def test_nodes_that_a_reader_marked_are_not_called_found() -> None:
    of = analysis(2)
    assert wording.conclusion(of).startswith("Analysed: 2 axillary lymph nodes found; largest")
    first, second = of.findings
    by_reader = replace(first, node=replace(first.node, source=NodeSource.READER))
    mixed = replace(of, findings=(by_reader, second))
    assert wording.conclusion(mixed).startswith("Analysed: 2 axillary lymph nodes (1 found, 1 marked by the reader); largest")
    assert wording.sides(mixed)[0].startswith("Right axilla: 1 node marked by the reader (level I 1); largest")
    assert wording.sides(mixed)[1].startswith("Left axilla: 1 node; largest")


def test_nodes_that_other_software_marked_are_not_called_a_readers() -> None:
    of = variants()["software"]
    assert wording.conclusion(of).startswith(
        "Analysed: 2 axillary lymph nodes (1 marked by a reader with software, 1 marked by other software); largest"
    )
    assert wording.sides(of)[0].startswith("Right axilla: 1 node marked by other software (level I 1); largest")
    assert wording.sides(of)[1].startswith("Left axilla: 1 node marked by a reader with software; largest")
    unsearched = replace(of, coverage=())
    assert wording.headline(unsearched)[0] == "2 axillary lymph nodes marked: 1 right, 1 left"
    one = replace(unsearched, findings=of.findings[:1])
    assert wording.headline(one)[0] == "1 axillary lymph node marked by other software: 1 right"
    sr = objects(of)[0]
    located = [item.ConceptCodeSequence[0] for item in walk(sr) if meaning(item) == "Located by"]
    assert {(item.CodeValue, item.CodingSchemeDesignator) for item in located} == {
        ("121007", "DCM"),
        ("READER-SOFTWARE", "99ALNNODE"),
    }
    assert "Confidence of the detector" not in [meaning(item) for item in walk(sr)]


def test_one_day_and_one_point_are_singular() -> None:
    of = variants()["follow-up"]
    first = of.findings[0]
    one = replace(of, comparison=replace(of.comparison, days=1))
    prior_node = of.comparison.nodes[1].prior_node
    probability = prior_node.probability + 0.01
    nearly = replace(first, prediction=replace(first.prediction, probability=probability))
    assert comparison_text.change_sentence(nearly, one).startswith("short axis 9.1 to 11.2 mm in 1 day (")
    assert comparison_text.change_sentence(nearly, one).endswith(", probability +1 point")
    assert comparison_text.change_sentence(first, of).endswith(" points")
    assert "2025-11-02, 1 day earlier:" in comparison_text.sentences(one)[0]


def test_probabilities_of_two_models_are_not_compared() -> None:
    of = variants()["follow-up"]
    other = replace(of, comparison=replace(of.comparison, same_model=False))
    sr = objects(other)[0]
    assert "percentage points" not in " ".join(meaning(item) for item in walk(sr))
    assert "by another model" in texts(sr)


def test_hilum_and_cortex_are_told_where_they_are_known() -> None:
    found = of_nodes(objects(analysis(2))[0])
    figures = [dict(numbers(found[number][2])) for number in (1, 2)]
    assert (figures[0]["Fat fraction"], figures[0]["Cortical thickness of lymph node"]) == (12.4, 2.3)
    assert "Fat fraction" not in figures[1]


@pytest.mark.parametrize("implicit", [False, True], ids=["as written", "as an archive in Implicit VR gives it back"])
def test_a_report_says_what_the_next_one_needs(implicit: bool) -> None:
    of = analysis(3)
    sr = objects(of)[0]
    if implicit:
        buffer = io.BytesIO()
        sr.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        sr.save_as(buffer, implicit_vr=True, little_endian=True)
        sr = dcmread(io.BytesIO(buffer.getvalue()))
    prior = prior_record.read(sr)
    assert (prior.sop_instance_uid, prior.study_date.isoformat()) == (sr.SOPInstanceUID, "2026-05-04")
    assert prior.record.surface == of.surface
    for one, node in zip(of.findings, prior.record.nodes, strict=True):
        group = of_nodes(sr)[node.number][0]
        assert node.tracking_uid == next(c.UID for c in group.ContentSequence if c.ValueType == "UIDREF")
        assert node.centre == pytest.approx(of.volume.patient_point(*one.node.box.centre), abs=0.1)
        assert (node.side, node.short_axis_mm) == (one.node.side, 11.2)


def test_a_site_that_follows_nothing_up_writes_no_record() -> None:
    sr = objects(analysis(1), replace(CONTEXT, prior=None))[0]
    assert prior_record.read(sr) is None
    assert not any(element.tag.is_private for element in sr)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-2],
        lambda text: text.replace('"version":1', '"version":2'),
        lambda text: text.replace("11.2", "NaN"),
        lambda text: text.replace('"right"', '"middle"'),
        lambda text: text + " " * (1 << 20),
        lambda text: "[" * 100_000,
    ],
    ids=["cut off", "another version", "no number", "no side", "too long", "too deep"],
)
def test_a_record_that_is_not_sound_is_none(change) -> None:
    sr = objects(analysis(1))[0]
    element = sr.private_block(prior_record.GROUP, prior_record.CREATOR)[prior_record.ELEMENT]
    element.value = change(element.value)
    assert prior_record.read(sr) is None


def test_the_summarys_first_line_is_the_answer() -> None:
    assert wording.headline(analysis(0)) == ("Axillary lymph nodes: no node found", False)
    assert wording.headline(analysis(1)) == ("1 axillary lymph node located: 1 right", False)
    quiet = replace(analysis(2), model=VALIDATED)
    quiet = replace(quiet, findings=(replace(quiet.findings[1], node=replace(quiet.findings[1].node, number=1)),))
    assert wording.headline(quiet) == ("Axillary lymph nodes: none suspicious", False)
    assert "; none at or above the operating point of" in wording.conclusion(quiet)


def test_an_axilla_that_was_not_searched_is_not_called_empty() -> None:
    """Where only a reader locates nodes, nobody looked for others."""
    marked = replace(analysis(1), coverage=())
    by_reader = tuple(replace(one, node=replace(one.node, source=NodeSource.READER)) for one in marked.findings)
    marked = replace(marked, findings=by_reader)
    assert wording.sides(marked)[1] == "Left axilla: no node marked; the algorithm did not search"
    assert answer.UNMARKED in answer.lines(marked)
    assert "short axis below" not in "\n".join(answer.lines(marked))
    assert wording.headline(marked)[0] == "1 axillary lymph node marked by the reader: 1 right"
    benign = replace(marked, findings=(analysis(2).findings[1],), model=VALIDATED)
    assert wording.headline(benign) == ("Marked lymph nodes: none suspicious", False)
    assert wording.sides(analysis(1))[1] == "Left axilla: no node found"


def test_numbers_of_boxes_do_not_lie_on_one_another(monkeypatch) -> None:
    places = []
    monkeypatch.setattr(canvas, "text", lambda _pen, at, said, *_rest: places.append((said, at)))
    of = analysis(12)
    view = View.fitted(of.volume, of.findings[0].node.slice_index, 492, 240)
    _, pen = canvas.sheet(1024, 1024)
    drawing.boxes(pen, [(finding, canvas.SUSPICIOUS) for finding in of.findings], view, (13, 300))
    assert 4 <= len(places) <= 12
    for number, (_, (x, y)) in enumerate(places):
        for _, (other_x, other_y) in places[:number]:
            assert abs(x - other_x) >= 12 or abs(y - other_y) >= drawing.LABEL
