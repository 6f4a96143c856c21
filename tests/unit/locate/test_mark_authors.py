"""Who drew a mark is read from its object: a reader, a reader with software, or other software."""

from __future__ import annotations

from dataclasses import replace

import marked
import pytest
from hostile import damage, edits
from hypothesis import given, settings

from alnnode import phantom
from alnnode.imaging.series import read_volume
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.marks.nodes import nodes_from_marks
from alnnode.locate.marks.reading import read_marks, read_marks_in_folder
from alnnode.locate.measure import node_from_mask
from alnnode.phantom import PhantomSettings
from alnnode.records import NodeSource, Side

DEVICE = marked.content(
    "CODE", marked.code("121005"), "HAS OBS CONTEXT", ConceptCodeSequence=[marked.code("121007", "DCM", "Device")]
)
PERSON = marked.content(
    "CODE", marked.code("121005"), "HAS OBS CONTEXT", ConceptCodeSequence=[marked.code("121006", "DCM", "Person")]
)
DEVICE_UID = marked.content("UIDREF", marked.code("121012"), "HAS OBS CONTEXT", UID="2.25.99")
ALGORITHM = marked.content("TEXT", marked.code("111001"), "HAS CONCEPT MOD", TextValue="NodeNet")
MEAN = marked.number(marked.code("112031"), 40.0, [ALGORITHM])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A volume, its chest, and its true nodes with their masks."""
    options = PhantomSettings(size=256, slices=(40, 40), thickness_mm=(2.5, 2.5), spacing_mm=(1.4, 1.4), min_nodes_per_side=2)
    patient = phantom.make_patient(7, 0, options)
    volume = read_volume(phantom.write_series(patient, tmp_path_factory.mktemp("ct")))
    masks = [patient.labels == truth.number for truth in sorted(patient.nodes, key=lambda n: -n.short_axis_mm)[:4]]
    nodes = [node_from_mask(volume, mask, (0, 0, 0), Side.LEFT, 1) for mask in masks]
    return ChestAnatomy(volume), list(zip(nodes, masks, strict=True))


def report(chest, node, observers=(), in_group=(), uid="2.25.7"):
    """A report with one node, with these observers in place of the person that OHIF names."""
    drawn = marked.bidirectional(chest.volume, node, uid, "lymph node")
    drawn.ContentSequence = [*in_group, *drawn.ContentSequence]
    made = marked.report(chest.volume, [drawn])
    if observers:
        made.ContentSequence = [*observers, *made.ContentSequence[1:]]
    return made


@pytest.mark.parametrize(
    ("observers", "in_group", "author"),
    [
        ((), (), NodeSource.READER),
        ((PERSON,), (), NodeSource.READER),
        ((DEVICE,), (), NodeSource.DEVICE),
        ((DEVICE_UID,), (), NodeSource.DEVICE),
        ((PERSON, DEVICE), (), NodeSource.ASSISTED),
        ((PERSON,), (ALGORITHM,), NodeSource.ASSISTED),
        ((DEVICE,), (ALGORITHM,), NodeSource.DEVICE),
        ((PERSON,), (DEVICE,), NodeSource.DEVICE),  # the group has an observer of its own
        ((DEVICE,), (PERSON,), NodeSource.READER),
        ((PERSON,), (MEAN,), NodeSource.READER),  # the algorithm measured a mean, and drew nothing
    ],
)
def test_the_author_of_a_report_is_its_observer_or_algorithm(made, tmp_path, observers, in_group, author) -> None:
    chest, nodes = made
    (mark,) = read_marks(marked.write(report(chest, nodes[0][0], observers, in_group), tmp_path)).marks
    assert mark.author is author


def test_an_algorithm_of_a_group_without_observers_drew_it(made, tmp_path) -> None:
    chest, nodes = made
    written = report(chest, nodes[0][0], in_group=[ALGORITHM])
    written.ContentSequence = written.ContentSequence[1:]
    (mark,) = read_marks(marked.write(written, tmp_path)).marks
    assert mark.author is NodeSource.DEVICE


@pytest.mark.parametrize(
    ("stated", "author"),
    [
        ("AUTOMATIC", NodeSource.DEVICE),
        ("SEMIAUTOMATIC", NodeSource.ASSISTED),
        ("MANUAL", NodeSource.READER),
        ("", NodeSource.READER),
    ],
)
def test_the_author_of_a_segment_or_an_roi_is_its_algorithm_type(made, tmp_path, stated, author) -> None:
    chest, nodes = made
    node, mask = nodes[0]
    seg = marked.segmentation(chest.volume, [("node", "2.25.8", mask)])
    structures = marked.structures(chest.volume, [("node", [(node.slice_index, node.contour)])], number=2)
    seg.SegmentSequence[0].SegmentAlgorithmType = stated
    structures.StructureSetROISequence[0].ROIGenerationAlgorithm = stated
    for written in (seg, structures):
        (found,), _ = nodes_from_marks(chest, [read_marks(marked.write(written, tmp_path))])
        assert found.source is author


def test_marks_without_a_tracking_uid_are_told_apart_and_keep_none(made, tmp_path) -> None:
    chest, nodes = made
    contours = [(f"node {n}", [(node.slice_index, node.contour)]) for n, (node, _) in enumerate(nodes[:2])]
    written = marked.structures(chest.volume, contours)
    written.StructureSetROISequence[1].ROIGenerationAlgorithm = "AUTOMATIC"
    found, _ = nodes_from_marks(chest, list(read_marks_in_folder(marked.write(written, tmp_path / "marks").parent)))
    assert {node.source: node.tracking_uid for node in found} == {NodeSource.READER: None, NodeSource.DEVICE: None}
    by_place = {node.source: node.slice_index for node in found}
    assert by_place[NodeSource.DEVICE] == nodes[1][0].slice_index


@pytest.mark.parametrize(
    ("stated", "observers", "author"),
    [
        ("AUTOMATIC", (), NodeSource.ASSISTED),
        ("SEMIAUTOMATIC", (), NodeSource.ASSISTED),
        ("MANUAL", (), NodeSource.READER),
        ("MANUAL", (DEVICE,), NodeSource.READER),  # the software measured what a reader drew
        ("SEMIAUTOMATIC", (DEVICE,), NodeSource.ASSISTED),
        ("AUTOMATIC", (DEVICE,), NodeSource.DEVICE),
        ("MANUAL", (PERSON, DEVICE), NodeSource.ASSISTED),
    ],
)
def test_a_reader_who_reports_the_segment_of_software_marked_with_it(made, tmp_path, stated, observers, author) -> None:
    chest, nodes = made
    seg = marked.segmentation(chest.volume, [("node", "2.25.8", nodes[0][1])])
    seg.SegmentSequence[0].SegmentAlgorithmType = stated
    of_segment = marked.item(
        ReferencedSOPClassUID=marked.SEG, ReferencedSOPInstanceUID=seg.SOPInstanceUID, ReferencedSegmentNumber=1
    )
    named = marked.content("IMAGE", marked.code("121191"), ReferencedSOPSequence=[of_segment])
    written = marked.report(chest.volume, [marked.group("2.25.9", "Segmentation", [named])], number=2)
    if observers:
        written.ContentSequence = [*observers, *written.ContentSequence[1:]]
    objects = [read_marks(marked.write(one, tmp_path)) for one in (seg, written)]
    (found,), _ = nodes_from_marks(chest, objects)
    assert (found.tracking_uid, found.source) == ("2.25.9", author)


def test_the_author_does_not_decide_which_marks_are_used(made, tmp_path) -> None:
    chest, nodes = made
    first, second = (node for node, _ in nodes[:2])
    older = report(chest, first, [DEVICE])
    newer = report(chest, second, [PERSON])  # a later version of the same mark
    newer.SOPInstanceUID, newer.ContentTime = f"{marked.ROOT}.9", "110000"
    lung = replace(first, slice_index=2)
    other = report(chest, lung, [DEVICE], uid="2.25.10")
    other.SOPInstanceUID = f"{marked.ROOT}.10"
    other.ContentSequence[-1].ContentSequence[0].ContentSequence[2].ConceptCodeSequence[0].CodeMeaning = "lesion"
    for written in (older, newer, other):
        written.file_meta.MediaStorageSOPInstanceUID = written.SOPInstanceUID
    objects = [read_marks(marked.write(one, tmp_path)) for one in (older, newer, other)]
    of_reader = [replace(one, marks=tuple(replace(mark, author=NodeSource.READER) for mark in one.marks)) for one in objects]
    plain, remarks = nodes_from_marks(chest, of_reader)
    found, said = nodes_from_marks(chest, objects)
    assert [replace(node, source=NodeSource.READER) for node in found] == plain
    assert [node.source for node in found if node.tracking_uid == "2.25.7"] == [NodeSource.READER]
    assert len(said) == len(remarks)
    assert not [remark for remark in said if "reader" in remark]


@settings(max_examples=40, deadline=None)
@given(edits)
def test_damaged_objects_have_an_author_too(made, tmp_path_factory, change) -> None:
    chest, nodes = made
    node, mask = nodes[0]
    folder = tmp_path_factory.mktemp("damaged")
    for written in (report(chest, node, [DEVICE], [ALGORITHM]), marked.segmentation(chest.volume, [("node", "2.25.8", mask)])):
        path = marked.write(written, folder)
        path.write_bytes(damage(path.read_bytes(), change, head=2000))
        assert all(mark.author.is_mark for mark in read_marks(path).marks)
