"""A reader draws nodes in OHIF and stores them: the archive's copy of what OHIF wrote becomes classified nodes under the same tracking UIDs."""

from __future__ import annotations

import io
import json
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import viewers as ohif
from listening import wait_for
from pydicom import Dataset, dcmread
from serving import serving, tracked
from viewers import Study, orthanc, post

from alnnode import phantom
from alnnode.imaging.series import read_volume
from alnnode.locate.measure import node_from_mask
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Node, Volume

DIST = os.environ.get("ALNNODE_OHIF")
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not DIST, reason="needs a browser: `make viewer` runs it"),
]
# Shows an image, and says where on the page points of the patient lie.
PLACES = """async ([source, points]) => {
  const viewport = window.services.cornerstoneViewportService.getRenderingEngine().getViewports()[0];
  await viewport.setImageIdIndex(viewport.getImageIds().findIndex(id => id.includes('/instances/' + source + '/')));
  viewport.render();
  const box = viewport.element.getBoundingClientRect();
  return points.map(point => viewport.worldToCanvas(point)).map(([x, y]) => [box.x + x, box.y + y]);
}"""
DRAWN = "([n]) => window.services.measurementService.getMeasurements().length === n"


class Archive:
    """What a test asks of Orthanc."""

    def __init__(self, root: str) -> None:
        self._root = root

    def ask(self, path: str, body: object = None, method: str | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self._root + path, data=data, method=method), timeout=120) as answer:
            return answer.read()

    def reports(self) -> list[tuple[str, Dataset]]:
        """Return the structured reports, each with Orthanc's name of it."""
        found = json.loads(self.ask("/tools/find", {"Level": "Instance", "Query": {"Modality": "SR"}}))
        return [(name, dcmread(io.BytesIO(self.ask(f"/instances/{name}/file")))) for name in found]

    def route(self, *names: str) -> None:
        """Send objects to the node by C-STORE, as a route of an archive does."""
        self.ask("/modalities/node/store", {"Resources": list(names), "Synchronous": True})


def draw(study: Study, tool: str, source: str, ends: Sequence[Sequence[float]]) -> None:
    """Press at the first point, drag to the second, release."""
    command = "tool => window.commandsManager.runCommand('setToolActiveToolbar', {toolName: tool})"
    study.page.evaluate(command, tool)
    (x0, y0), (x1, y1) = study.page.evaluate(PLACES, [source, ends])
    mouse = study.page.mouse
    mouse.move(x0, y0)
    mouse.down()
    mouse.move(x1, y1, steps=8)
    mouse.up()


def strokes(volume: Volume, node: Node, tool: str) -> list[tuple[float, float, float]]:
    """Return the two points (mm, LPS) between which a reader draws."""
    ends = [node.long_axis.start, node.long_axis.end]
    if tool == "RectangleROI":
        outline = np.array(node.contour)
        ends = [outline.min(axis=0), outline.max(axis=0)]
    return [volume.patient_point(node.slice_index, float(row) - 0.5, float(column) - 0.5) for column, row in ends]


def groups(report: Dataset) -> dict[str, list[Dataset]]:
    """Return the measurement groups of a report by tracking UID."""
    found: dict[str, list[Dataset]] = {}
    (measurements,) = [c for c in report.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "126010"]
    for group in measurements.ContentSequence:
        uid = next(str(c.UID) for c in group.ContentSequence if c.ValueType == "UIDREF")
        found.setdefault(uid, []).append(group)
    return found


def draw_and_store(study: Study, volume: Volume, tools: dict[str, Node]) -> None:
    """Draw a node with each tool, and have OHIF store its report in the archive."""
    for number, (tool, node) in enumerate(tools.items(), start=1):
        draw(study, tool, volume.slices[node.slice_index].sop_instance_uid, strokes(volume, node, tool))
        if number == 1:
            study.accept()  # OHIF asks once whether to track the measurements of this series
        study.until(DRAWN, number)
    assert len(study.panel()) == len(tools)
    study.page.locator("[data-cy=data-row]").first.click()
    study.picture("ohif-mark.png")
    study.page.get_by_text("Create SR").first.click()
    study.page.get_by_role("button", name="Save").click()


def test_nodes_drawn_in_ohif_become_classified_nodes_under_their_tracking_uids(browser, tmp_path: Path) -> None:
    patient = phantom.make_patient(3, 0)
    images = phantom.write_series(patient, tmp_path / "study")
    volume = read_volume(images)
    nodes = [node_from_mask(volume, patient.labels == t.number, (0, 0, 0), t.side, t.number) for t in patient.nodes]
    nodes.sort(key=lambda node: node.short_axis.length_mm)
    tools = dict(zip(("Bidirectional", "Length", "RectangleROI"), nodes, strict=False))
    study_uid = str(volume.header.StudyInstanceUID)
    for name in ("pacs", "node"):
        (tmp_path / name).mkdir()
    with (
        orthanc(tmp_path / "pacs") as (root, dicom),
        serving(tmp_path / "node", "demo", pacs_port=dicom, analysis=()) as node,
        ohif.viewer(Path(str(DIST)), root) as url,
    ):
        pacs = Archive(root)
        pacs.ask("/modalities/node", ["ALNNODE", "127.0.0.1", node.port], "PUT")

        def delivered(count: int) -> bool:
            return [job.state for job in node.jobs.list()].count(JobState.DELIVERED) == count

        pacs.route(*(post(root, path.read_bytes()) for path in images))
        wait_for(lambda: delivered(1), 300)
        ((_, first),) = pacs.reports()

        page = browser.new_page(viewport={"width": 1600, "height": 950})
        draw_and_store(Study(page, url, study_uid), volume, tools)
        ((name, stored),) = wait_for(lambda: [one for one in pacs.reports() if one[1].Manufacturer != first.Manufacturer], 60)
        page.close()
        marks = {group[0].ContentSequence[0].TextValue.split(":")[1]: uid for uid, group in groups(stored).items()}
        assert set(marks) == set(tools)
        assert not set(marks.values()) & set(groups(first))

        pacs.route(name)
        wait_for(lambda: delivered(2), 300)
        (second,) = [report for _, report in pacs.reports() if "PredecessorDocumentsSequence" in report]
        found = groups(second)
        assert set(found) >= set(marks.values())
        for tool, uid in marks.items():
            assert tracked(second)[uid] == {"READER"}
            text = str(found[uid])
            assert "Probability, demonstration model" in text
            assert volume.slices[tools[tool].slice_index].sop_instance_uid in text

        page = browser.new_page(viewport={"width": 1600, "height": 950})
        study = Study(page, url, study_uid)
        study.open_object(str(second.SOPInstanceUID))
        study.accept()
        study.until(DRAWN, len(found))
        assert len(study.panel()) == len(found)
        page.locator("[data-cy=data-row]").nth(list(found).index(marks["Bidirectional"])).click()
        study.picture("ohif-marked.png")
        assert not study.errors
        page.close()
