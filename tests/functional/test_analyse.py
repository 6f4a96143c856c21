"""The analysis with the packaged bundle: sides, reproducibility, real CT."""

import io
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import marked
import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from alnnode import phantom, pipeline, report
from alnnode.cli.app import app
from alnnode.cli.offline import OfflineAnalysis, SeriesOutcome, offline_context
from alnnode.errors import NotAnalysable
from alnnode.imaging.series import candidate_series, read_volume
from alnnode.locate import anatomy
from alnnode.locate.marks.reading import read_marks
from alnnode.locate.measure import node_from_mask
from alnnode.model import bundle as bundles
from alnnode.records import Axis, Box, Node, NodeSource, Side, Volume
from alnnode.records.comparison import PriorLookup
from alnnode.settings import Settings

DATA = Path(os.environ.get("ALNNODE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = ("ct_acrin_flt_breast_001_F", "ct_lidc_0314_F", "ct_nlst_101287_F", "ct_lidc_partial", "ct_lungdx_A0002_F")
SETTINGS = Settings()
SHORT = phantom.PhantomSettings(slices=(60, 60), thickness_mm=(2.5, 2.5), min_nodes_per_side=3, max_nodes_per_side=6)


@pytest.fixture(scope="module")
def models():
    return pipeline.Models.load(bundles.load(bundles.resolve("demo")), "cpu")


def analysed(paths, models, settings=SETTINGS.analysis, **given):
    return pipeline.analyse(pipeline.SeriesInput(paths, **given), models, settings)


def analyse_folder(folder: Path, out: Path, models, prior_reports=()):
    return list(OfflineAnalysis(SETTINGS, models, lambda _: None, prior_reports).analyse_folder(folder, out))


class First(NamedTuple):
    """A study of 2 November 2025, its files, and the folder with its results; tests share them and do not change them."""

    made: phantom.Phantom
    files: list[Path]
    outcome: SeriesOutcome
    out: Path


@pytest.fixture(scope="module")
def first(models, tmp_path_factory) -> First:
    folder = tmp_path_factory.mktemp("first")
    made = phantom.make_patient(60606, 0, replace(SHORT, max_nodes_per_side=3))
    files = phantom.write_series(made, folder / "study")
    for path in files:
        image = dcmread(path)
        image.StudyDate = "20251102"
        image.save_as(path)
    (outcome,) = analyse_folder(folder / "study", folder / "out", models)
    return First(made, files, outcome, folder / "out")


@pytest.fixture(scope="module")
def outcomes_of(models, tmp_path_factory):
    """Analyse the series of a real CT, each once."""

    @cache
    def analyse(name: str) -> list[SeriesOutcome]:
        return analyse_folder(real(name), tmp_path_factory.mktemp(name), models)

    return analyse


def found_in(folder: Path, models):
    return analysed(sorted(folder.rglob("*.dcm")), models)


def pairs(analysis, truth):
    """Return (found, true) nodes whose centres lie within 8 mm of each other."""
    for finding in analysis.findings:
        centre = np.array(analysis.volume.patient_point(*finding.node.box.centre))
        for node in truth.nodes:
            if np.linalg.norm(centre - np.array(node.centre_mm)) < 8:
                yield finding.node, node


@pytest.mark.parametrize("position", list(phantom.Position))
def test_sides_are_the_patients_in_every_position(position, models, tmp_path: Path) -> None:
    made = phantom.make_patient(60601, 0, replace(SHORT, position=position))
    phantom.write_series(made, tmp_path / "study")
    matched = list(pairs(found_in(tmp_path / "study", models), made))
    assert {node.side for node, _ in matched} == set(Side)
    assert [(node.side, true.side) for node, true in matched if node.side is not true.side] == []


def test_a_mirrored_patient_has_the_other_side(models, tmp_path: Path) -> None:
    """Only one axilla holds nodes; after the images are flipped, only the other one does."""
    made = phantom.make_patient(60602, 0, replace(SHORT, position=phantom.Position.HFS, sides=(Side.RIGHT,)))
    for name, mirrored in (("as it is", False), ("mirrored", True)):
        folder = tmp_path / name
        for path in phantom.write_series(made, folder):
            if mirrored:
                image = dcmread(path)
                image.PixelData = image.pixel_array[:, ::-1].tobytes()
                image.save_as(path)
        analysis = found_in(folder, models)
        expected = Side.LEFT if mirrored else Side.RIGHT
        true = [node.side for node in (f.node for f in analysis.findings) if node.short_axis.length_mm >= 5]
        assert true.count(expected) > len(true) / 2, name


def test_the_same_series_gives_the_same_bytes_whatever_the_order_of_its_files(models, first: First) -> None:
    (paths,) = candidate_series(first.files[0].parent).values()
    context = offline_context(paths[::-1], SETTINGS, arithmetic=models.arithmetic)
    analysis = analysed(paths[::-1], models, prior=context.prior)
    again = [item.data for item in report.build(analysis, context)]
    assert sorted(again) == sorted(path.read_bytes() for path in first.out.glob("*.dcm"))
    assert len(again) >= 2


def test_a_folder_gives_report_captures_and_plain_data(first: First) -> None:
    assert first.outcome.reason is None
    said = json.loads((first.out / "result.json").read_text(encoding="utf-8"))
    sr = dcmread(first.out / "sr.dcm")
    captures = sorted(first.out.glob("capture-*.dcm"))
    assert said["series_instance_uid"] == phantom.series_uid(first.made)
    assert len(said["nodes"]) == first.outcome.nodes == len(captures) - 1
    assert sr.StudyInstanceUID == said["study_instance_uid"]
    assert len(list(first.out.glob("capture-*.png"))) == len(captures)


def _moved_to_the_middle(node: Node, volume: Volume, step: int) -> Node:
    """Return a node in the middle of the body, each step on another slice."""
    axes = [(axis.start, axis.end) for axis in (node.long_axis, node.short_axis)]
    by = np.array(volume.voxels.shape[:0:-1]) / 2 - np.reshape(axes, (4, 2)).mean(axis=0)
    long_axis, short_axis = (Axis(tuple(start + by), tuple(end + by), 10.0) for start, end in axes)
    return replace(node, slice_index=10 + 8 * step, long_axis=long_axis, short_axis=short_axis)


def test_the_chest_is_found_once_for_marks_search_and_follow_up(models, first: First, tmp_path: Path, monkeypatch) -> None:
    made, paths = first.made, first.files
    volume, truth = read_volume(paths), made.nodes[0]
    node = node_from_mask(volume, made.labels == truth.number, (0, 0, 0), truth.side, 1)
    # What another program marked in the chest is not called a lymph node: all of it is left out with one remark.
    others = [_moved_to_the_middle(node, volume, step) for step in range(3)]
    groups = [marked.bidirectional(volume, one, f"2.25.{uid}") for uid, one in enumerate([node, *others], start=7)]
    mark = read_marks(marked.write(marked.report(volume, groups), tmp_path))
    asked = []
    find_chest = anatomy.find_chest
    monkeypatch.setattr(anatomy, "find_chest", lambda coarse: asked.append(coarse) or find_chest(coarse))
    analysis = analysed(paths, models, marks=[mark], prior=PriorLookup())
    assert [f.node.tracking_uid for f in analysis.findings if f.node.source is NodeSource.READER] == ["2.25.7"]
    assert analysis.remarks == (
        "each of the marks 2 to 4 left out: it lies outside both axillae, and is not called a lymph node",
    )
    assert analysis.surface
    assert len(asked) == 1
    # Of more nodes than the settings allow the marked one stays, and the analysis says that there are others.
    assert not analysis.more_found
    assert len(analysis.findings) > 1
    one = analysed(paths, models, SETTINGS.analysis.model_copy(update={"max_nodes": 1}), marks=[mark])
    assert [finding.node.tracking_uid for finding in one.findings] == ["2.25.7"]
    assert one.more_found


def test_a_progress_that_raises_stops_the_analysis(models, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(step: str) -> None:
        raise StoppedError(step)

    with pytest.raises(StoppedError, match="read"):
        pipeline.analyse(pipeline.SeriesInput([tmp_path / "absent.dcm"]), models, SETTINGS.analysis, stop)


def real(name: str) -> Path:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"### REAL CT IS MISSING: no {folder}; set ALNNODE_TEST_DATA to run on it ###")
    return folder


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_ct_gives_a_result_or_a_reason(name: str, outcomes_of) -> None:
    outcomes = outcomes_of(name)
    assert outcomes
    for outcome in outcomes:
        if outcome.folder is None:
            assert outcome.reason
            continue
        assert (outcome.folder / "sr.dcm").exists()
        said = json.loads((outcome.folder / "result.json").read_text(encoding="utf-8"))
        assert outcome.reason == said["not_analysed"]
        assert outcome.reason or list(outcome.folder.glob("capture-*.dcm"))
        if name == "ct_lungdx_A0002_F":
            assert "8 mm" in str(outcome.reason)


@pytest.mark.data
def test_sides_of_the_feet_first_chest(outcomes_of) -> None:
    """The liver lies in the right half of the lowest slices; nodes named right lie in that half, too."""
    folder = real("ct_lidc_0314_F")
    ((_, paths),) = candidate_series(folder).items()
    volume = read_volume(paths)
    header = volume.header
    assert header.PatientPosition == "FFS"
    lowest = volume.voxels[:15]
    x = volume.affine[0, 2] * np.arange(lowest.shape[2]) + volume.affine[0, 3]
    body = np.flatnonzero((lowest > -300).mean(axis=(0, 1)) > 0.05)
    middle = (x[body[0]] + x[body[-1]]) / 2
    liver = ((lowest > 40) & (lowest < 160)).sum(axis=(0, 1))
    assert liver[x < middle].sum() > liver[x > middle].sum()
    (outcome,) = outcomes_of("ct_lidc_0314_F")
    nodes = json.loads((outcome.folder / "result.json").read_text(encoding="utf-8"))["nodes"]
    assert {node["side"] for node in nodes} == {side.value for side in Side}
    for node in nodes:
        at = volume.patient_point(*Box(*(at for corner in node["box_voxels"] for at in corner)).centre)[0]
        assert (at < middle) == (node["side"] == Side.RIGHT.value)


def test_an_empty_folder_says_what_to_do(models, tmp_path: Path) -> None:
    with pytest.raises(NotAnalysable, match="no CT series"):
        analyse_folder(tmp_path, tmp_path / "out", models)


def test_one_image_is_singular_on_the_console(first: First, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "image.dcm").write_bytes(first.files[0].read_bytes())
    done = CliRunner().invoke(app, ["analyse", str(tmp_path / "one"), "--out", str(tmp_path / "out")])
    assert " (1 image): The series has only 1 axial slice;" in " ".join(done.output.split())


def test_written_captures_are_the_pictures_beside_them(first: First) -> None:
    from PIL import Image

    captures = list(first.out.glob("capture-*.dcm"))
    assert captures
    for path in captures:
        picture = np.asarray(Image.open(io.BytesIO(path.with_suffix(".png").read_bytes())))
        np.testing.assert_array_equal(picture, dcmread(path).pixel_array)


def test_a_later_study_is_compared_with_the_report_of_an_earlier_one(models, first: First, tmp_path: Path) -> None:
    """The same phantom on another day at another table position: every node keeps its tracking UID, and none has grown."""
    for path in first.files:
        image = dcmread(path)
        image.StudyDate = "20260504"
        image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.606", "2.25.607"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = (
            f"{image.SOPInstanceUID[:-3]}999{image.InstanceNumber}"
        )
        image.ImagePositionPatient = [float(p) + d for p, d in zip(image.ImagePositionPatient, (12.0, -7.0, 40.0), strict=True)]
        later = tmp_path / "second" / path.name
        later.parent.mkdir(exist_ok=True)
        image.save_as(later)
    outs = (first.out, tmp_path / "out")
    analyse_folder(tmp_path / "second", outs[1], models, (first.out / "sr.dcm",))
    reports = [json.loads((out / "result.json").read_text(encoding="utf-8")) for out in outs]
    before, now = (report["nodes"] for report in reports)
    assert reports[1]["comparison"] == {
        "prior_report": str(dcmread(first.out / "sr.dcm").SOPInstanceUID),
        "days": 183,
        "short_axis_change_error_mm": 1.4,
        "trouble": None,
        "incomplete": None,
        "no_longer_found": [],
        "not_compared": [],
    }
    assert len(now) == len(before) > 0
    for old, new in zip(before, now, strict=True):
        assert (new["change"]["kind"], new["change"]["prior_number"]) == ("seen before", old["number"])
        assert new["change"]["prior_short_axis_mm"] == pytest.approx(new["short_axis"]["mm"], abs=0.06)
        assert (new["change"]["short_axis_change_mm"], new["change"]["short_axis"]) == (0, "within measurement error")
    uids = [{str(item.value) for item in dcmread(out / "sr.dcm").iterall() if item.keyword == "UID"} for out in outs]
    assert uids[0] == uids[1]
    tracked = [{node["tracking_uid"] for node in nodes} for nodes in (before, now)]
    assert tracked[0] == tracked[1] <= uids[0]
