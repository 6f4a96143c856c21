"""OHIF opens a study, its report and its captures straight from the node: no PACS anywhere."""

import os
from pathlib import Path

import httpx
import pytest
import viewers as ohif
from held import analysed, received
from pydicom import dcmread
from viewers import Study
from web_service import server

from alnnode.records import ObjectRole, ResultObject

DIST = os.environ.get("ALNNODE_OHIF")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not DIST, reason="needs a browser: `make viewer` runs it"),
]
ROLES = {"SR": ObjectRole.SR, "SEG": ObjectRole.SEGMENTATION}


def result(path: Path) -> ResultObject:
    header = dcmread(path, stop_before_pixels=True)
    return ResultObject(
        ROLES.get(header.Modality, ObjectRole.CAPTURE), str(header.SOPClassUID), str(header.SOPInstanceUID),
        str(header.SeriesInstanceUID), str(header.StudyInstanceUID), str(header.file_meta.TransferSyntaxUID), path.read_bytes(),
    )  # fmt: skip


def test_a_study_with_report_and_captures_opens_from_the_node_alone(browser, phantom, tmp_path) -> None:
    images, results = (sorted(folder.rglob("*.dcm")) for folder in phantom)
    nodes = len([path for path in results if path.name.startswith("capture-")]) - 1
    with server(tmp_path) as (root, opened), httpx.Client(base_url=root, timeout=60) as client:
        job = received(opened, client, [path.read_bytes() for path in images])
        analysed(opened, job, [result(path) for path in results])
        with ohif.viewer(Path(str(DIST)), root) as url:
            page = browser.new_page(viewport={"width": 1600, "height": 950})
            study = Study(page, url, opened.jobs.get(job).study_uid)
            listed = study.listed()
            assert {"CT 1", "SR 19001", "OT 19002"} <= set(listed)
            assert not any(unsupported for _, unsupported in listed.values())
            study.open("S:19001")
            study.accept()
            study.until("([n]) => window.services.measurementService.getMeasurements().length === n", nodes)
            assert len(study.panel()) >= nodes
            page.locator("[data-cy=data-row]").first.click(timeout=10_000)
            study.picture("ohif-node.png")
            study.open("S:19002")
            study.until(
                "() => window.services.cornerstoneViewportService.getRenderingEngine().getViewports()"
                ".some(v => v.getImageIds?.().some(id => id.includes('/instances/')) && v.getImageData?.()?.dimensions?.[0] === 1024)"
            )
            assert not study.errors
            # The study list is a search in the node.
            page.goto(f"{url}/?datasources=pacs", wait_until="domcontentloaded")
            page.get_by_text(str(dcmread(images[0], stop_before_pixels=True).PatientID)).first.wait_for(timeout=30_000)
            page.close()
