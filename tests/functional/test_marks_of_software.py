"""Marks that other software drew, from the file to the results: no result calls them a reader's."""

from __future__ import annotations

import json

import marked
import pytest
from pydicom import dcmread
from serving import tracked

from alnnode import phantom, pipeline
from alnnode.cli.offline import OfflineAnalysis
from alnnode.imaging.series import read_volume
from alnnode.locate.measure import node_from_mask
from alnnode.model import bundle as bundles
from alnnode.records import Side
from alnnode.report.capture import canvas
from alnnode.settings import Settings

SHORT = phantom.PhantomSettings(slices=(60, 60), thickness_mm=(2.5, 2.5), min_nodes_per_side=3, max_nodes_per_side=3)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of a series with three marks, and the texts of their pages: of a device, of an automatic segment, of a reader."""
    folder = tmp_path_factory.mktemp("marks")
    made = phantom.make_patient(60606, 0, SHORT)
    volume = read_volume(phantom.write_series(made, folder / "study"))
    masks = [made.labels == truth.number for truth in sorted(made.nodes, key=lambda node: -node.short_axis_mm)[:3]]
    nodes = [node_from_mask(volume, mask, (0, 0, 0), Side.LEFT, 1) for mask in masks]
    device = marked.code("121007", "DCM", "Device")
    observer = marked.content("CODE", marked.code("121005"), "HAS OBS CONTEXT", ConceptCodeSequence=[device])
    of_device = marked.report(volume, [marked.bidirectional(volume, nodes[0], "2.25.71")])
    of_device.ContentSequence = [observer, *of_device.ContentSequence[1:]]
    segment = marked.segmentation(volume, [("node", "2.25.72", masks[1])], number=2)
    segment.SegmentSequence[0].SegmentAlgorithmType = "SEMIAUTOMATIC"
    of_reader = marked.report(volume, [marked.bidirectional(volume, nodes[2], "2.25.73")], number=3)
    for one in (of_device, segment, of_reader):
        marked.write(one, folder / "study" / "marks")
    settings = Settings()
    settings = settings.model_copy(update={"report": settings.report.model_copy(update={"kinds": ("seg", "rtstruct")})})
    models = pipeline.Models.load(bundles.load(bundles.resolve("demo")), "cpu")
    texts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        draw = canvas.text
        patch.setattr(canvas, "text", lambda pen, at, words, *rest: texts.append(words) or draw(pen, at, words, *rest))
        list(OfflineAnalysis(settings, models, lambda _: None).analyse_folder(folder / "study", folder / "out"))
    return folder / "out", texts


def test_the_data_of_a_result_name_the_author_of_each_mark(results) -> None:
    out, _ = results
    said = json.loads((out / "result.json").read_text(encoding="utf-8"))
    sources = {node["tracking_uid"]: node["source"] for node in said["nodes"] if node["tracking_uid"].startswith("2.25.7")}
    sources = {uid: source for uid, source in sources.items() if len(uid) == 7}
    assert sources == {"2.25.71": "device", "2.25.72": "reader with software", "2.25.73": "reader"}
    conclusion = next(line for line in said["text"] if line.startswith("Analysed: "))
    assert "1 marked by the reader, 1 marked by a reader with software, 1 marked by other software)" in conclusion


def test_the_coded_report_names_the_author_of_each_mark(results) -> None:
    out, _ = results
    located = tracked(dcmread(out / "sr.dcm"))
    assert [located[f"2.25.7{n}"] for n in (1, 2, 3)] == [{"121007"}, {"READER-SOFTWARE"}, {"READER"}]


def test_the_pages_name_the_author_of_each_mark(results) -> None:
    _, texts = results
    pages = [line for line in texts if line.startswith("marked by")]
    assert sorted(line.split(";")[0] for line in pages) == [
        "marked by a reader with software",
        "marked by other software",
        "marked by the reader",
    ]


def test_masks_and_contours_state_how_they_were_drawn(results) -> None:
    out, _ = results
    segments = {item.TrackingUID: item.SegmentAlgorithmType for item in dcmread(out / "seg.dcm").SegmentSequence}
    assert [segments[f"2.25.7{n}"] for n in (1, 2, 3)] == ["AUTOMATIC", "SEMIAUTOMATIC", "SEMIAUTOMATIC"]
    rois = [item.ROIGenerationAlgorithm for item in dcmread(out / "rtstruct.dcm").StructureSetROISequence]
    assert sorted(rois) == sorted(segments.values())
