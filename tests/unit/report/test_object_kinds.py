"""Segmentation, parametric map, key objects, presentation state, results tree, multi-frame captures: right place, right references."""

import io
import re
from dataclasses import replace
from typing import get_args

import highdicom
import numpy as np
import pytest
from analyses import CONTEXT, EVERYTHING, analysis, built, emptied, variants
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    RawDataStorage,
)

from alnnode import report
from alnnode.db.tables import Delivery, Result
from alnnode.records import Analysis, CaptureForm, Crop, ObjectRole, ReportContext, ReportOptions, ResultObject, ResultReference
from alnnode.report import answer, codes, kinds
from alnnode.report.ascii_text import ascii_words
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.objects import encapsulated_pdf
from alnnode.report.series_naming import series_number
from alnnode.report.uids import result_uid, tracking_uid
from alnnode.settings import Report
from alnnode.settings.deliver import ResultKind

PLACED = ["one", "prone", "feet-first", "tilted", "enhanced", "bare", "reader"]


def made(of: Analysis, context=EVERYTHING) -> dict[ObjectRole, list[Dataset]]:
    found: dict[ObjectRole, list[Dataset]] = {}
    for item in built(of, context):
        found.setdefault(item.role, []).append(dcmread(io.BytesIO(item.data)))
    return found


def walk(item: Dataset):
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child)


def slice_of(of: Analysis, frame: Dataset) -> int:
    """The slice of the volume on which a frame says that it lies."""
    position = [float(p) for p in frame.PlanePositionSequence[0].ImagePositionPatient]
    (k,) = [n for n, s in enumerate(of.volume.slices) if np.allclose(s.position, position, atol=1e-4)]
    return k


def check_references(of: Analysis, made_of: Dataset) -> None:
    for frame in made_of.PerFrameFunctionalGroupsSequence:
        source = of.volume.slices[slice_of(of, frame)]
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.sop_instance_uid
        assert image.ReferencedSOPClassUID == source.sop_class_uid
        assert image.get("ReferencedFrameNumber") == source.frame_number
    listed = [i for s in made_of.ReferencedSeriesSequence for i in s.ReferencedInstanceSequence]
    used = {
        f.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for f in made_of.PerFrameFunctionalGroupsSequence
    }
    assert sorted(i.ReferencedSOPInstanceUID for i in listed) == sorted(used)
    assert {i.ReferencedSOPClassUID for i in listed} == {of.volume.slices[0].sop_class_uid}
    shared = made_of.SharedFunctionalGroupsSequence[0]
    columns, rows = of.volume.affine[:3, 2] / 0.8, of.volume.affine[:3, 1] / 0.8
    assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, [*columns, *rows], atol=1e-5)
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == [0.8, 0.8]


@pytest.mark.parametrize("name", PLACED)
def test_every_voxel_of_every_node_is_in_its_segment_and_nothing_else(name: str) -> None:
    of = variants()[name]
    (seg,) = made(of)[ObjectRole.SEGMENTATION]
    check_references(of, seg)
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns).astype(bool)
    for number, finding in enumerate(of.findings, start=1):
        node, segment = finding.node, seg.SegmentSequence[number - 1]
        assert segment.SegmentNumber == number
        assert segment.TrackingUID == tracking_uid(of, node)
        assert segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning.lower() == node.side.value
        found = np.zeros(of.volume.voxels.shape, bool)
        for frame, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
            # With one segment the standard lets all frames share it.
            holder = groups if "SegmentIdentificationSequence" in groups else seg.SharedFunctionalGroupsSequence[0]
            if holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
                found[slice_of(of, groups)] |= frame
        expected = np.zeros_like(found)
        box = node.box
        if node.mask is None:
            # Only the outline is known: the measured slice, and there what the outline encloses.
            assert set(np.flatnonzero(found.any(axis=(1, 2)))) == {node.slice_index}
            assert 0.9 < found.sum() / (np.pi * 10 * 7) < 1.1
            continue
        expected[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1] = node.mask
        assert (found == expected).all()


def test_other_libraries_read_the_segmentation() -> None:
    of = analysis(2)
    (item,) = [i for i in report.build(of, EVERYTHING) if i.role is ObjectRole.SEGMENTATION]
    seg = highdicom.seg.segread(io.BytesIO(item.data))
    assert [d.segment_label for d in (seg.get_segment_description(n) for n in (1, 2))] == ["R node 1", "L node 2"]
    volume = seg.get_volume(segment_numbers=[1], rescale_fractional=False)
    inside = np.argwhere(volume.array[..., 0] if volume.array.ndim == 4 else volume.array)
    centre = volume.affine[:3, :3] @ inside.mean(axis=0) + volume.affine[:3, 3]
    assert np.allclose(centre, of.volume.patient_point(*of.findings[0].node.box.centre), atol=0.01)


@pytest.mark.parametrize("name", PLACED)
def test_the_hottest_pixel_of_a_map_is_where_the_crop_says(name: str) -> None:
    of = variants()[name]
    maps = made(of)[ObjectRole.PARAMETRIC_MAP]
    assert len(maps) == len({m.SeriesInstanceUID for m in maps}) == 2
    for crop, item in zip(Crop, maps, strict=True):
        check_references(of, item)
        pixels = np.frombuffer(item.FloatPixelData, np.float32).reshape(-1, item.Rows, item.Columns)
        assert pixels.min() == 0
        assert 90 < pixels.max() <= 100
        frames = {slice_of(of, groups): n for n, groups in enumerate(item.PerFrameFunctionalGroupsSequence)}
        for finding in of.findings:
            (heatmap,) = [h for h in finding.heatmaps if h.crop is crop]
            g = heatmap.geometry
            v, u = np.unravel_index(int(heatmap.values.argmax()), heatmap.values.shape)
            box, around = finding.node.box, pixels[frames[g.slice_index]].copy()
            near = np.zeros_like(around)
            near[box.j0 - 5 : box.j1 + 5, box.i0 - 5 : box.i1 + 5] = 1
            row, column = np.unravel_index(int((around * near).argmax()), around.shape)
            assert abs(row - (g.top + v * g.step_row)) <= 1
            assert abs(column - (g.left + u * g.step_column)) <= 1
        meaning = item.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert (meaning.RealWorldValueSlope, meaning.RealWorldValueIntercept) == (1, 0)
        assert meaning.MeasurementUnitsCodeSequence[0].CodeValue == "%"
        window = item.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
        assert (window.WindowCenter, window.WindowWidth) == (50, 100)


def test_a_map_object_names_the_nodes_whose_map_is_empty() -> None:
    of = emptied(analysis(2), Crop.ASC)
    fsc, asc = made(of)[ObjectRole.PARAMETRIC_MAP]
    assert fsc.ImageComments == of.model.banner
    assert asc.ImageComments.startswith(f"{of.model.banner}. Empty map of R node 1: no area raised the probability by 1 point")


def as_references(items: list[ResultObject]) -> tuple[ResultReference, ...]:
    return tuple(
        ResultReference(i.role, i.sop_class_uid, i.sop_instance_uid, i.series_instance_uid, i.study_instance_uid) for i in items
    )


def test_key_objects_are_the_suspicious_slices_most_probable_first() -> None:
    of = analysis(4)  # 0.91, 0.12, 0.66, 0.0 at an operating point of 0.5
    (ko,) = made(of)[ObjectRole.KEY_OBJECTS]
    shown = [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in ko.ContentSequence if i.ValueType == "IMAGE"]
    assert shown == [of.volume.slices[of.findings[n].node.slice_index].sop_instance_uid for n in (0, 2)]
    assert ko.ConceptNameCodeSequence[0].CodeValue == "113000"
    assert any("NOT FOR CLINICAL USE" in i.get("TextValue", "") for i in ko.ContentSequence)
    calm = replace(of, findings=of.findings[1::2])
    (ko,) = made(calm)[ObjectRole.KEY_OBJECTS]
    shown = [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in ko.ContentSequence if i.ValueType == "IMAGE"]
    assert shown == [of.volume.slices[of.findings[1].node.slice_index].sop_instance_uid]


def test_references_of_key_objects_have_no_purpose() -> None:
    """TID 2010 has no concept name in rows 8 to 10."""
    old = as_references(report.build(analysis(0), EVERYTHING))
    both = made(analysis(1), replace(EVERYTHING, superseded=old))
    for role in (ObjectRole.KEY_OBJECTS, ObjectRole.REJECTION):
        (found,) = both[role]
        items = [item for item in found.ContentSequence if item.ValueType in {"IMAGE", "COMPOSITE"}]
        assert items, role
        assert not any("ConceptNameCodeSequence" in item for item in items), role


def test_key_objects_name_the_frame_of_a_multi_frame_source() -> None:
    of = variants()["enhanced"]
    (ko,) = made(of)[ObjectRole.KEY_OBJECTS]
    frames = [i.ReferencedSOPSequence[0].ReferencedFrameNumber for i in ko.ContentSequence if i.ValueType == "IMAGE"]
    assert frames == [of.findings[0].node.slice_index + 1]


@pytest.mark.parametrize("name", PLACED)
def test_boxes_enclose_their_nodes_on_the_right_image(name: str) -> None:
    of = variants()[name]
    (pr,) = made(of)[ObjectRole.PRESENTATION_STATE]
    assert len(pr.GraphicAnnotationSequence) == len(of.findings)
    for finding, annotation in zip(of.findings, pr.GraphicAnnotationSequence, strict=True):
        source = of.volume.slices[finding.node.slice_index]
        (image,) = annotation.ReferencedImageSequence
        assert image.ReferencedSOPInstanceUID == source.sop_instance_uid
        assert image.get("ReferencedFrameNumber") == source.frame_number
        corners = np.array(annotation.GraphicObjectSequence[0].GraphicData).reshape(-1, 2)
        outline = np.array(finding.node.contour)
        assert (corners.min(axis=0) <= outline.min(axis=0)).all()
        assert (corners.max(axis=0) >= outline.max(axis=0)).all()
        assert f"node {finding.node.number}" in annotation.TextObjectSequence[0].UnformattedTextValue
    assert (pr.RescaleSlope, pr.RescaleIntercept) == (1, -1024)
    window = pr.SoftcopyVOILUTSequence[0]
    assert (window.WindowCenter, window.WindowWidth) == CONTEXT.window


def test_slices_with_another_rescale_get_a_state_of_their_own() -> None:
    of = analysis(2)
    changed = tuple(
        replace(s, rescale=(2.0, -512.0)) if k == of.findings[1].node.slice_index else s for k, s in enumerate(of.volume.slices)
    )
    states = made(replace(of, volume=replace(of.volume, slices=changed)))[ObjectRole.PRESENTATION_STATE]
    assert [(s.InstanceNumber, s.RescaleSlope, len(s.GraphicAnnotationSequence)) for s in states] == [(1, 1, 1), (2, 2, 1)]


@pytest.mark.parametrize("name", ["none", "one", "enhanced", "not-analysed", "twelve"])
def test_the_tree_names_every_other_object_once_and_holds_it_as_evidence(name: str) -> None:
    found = built(variants()[name], EVERYTHING)
    root = dcmread(io.BytesIO(found[-1].data))
    assert found[-1].role is ObjectRole.RESULTS_TREE
    others = sorted(item.sop_instance_uid for item in found[:-1])
    named = sorted(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in walk(root) if "ReferencedSOPSequence" in i)
    evidence = sorted(
        i.ReferencedSOPInstanceUID
        for study in root.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for i in series.ReferencedSOPSequence
    )
    assert named == others
    assert evidence == others
    assert root.ConceptNameCodeSequence[0].CodeValue != "126000"


def test_kinds_are_made_only_when_asked_for() -> None:
    of = analysis(1)
    assert set(made(of, CONTEXT)) == {ObjectRole.SR, ObjectRole.CAPTURE}
    only = replace(CONTEXT, options=ReportOptions(kinds=frozenset({ObjectRole.KEY_OBJECTS})))
    assert set(made(of, only)) == {ObjectRole.SR, ObjectRole.CAPTURE, ObjectRole.KEY_OBJECTS}
    assert set(made(analysis(0))) == {
        ObjectRole.SR,
        ObjectRole.CAPTURE,
        ObjectRole.RESULTS_TREE,
        ObjectRole.TEXT,
        ObjectRole.PDF,
    }


@pytest.mark.parametrize("name", ["one", "forty", "not-analysed"])
def test_the_pdf_says_the_answer_and_every_node(name: str) -> None:
    of = variants()[name]
    context = replace(CONTEXT, options=ReportOptions(kinds=frozenset({ObjectRole.PDF})))
    (item,) = made(of, context)[ObjectRole.PDF]
    assert (item.Modality, item.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    data = item.EncapsulatedDocument[: item.EncapsulatedDocumentLength]
    # Every object is where the table of cross-references says.
    table = re.search(rb"xref\n0 (\d+)\n(.*?)trailer", data, re.DOTALL)
    places = [int(line[:10]) for line in table[2].splitlines()[1:]]
    assert [data[place:].split(b" ", 1)[0] for place in places] == [b"%d" % (n + 1) for n in range(int(table[1]) - 1)]
    assert int(re.search(rb"startxref\n(\d+)", data)[1]) == data.index(b"xref")
    shown = [re.sub(rb"\\(.)", rb"\1", line).decode() for line in re.findall(rb"^\((.*)\) \'$", data, re.MULTILINE)]
    words_shown = " ".join(" ".join(shown).split())
    for line in answer.lines(of):
        assert " ".join(ascii_words(line).split()) in words_shown
    for finding in of.findings:
        assert words_shown.count(f"node {finding.node.number}: level") + words_shown.count(f"node {finding.node.number}: slice")
    assert max(map(len, shown)) <= encapsulated_pdf.COLUMNS
    assert data.count(b"/Type /Page ") == -(-len(shown) // encapsulated_pdf.ROWS)


@pytest.mark.parametrize("name", ["one", "none", "not-analysed", "enhanced"])
def test_the_text_is_a_basic_text_report_of_sentences(name: str) -> None:
    (text,) = made(variants()[name])[ObjectRole.TEXT]
    assert text.SOPClassUID == BasicTextSRStorage
    assert {item.ValueType for item in walk(text)} <= {"CONTAINER", "TEXT", "CODE", "UIDREF", "IMAGE"}
    (container, *_) = [item for item in text.ContentSequence if item.ValueType == "CONTAINER"]
    assert container.ConceptNameCodeSequence[0].CodeMeaning == "Conclusions"


def test_multi_frame_captures_hold_the_same_pages() -> None:
    of = analysis(2)
    single = [item.pixel_array for item in made(of, CONTEXT)[ObjectRole.CAPTURE]]
    many = replace(CONTEXT, options=ReportOptions(captures=CaptureForm.MULTIFRAME))
    (frames,) = made(of, many)[ObjectRole.CAPTURE]
    assert frames.NumberOfFrames == len(single) == 3
    assert (frames.pixel_array == np.stack(single)).all()
    assert list(frames.PageNumberVector) == [1, 2, 3]


@pytest.mark.parametrize("name", ["one", "none"])
def test_the_report_references_its_captures_and_has_the_wanted_class(name: str) -> None:
    for context, sop_class in ((CONTEXT, ComprehensiveSRStorage), (EVERYTHING, Comprehensive3DSRStorage)):
        found = made(variants()[name], context)
        (sr,) = found[ObjectRole.SR]
        assert sr.SOPClassUID == sop_class
        named = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in walk(sr) if "ReferencedSOPSequence" in i}
        assert {c.SOPInstanceUID for c in found[ObjectRole.CAPTURE]} <= named


@pytest.mark.parametrize("name", sorted(set(variants()) - {"forty"}))
def test_every_kind_is_of_the_patient_and_says_that_it_is_not_for_clinical_use(name: str) -> None:
    of = variants()[name]
    for items in made(of).values():
        for item in items:
            assert item.PatientID == "P-1"
            assert str(item.PatientName) == str(of.header.PatientName)
            assert item.StudyInstanceUID == of.header.StudyInstanceUID
            assert "NOT FOR CLINICAL USE" in item.SeriesDescription
            assert len(item.SeriesDescription) <= 64
            assert item.InstanceCreationDate == item.SeriesDate == "20260504"


def test_a_rejection_note_withdraws_every_object_that_is_replaced() -> None:
    """IHE IOCM: the title, its required reason first (TID 2010, CID 7011), and each object once, as image or as document."""
    first = report.build(analysis(2), EVERYTHING)
    old = as_references(first)
    second = report.build(analysis(2), replace(EVERYTHING, revision=2, superseded=old))
    note = dcmread(io.BytesIO(second[-1].data))
    assert second[-1].role is ObjectRole.REJECTION
    assert note.SOPClassUID == KeyObjectSelectionDocumentStorage
    assert note.SeriesInstanceUID not in {item.series_instance_uid for item in (*first, *second[:-1])}
    assert (note.ConceptNameCodeSequence[0].CodeValue, note.StudyInstanceUID) == ("113001", "2.25.11")
    reason = note.ContentSequence[0]
    assert (reason.RelationshipType, reason.ConceptNameCodeSequence[0].CodeValue) == ("HAS CONCEPT MOD", "113011")
    assert reason.ConceptCodeSequence[0].CodeValue == "111220"
    named = {
        i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: i.ValueType for i in walk(note) if "ReferencedSOPSequence" in i
    }
    images = {ObjectRole.CAPTURE, ObjectRole.SEGMENTATION, ObjectRole.PARAMETRIC_MAP}
    assert named == {one.sop_instance_uid: "IMAGE" if one.role in images else "COMPOSITE" for one in old}
    evidence = {
        (series.SeriesInstanceUID, i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID)
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for i in series.ReferencedSOPSequence
    }
    assert evidence == {(one.series_instance_uid, one.sop_class_uid, one.sop_instance_uid) for one in old}
    assert set(named).isdisjoint(item.sop_instance_uid for item in second)


def test_there_is_no_rejection_note_where_nobody_asks_for_it_or_nothing_is_replaced() -> None:
    old = (ResultReference(ObjectRole.SR, str(ComprehensiveSRStorage), "2.25.5", "2.25.6", "2.25.11"),)
    assert ObjectRole.REJECTION not in made(analysis(0), replace(CONTEXT, superseded=old))
    assert ObjectRole.REJECTION not in made(analysis(0), EVERYTHING)
    withdrawing = replace(CONTEXT, superseded=old, options=ReportOptions(kinds=frozenset({ObjectRole.REJECTION})))
    assert ObjectRole.REJECTION in made(variants()["not-analysed"], withdrawing)


@pytest.mark.parametrize("name", ["one", "none", "not-analysed", "enhanced"])
def test_one_setting_gives_what_ihe_ai_results_lists(name: str) -> None:
    found = made(variants()[name], replace(CONTEXT, options=Report(profile="air").options))
    ((report_of,), (root,)) = found[ObjectRole.SR], found[ObjectRole.RESULTS_TREE]
    assert report_of.SOPClassUID == root.SOPClassUID == Comprehensive3DSRStorage
    assert root.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert root.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    named = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in walk(root) if "ReferencedSOPSequence" in i}
    others = {item.SOPInstanceUID for role, items in found.items() for item in items if role is not ObjectRole.RESULTS_TREE}
    assert others <= named
    evidence = {
        i.ReferencedSOPInstanceUID
        for study in root.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for i in series.ReferencedSOPSequence
    }
    assert evidence == named
    assert Report().options.measurement_root is False


class PlainText:
    """A new kind of result object, as docs/architecture.md describes it: one module with ``KIND`` and ``build``."""

    # A role of its own would be a line in records.ObjectRole; here the role of the text report is free.
    KIND = ObjectKind(
        ObjectRole.TEXT, "plain text", 99, ObjectNature.DOCUMENT, Code("RESULT-PLAIN", codes.SCHEME, "Plain text")
    )

    def build(self, analysis: Analysis, context: ReportContext) -> list[ResultObject]:
        document = Dataset()
        document.SOPClassUID, document.Modality = RawDataStorage, "OT"
        document.SOPInstanceUID = result_uid(analysis, context, "plain", "instance")
        document.SeriesInstanceUID = result_uid(analysis, context, "plain", "series")
        document.SeriesNumber = series_number(analysis, self.KIND)
        document.ImageComments = " ".join(answer.lines(analysis))
        return [finish(document, analysis, context, self.KIND)]


def test_a_new_kind_is_one_module_and_one_line_in_the_table(monkeypatch) -> None:
    of = variants()["ordered"]
    others = tuple(module for module in kinds.REQUESTED if module.KIND.role is not ObjectRole.TEXT)
    monkeypatch.setattr(kinds, "REQUESTED", (*others, PlainText()))
    found = made(replace(of))  # a copy, of which no other test has built objects
    (plain,) = found[ObjectRole.TEXT]
    assert plain.PatientID == of.header.PatientID
    assert plain.SeriesDescription.startswith("AI nodes of series 4: plain text - DEMO")
    assert plain.SeriesNumber == 49099
    assert len(plain.ReferencedRequestSequence) == 2, "a document refers to its orders"
    (tree,) = found[ObjectRole.RESULTS_TREE]
    (named,) = [
        item for item in walk(tree) if item.get("ConceptNameCodeSequence", [Dataset()])[0].get("CodeValue") == "RESULT-PLAIN"
    ]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == plain.SOPInstanceUID


def test_kinds_have_a_place_of_their_own() -> None:
    known = list(kinds.by_role().values())
    assert {kind.role for kind in known} == set(ObjectRole)
    assert len({kind.series_place for kind in known}) == len(known)
    assert set(get_args(ResultKind)) == set(ObjectRole), "destinations can list every kind"
    requested = set(get_args(get_args(Report.model_fields["kinds"].annotation)[0]))
    assert requested == set(ObjectRole) - {ObjectRole.SR, ObjectRole.CAPTURE}, "the settings can request it"
    assert max(map(len, ObjectRole)) <= Result.__table__.c.role.type.length
    assert len(" ".join(ObjectRole)) <= Delivery.__table__.c.roles.type.length, "a delivery lists the roles that it sends"
    assert ObjectRole.PARAMETRIC_MAP in kinds.image_roles()
