"""The results in OHIF, a viewer that radiologists use, as served by Orthanc: what it lists, draws, restores and where.

Run by `make viewer`; needs Orthanc with its DICOMweb plugin, Chromium, and OHIF's build at ALNNODE_OHIF.
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import viewers as ohif
from analyses import CONTEXT, analysis, followed
from sources import ct_files
from viewers import VIEWPORTS, Study

from alnnode import report
from alnnode.records import Analysis, Crop, ObjectRole, ReportContext, ReportOptions
from alnnode.report import wording
from alnnode.report.objects.parametric_map import on_raster

DIST = os.environ.get("ALNNODE_OHIF")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not DIST, reason="needs a browser: `make viewer` runs it"),
]
KINDS = frozenset({ObjectRole.SEGMENTATION, ObjectRole.PARAMETRIC_MAP, ObjectRole.RESULTS_TREE})
# Each kind in its default form: `[report] map_frames` stays as a site finds it.
SHOWN = replace(CONTEXT, options=ReportOptions(kinds=KINDS))
SERIES = {ObjectRole.SR: "S:9001", ObjectRole.CAPTURE: "S:9002", ObjectRole.SEGMENTATION: "S:9003", Crop.FSC: "S:9004"}
# Which voxels of which source image carry which segment.
LABELS = """() => {
  const {imageIds} = window.services.segmentationService.getSegmentations()[0].representationData.Labelmap;
  return imageIds.flatMap(id => {
    const image = window.cornerstone.cache.getImage(id), data = image.voxelManager.getScalarData();
    const source = image.referencedImageId.split('/instances/')[1].split('/')[0];
    return Array.from(data).flatMap((segment, place) => segment ? [[source, place, segment]] : []);
  });
}"""
# The voxels of the map's volume on one slice, with the slice's own place in the patient.
MAP = """() => {
  const id = [...window.cornerstone.cache._volumeCache.keys()].find(id => id.startsWith('pmap.'));
  const volume = window.cornerstone.cache.getVolume(id);
  return {dimensions: volume.dimensions, origin: volume.origin, direction: Array.from(volume.direction), spacing: volume.spacing,
          values: Array.from(volume.voxelManager.getCompleteScalarDataArray())};
}"""

CT_SHOWN = f"() => {VIEWPORTS}.some(v => v.type === 'stack' && v.getImageIds?.().length === 12 && v.getImageData?.())"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with ohif.orthanc(tmp_path_factory.mktemp("pacs")) as (root, _), ohif.viewer(Path(str(DIST)), root) as url:
        yield root, url


STUDIES = {
    "axial": lambda: followed(analysis(2)),
    "feet-first": lambda: analysis(2, feet_first=True),
    "oblique": lambda: analysis(2, tilt=20.0),
    "one-node": lambda: analysis(1),
}


def stored(root: str, of: Analysis, number: int, context: ReportContext = SHOWN) -> Analysis:
    """Store a study and its results. Several are in one PACS at once: each has its own UIDs."""
    of.header.StudyInstanceUID, of.header.SeriesInstanceUID = f"2.25.11{number}", f"2.25.12{number}"
    of.header.FrameOfReferenceUID = f"2.25.13{number}"
    slices = tuple(replace(s, sop_instance_uid=f"2.25.{9000 + 100 * number + k}") for k, s in enumerate(of.volume.slices))
    of = replace(of, volume=replace(of.volume, slices=slices))
    for data in ct_files(of.volume):
        ohif.post(root, data)
    for item in report.build(of, replace(context, input_digest=f"{number:02d}" * 32)):
        ohif.post(root, item.data)
    return of


@pytest.fixture(scope="module", params=STUDIES)
def opened(request, browser, served):
    root, url = served
    of = stored(root, STUDIES[request.param](), list(STUDIES).index(request.param))
    page = browser.new_page(viewport={"width": 1600, "height": 950})
    yield of, Study(page, url, str(of.header.StudyInstanceUID))
    page.close()


def test_every_result_is_listed_as_something_that_can_be_opened(opened) -> None:
    _, study = opened
    listed = study.listed()
    assert set(listed) == {"CT 1", "OT 9002", "PMAP 9004", "PMAP 9005", "SEG 9003", "SR 9001", "SR 9008"}
    assert not any(unsupported for _, unsupported in listed.values())


def test_the_masks_lie_on_exactly_the_voxels_of_the_nodes(opened) -> None:
    of, study = opened
    study.open("S:9003")
    study.until(
        "() => window.services.segmentationService.getSegmentations()[0]?.representationData?.Labelmap?.imageIds?.length"
    )
    study.page.wait_for_timeout(2000)
    slice_of = {s.sop_instance_uid: k for k, s in enumerate(of.volume.slices)}
    found = np.zeros(of.volume.voxels.shape, np.uint8)
    for source, place, segment in study.page.evaluate(LABELS):
        found[slice_of[source]].flat[place] = segment
    for number, finding in enumerate(of.findings, start=1):
        expected, box = np.zeros(found.shape, bool), finding.node.box
        expected[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1] = finding.node.mask
        assert ((found == number) == expected).all()


def test_the_maps_are_hottest_where_the_networks_looked(opened) -> None:
    of, study = opened
    study.open("S:9004")
    study.until("() => [...window.cornerstone.cache._volumeCache.keys()].some(id => id.startsWith('pmap.'))")
    study.page.wait_for_timeout(3000)
    shown = study.page.evaluate(MAP)
    columns, rows, slices = shown["dimensions"]
    values = np.array(shown["values"]).reshape(slices, rows, columns)
    axes = np.array(shown["direction"]).reshape(3, 3) * np.array(shown["spacing"])[:, None]
    for finding in of.findings:
        (heatmap,) = [h for h in finding.heatmaps if h.crop is Crop.FSC]
        raster = on_raster(heatmap, (rows, columns))
        j, i = np.unravel_index(int(raster.argmax()), raster.shape)
        wanted = np.array(of.volume.patient_point(finding.node.slice_index, j, i))
        # Where OHIF's own geometry puts the hottest voxel of the slice on which the node was classified.
        k = round(float(np.linalg.solve(axes.T, wanted - np.array(shown["origin"]))[2]))
        hot_row, hot_column = np.unravel_index(int(values[k].argmax()), (rows, columns))
        shown_at = np.array(shown["origin"]) + np.array([hot_column, hot_row, k]) @ axes
        assert np.abs(shown_at - wanted).max() <= 0.8  # one pixel, mm
        others = [f.node.slice_index for f in of.findings]
        assert sum(float(np.abs(plane).max()) > 0 for plane in values) == len(set(others))


def test_the_report_opens_and_every_measurement_is_restored_in_its_place(opened) -> None:
    of, study = opened
    study.open("S:9001")
    study.accept()
    study.until("([n]) => window.services.measurementService.getMeasurements().length === n", len(of.findings))
    measurements = study.page.evaluate(
        "() => window.services.measurementService.getMeasurements()"
        ".map(m => ({tool: m.toolName, label: m.label, points: m.points, source: m.SOPInstanceUID}))"
    )
    for finding, shown in zip(wording.by_probability(of.findings), measurements, strict=True):
        node = finding.node
        assert shown["tool"] == "Bidirectional"
        assert shown["label"].startswith(f"{node.side.value[0].upper()} node {node.number}: ")
        assert shown["source"] == of.volume.slices[node.slice_index].sop_instance_uid
        ends = [*(node.long_axis.start, node.long_axis.end), *(node.short_axis.start, node.short_axis.end)]
        wanted = [of.volume.patient_point(node.slice_index, row - 0.5, column - 0.5) for column, row in ends]
        assert np.abs(np.array(shown["points"]) - np.array(wanted)).max() < 0.01  # mm
    rows = " ".join(study.panel())
    for finding in of.findings:
        assert f"node {finding.node.number}: " in rows
        assert f"probability {wording.ensemble_probability(finding, of)}" in rows
    assert not study.errors


def test_every_node_is_restored_once_and_the_most_suspicious_first(browser, served) -> None:
    """Six nodes in three groups each, whose numbers are not in the order of their probabilities."""
    root, url = served
    of = stored(root, analysis(6), 5)
    page = browser.new_page(viewport={"width": 1600, "height": 950})
    study = Study(page, url, str(of.header.StudyInstanceUID))
    before = study.colours()
    study.open("S:9001")
    study.accept()
    study.until("() => window.services.measurementService.getMeasurements().length >= 6")
    page.wait_for_timeout(3000)  # a seventh would come now
    order = ["R node 1: probability 91 %", "R node 5: probability 91 %", "R node 3: probability 66 %",
             "L node 2: probability 12 %", "L node 6: probability 12 %", "L node 4: probability below 1 %"]  # fmt: skip
    labels = page.evaluate("() => window.services.measurementService.getMeasurements().map(m => m.label)")
    assert labels == [f"{label} (demonstration model)" for label in order]
    rows = study.panel()
    assert [[label in row for label in order] for row in rows] == [[n == k for n in range(6)] for k in range(6)]
    assert study.colours() == before
    assert not study.errors
    page.close()


def test_the_ct_keeps_its_colours_after_every_result_but_the_map(browser, served) -> None:
    root, url = served
    of = stored(root, analysis(2), 7, replace(SHOWN, options=ReportOptions(kinds=KINDS - {ObjectRole.PARAMETRIC_MAP})))
    page = browser.new_page(viewport={"width": 1600, "height": 950})
    study = Study(page, url, str(of.header.StudyInstanceUID))
    before = study.colours()
    for series in ("S:9002", "S:9003", "S:9008", "S:9001"):
        study.open(series)
        page.wait_for_timeout(3000)
        study.open("S:1")
        study.until(CT_SHOWN)
        assert study.colours() == before, series
    assert not study.errors
    page.close()


def test_reset_view_gives_the_ct_its_colours_back_after_a_map(browser, served) -> None:
    """OHIF 3.13 itself writes the map's colours and window into the viewport, whatever is in the object (docs/reporting.md)."""
    root, url = served
    of = stored(root, analysis(2), 8)
    page = browser.new_page(viewport={"width": 1600, "height": 950})
    study = Study(page, url, str(of.header.StudyInstanceUID))
    (before,) = study.colours().values()
    study.open("S:9004")
    study.until("() => [...window.cornerstone.cache._volumeCache.keys()].some(id => id.startsWith('pmap.'))")
    study.open("S:1")
    study.until(CT_SHOWN)
    study.until(f"() => {VIEWPORTS}[0].getProperties().colormap?.name === 'rainbow_2'")
    page.evaluate("() => window.commandsManager.runCommand('resetViewport')")
    study.until(f"() => {VIEWPORTS}[0].getProperties().colormap?.name !== 'rainbow_2'")
    (after,) = study.colours().values()
    assert (after["window"], after["colours"]) == (before["window"], "Grayscale")
    page.close()


def test_a_map_in_a_viewport_of_its_own_leaves_the_ct_as_it_is(browser, served) -> None:
    root, url = served
    of = stored(root, analysis(2), 9)
    page = browser.new_page(viewport={"width": 1600, "height": 950})
    study = Study(page, url, str(of.header.StudyInstanceUID))
    ((name, before),) = study.colours().items()
    page.evaluate("() => window.commandsManager.runCommand('setViewportGridLayout', {numRows: 1, numCols: 2})")
    study.until(f"() => {VIEWPORTS}.length === 2")
    (other,) = set(study.colours()) - {name}
    page.evaluate("([id]) => window.services.viewportGridService.setActiveViewportId(id)", [other])
    for number, series in enumerate(("S:9004", "S:9005"), start=1):
        study.open(series)
        study.until(f"() => {VIEWPORTS}.some(v => v.type === 'orthographic')")
        study.until(
            "([n]) => [...window.cornerstone.cache._volumeCache.keys()].filter(id => id.startsWith('pmap.')).length === n",
            number,
        )
        page.wait_for_timeout(3000)
        assert study.colours()[name] == before, series
    assert not study.errors
    page.close()


def test_a_negative_and_an_unanalysed_series_open_as_text(browser, served) -> None:
    root, url = served
    quiet = stored(root, analysis(0), 6, CONTEXT)
    page = browser.new_page(viewport={"width": 1600, "height": 950})
    study = Study(page, url, str(quiet.header.StudyInstanceUID))
    study.open("S:9001")
    page.get_by_text("no axillary lymph node found").first.wait_for(timeout=30_000)
    assert not study.errors
    page.close()


def test_pictures_of_a_phantom_for_the_documentation(browser, served, phantom) -> None:
    from pydicom import dcmread

    root, url = served
    paths = [*phantom[0].rglob("*.dcm"), *phantom[1].rglob("*.dcm")]
    for path in paths:
        ohif.post(root, path.read_bytes())
    nodes = len(list(phantom[1].glob("capture-*.dcm"))) - 1
    assert nodes > 0
    page = browser.new_page(viewport={"width": 1600, "height": 950})
    study = Study(page, url, str(dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID))
    study.open("S:19003")
    study.until("() => window.services.segmentationService.getSegmentations().length > 0")
    study.open("S:19001")
    study.accept()
    study.until("([n]) => window.services.measurementService.getMeasurements().length === n", nodes)
    found = json.loads((phantom[1] / "result.json").read_text(encoding="utf-8"))["nodes"]
    found.sort(key=lambda node: -node["probability"])
    shown = [re.findall(r"([RL]) node (\d+):", row) for row in study.panel()]
    assert shown == [[(node["side"][0].upper(), str(node["number"]))] for node in found]
    page.locator("[data-cy=data-row]").first.click(timeout=10_000)
    study.picture("ohif-report.png")
    study.open("S:19002")
    page.wait_for_timeout(4000)
    study.picture("ohif-capture.png")
    assert not study.errors
    page.close()
