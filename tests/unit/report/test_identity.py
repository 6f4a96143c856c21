"""One SOP Instance UID, one content: over nodes, versions, devices, moments and revisions, in every kind of object."""

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from analyses import EVERYTHING, MODEL, analysis, header
from bundles import write_bundle
from pydicom import dcmread

from alnnode import report
from alnnode.model import bundle, ensemble
from alnnode.records import Analysis, Crop, CropGeometry, CropPair, Finding, ReportContext, ReportOptions, ResultObject
from alnnode.report import modules, uids

HERE = replace(EVERYTHING, created=datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC))
REPORT = ("1.2.840.10008.5.1.4.1.1.88.33", "2.25.5", "2.25.6", "2.25.11")
NOT_ANALYSED = Analysis(header(), MODEL, None, not_analysed="the slices are 8 mm apart; the analysis needs 5 mm or less")


def on_another_device(of: Analysis) -> Analysis:
    """Return the analysis as bfloat16 rounds it: another last digit of a probability, or of a heatmap only."""

    def rounded(finding: Finding) -> Finding:
        maps = tuple(replace(one, values=one.values * 0.998) for one in finding.heatmaps)
        return replace(finding, prediction=replace(finding.prediction, probability=0.9101), heatmaps=maps)

    first, *others = of.findings
    return replace(of, findings=(rounded(first), *others))


def contexts(of: Analysis) -> Iterator[ReportContext]:
    yield HERE
    yield replace(HERE, station="OTHERNODE")
    if of.findings:  # drawing takes its time
        return
    yield replace(HERE, created=datetime(2026, 5, 4, 3, 2, 2, tzinfo=UTC))
    yield replace(HERE, zone=ZoneInfo("Asia/Tokyo"))
    yield replace(HERE, predecessor=REPORT)
    yield replace(HERE, revision=2)


def made(monkeypatch: pytest.MonkeyPatch, of: Analysis) -> list[ResultObject]:
    found = [item for context in contexts(of) for item in report.build(of, context)]
    with monkeypatch.context() as patch:
        for module in (modules, uids):
            patch.setattr(module, "__version__", "99.0", raising=False)
        return found + report.build(of, HERE)


@pytest.mark.parametrize("of", [NOT_ANALYSED, analysis(1)], ids=["not-analysed", "one-node"])
def test_no_uid_has_two_contents(monkeypatch: pytest.MonkeyPatch, of: Analysis) -> None:
    items = made(monkeypatch, of)
    if of.findings:
        items += report.build(on_another_device(of), HERE)
    contents = defaultdict(set)
    for item in items:
        contents[item.sop_instance_uid].add(hashlib.sha256(item.data).hexdigest())
    assert {uid: len(hashes) for uid, hashes in contents.items() if len(hashes) > 1} == {}
    # Nor has a series two descriptions, dates or makers.
    series = defaultdict(set)
    for item in items:
        found = dcmread(io.BytesIO(item.data), stop_before_pixels=True)
        told = ("SeriesDate", "SeriesTime", "SeriesDescription", "StationName", "SoftwareVersions", "TimezoneOffsetFromUTC")
        series[item.series_instance_uid].add(repr([found.get(keyword) for keyword in told]))
    assert {uid: told for uid, told in series.items() if len(told) > 1} == {}


def test_the_final_uid_is_written_as_pydicom_writes_it() -> None:
    for item in report.build(analysis(1), EVERYTHING):
        written, again = dcmread(io.BytesIO(item.data)), io.BytesIO()
        assert written.SOPInstanceUID == written.file_meta.MediaStorageSOPInstanceUID == item.sop_instance_uid
        written.save_as(again, enforce_file_format=True)
        assert again.getvalue() == item.data, item.role


def test_two_number_formats_share_no_uid_with_two_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks in float32, then in bfloat16 as on CUDA, on one processor and with all else equal; tests/gpu has both devices."""
    loaded, rng = bundle.load(write_bundle(tmp_path / "bundle")), np.random.default_rng(5)
    geometry = CropGeometry(Crop.FSC, 0, 0.0, 0.0, 1.0, 1.0, 64)
    crops = [CropPair(*(rng.random((1, 64, 64), np.float32) for _ in range(2)), geometry, geometry)]

    def analysed() -> Analysis:
        (prediction,) = ensemble.Ensemble(loaded, "cpu").predict(crops)
        of = analysis(1)
        return replace(of, findings=(replace(of.findings[0], prediction=prediction),))

    autocast = torch.autocast
    single = analysed()
    monkeypatch.setattr(ensemble.torch, "autocast", lambda device, dtype, enabled: autocast(device, dtype, enabled=not enabled))
    half = analysed()
    assert single.findings[0].prediction != half.findings[0].prediction
    contents, series = defaultdict(set), []
    for of in (single, half):
        items = report.build(of, replace(HERE, options=ReportOptions()))  # drawing takes its time
        series.append({item.series_instance_uid for item in items})
        for item in items:
            contents[item.sop_instance_uid].add(item.data)
    assert {uid: len(data) for uid, data in contents.items() if len(data) > 1} == {}
    assert series[0].isdisjoint(series[1])


def test_results_of_another_device_are_in_series_of_their_own() -> None:
    first, second = (report.build(one, HERE) for one in (analysis(1), on_another_device(analysis(1))))
    assert {item.series_instance_uid for item in first}.isdisjoint(item.series_instance_uid for item in second)


def test_references_name_the_objects_as_they_were_sent() -> None:
    items = report.build(analysis(1), HERE)
    ours = {item.sop_instance_uid for item in items}
    foreign = {reference.sop_instance_uid for reference in analysis(1).volume.slices}
    foreign.add(analysis(1).header.StudyInstanceUID)  # an RT Structure Set refers to the study itself (PS3.3 C.8.8.5.4)
    for item in items:
        found = dcmread(io.BytesIO(item.data))
        assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID == item.sop_instance_uid
        for element in found.iterall():
            if element.keyword == "ReferencedSOPInstanceUID":
                assert element.value in ours | foreign
    tree = dcmread(io.BytesIO(items[-1].data))
    named = {element.value for element in tree.iterall() if element.keyword == "ReferencedSOPInstanceUID"}
    assert ours - {items[-1].sop_instance_uid} <= named
    assert all(re.fullmatch(r"2\.25\.\d+", uid) for uid in ours)
