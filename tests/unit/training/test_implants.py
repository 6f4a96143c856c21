"""Nodes implanted into real CT as a test cohort: the same nodes as in the phantoms, away from marks, deterministic, and their figures."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import bundles
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from alnnode.imaging.crop import CropSettings
from alnnode.model import bundle
from alnnode.phantom import Arms, PhantomSettings, Phase, Position, make_patient, write_series
from alnnode.records import Crop, Side
from training.__main__ import app
from training.data import implant_cohort
from training.data.cohort import Cohort
from training.data.implant_cohort import ImplantHost, ImplantOptions
from training.data.prepared_ct import PreparedCt
from training.detection import implanted_series
from training.detection.case_series import dicom_files, volume_of
from training.detection.implanted_series import SeriesSource, collect_series
from training.detection.reference import MarkedPlace, Reference
from training.evaluate.implants import ENSEMBLE, auroc_drop, bundle_scores, implant_figures, share_drop
from training.report.implant_report import draw_contact_sheet, implant_tables

# This phantom stands for the CT of a patient; both in-plane axes of its images are flipped.
HOST = PhantomSettings(
    size=192,
    slices=(40, 40),
    thickness_mm=(4.0, 4.0),
    spacing_mm=(1.9, 2.0),
    max_nodes_per_side=0,
    position=Position.HFP,
    arms=Arms.UP,
    phase=Phase.VENOUS,
    noise_hu=14.0,
)
OPTIONS = ImplantOptions(881900, 4, CropSettings(pixels=32, slices=3, blood_pool=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one series that shows both axillae, and one that shows none."""
    folder = tmp_path_factory.mktemp("ct")
    made = make_patient(31, 0, HOST)
    write_series(made, folder / "chest")
    few = replace(made, hu=np.full_like(made.hu[:8], -1000), labels=made.labels[:8])
    write_series(few, folder / "empty")
    return folder


@pytest.fixture(scope="module")
def host(data: Path) -> ImplantHost:
    return ImplantHost("chest", PreparedCt.from_volume(volume_of(data / "chest")))


@pytest.fixture(scope="module")
def source(data: Path) -> SeriesSource:
    return SeriesSource("chest", tuple(dicom_files(data / "chest")), None)


@pytest.fixture(scope="module")
def made(source: SeriesSource, tmp_path_factory: pytest.TempPathFactory) -> implanted_series.ImplantedSeries:
    return collect_series(source, OPTIONS, None, tmp_path_factory.mktemp("cache"))


def test_the_nodes_in_the_ct_are_those_in_the_phantom(made: implanted_series.ImplantedSeries, host: ImplantHost) -> None:
    planned = implant_cohort.plan_groups(host, OPTIONS)
    members = [node.plan for group in planned for node in group.members]
    for malignant in (True, False):
        assert sum(plan.malignant == malignant for plan in members) >= OPTIONS.per_class
    assert 4 < len(made.ct) == len(made.phantoms) <= len(members)
    np.testing.assert_array_equal(made.ct.malignant, made.phantoms.malignant)
    np.testing.assert_allclose(made.ct.short_axis, made.phantoms.short_axis, atol=3.0)  # pixels of 2 mm
    assert np.corrcoef(made.ct.short_axis, made.phantoms.short_axis)[0, 1] > 0.9
    assert not (made.ct.fsc == made.phantoms.fsc).all(axis=(1, 2, 3, 4)).any()
    assert set(made.phase) == {"contrast phase venous"}
    assert set(made.place) <= {"in fat only", "may touch other tissue"}
    assert np.isnan(made.located).all()
    assert f"{len(made.ct)} of {len(members)} planned nodes" in made.remark


def test_a_node_is_cropped_as_the_node_crops_it(host: ImplantHost) -> None:
    planned = implant_cohort.plan_groups(host, OPTIONS)
    copy, keys = next(implant_cohort.implant_copies(host, planned, OPTIONS))
    part = implant_cohort.crop_implants(host, copy, keys, OPTIONS)
    for row, node in enumerate(copy.nodes):
        assert part.cohort.malignant[row] == node.malignant == planned[keys[row][0]].members[keys[row][1]].plan.malignant
    # The centre of the fixed-size crop lies in the node: soft tissue, or the fat of a hilum, but no air.
    middle = part.cohort.fsc[:, 0, 0, 14:18, 14:18].mean(axis=(1, 2))
    assert middle.min() > 20
    blood = part.cohort.fsc[:, :3, -1]
    assert len(np.unique(blood)) == 1
    assert blood.max() == round(host.prepared.blood_hu / 400 * 255)
    assert part.cohort.fsc[:, 3, -1].max() == 0


def test_the_same_images_and_seed_give_the_same_cohort(
    source: SeriesSource, made: implanted_series.ImplantedSeries, tmp_path: Path
) -> None:
    again = collect_series(replace(source, name="renamed"), OPTIONS, None, tmp_path)
    for kind in ("ct", "phantoms"):
        one, other = getattr(made, kind), getattr(again, kind)
        for name in {field.name for field in fields(Cohort)} - {"patient"}:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert set(other.patient) == {"renamed"}


def test_another_seed_plans_other_nodes(host: ImplantHost) -> None:
    plans = [
        [node.plan for group in implant_cohort.plan_groups(host, replace(OPTIONS, seed=seed)) for node in group.members]
        for seed in (881900, 881900, 881901)
    ]
    assert plans[0] == plans[1] != plans[2]


def test_no_node_lies_where_a_reader_marked_one(data: Path) -> None:
    volume = volume_of(data / "chest")
    prepared = PreparedCt.from_volume(volume)
    count, rows, columns = volume.voxels.shape
    side = next(region for where, region in prepared.regions if where is Side.RIGHT)
    centres = prepared.frame.source_positions(side.astype(np.float64), volume.voxels.shape)
    marks = tuple(MarkedPlace(tuple(map(float, at)), 80.0, 0.0, 1) for at in centres[:: max(1, len(centres) // 40)])
    excluded = implanted_series.excluded_voxels(volume, Reference(volume.spacing, marks[:20], marks[20:], ()))
    away = ImplantHost("chest", prepared, excluded)
    planned = implant_cohort.plan_groups(away, OPTIONS)
    assert {group.side for group in planned} == {Side.RIGHT, Side.LEFT}
    found = 0
    for copy, _ in implant_cohort.implant_copies(away, planned, OPTIONS):
        assert {node.side for node in copy.nodes} == {Side.LEFT}
        found += len(copy.nodes)
    assert found
    # A mark covers its radius and the margin, and nothing else.
    (one,) = (
        implanted_series.excluded_voxels(volume, Reference(volume.spacing, (mark,), (), ()))
        for mark in [MarkedPlace((20.0, 90.0, 60.0), 10.4, 6.0, 2)]
    )
    k, j, i = np.indices((count, rows, columns), dtype=np.float32)
    dz, dy, dx = volume.spacing
    np.testing.assert_array_equal(one, ((k - 20) * dz) ** 2 + ((j - 90) * dy) ** 2 + ((i - 60) * dx) ** 2 <= 8.2**2)


def test_the_drop_is_paired_and_its_interval_over_series_shows_what_series_share() -> None:
    labels, series = np.tile([True, False], 40), np.repeat([f"s{n}" for n in range(8)], 10)
    nodes = np.arange(80).astype(np.str_)
    rng = np.random.default_rng(1)
    good = labels + rng.normal(0, 0.4, 80)
    same = auroc_drop(labels, (good, good), series)
    assert (same.drop.value, same.drop.low, same.drop.high) == (0, 0, 0)
    # Half of the series are worthless in the CT: the interval over series is the wider one.
    bad = np.where(np.isin(series, ["s0", "s2", "s4", "s6"]), rng.normal(0, 1, 80), good)
    by_series, by_node = (auroc_drop(labels, (bad, good), clusters) for clusters in (series, nodes))
    assert by_series.drop.value == pytest.approx(by_series.phantoms.value - by_series.ct.value)
    assert 0 < by_series.drop.low < by_series.drop.value < by_series.drop.high
    assert by_series.drop.high - by_series.drop.low > 1.2 * (by_node.drop.high - by_node.drop.low)
    hits = np.repeat([True, False], 40)
    wide, narrow = (share_drop(hits, ~hits, clusters) for clusters in (series, nodes))
    assert wide.ct.value == wide.phantoms.value == 0.5
    assert wide.ct.high - wide.ct.low > narrow.ct.high - narrow.ct.low
    assert wide.drop.high - wide.drop.low > wide.ct.high - wide.ct.low


def small_cohort(labels: list[bool], series: list[str]) -> Cohort:
    crops = np.arange(len(labels) * 4 * 2 * 4, dtype=np.uint8).reshape(len(labels), 4, 2, 2, 2)
    return Cohort(crops, crops, np.array(labels), np.array(series), np.full(len(labels), 7, np.float32))


def test_sensitivity_and_specificity_are_those_at_the_threshold_in_both() -> None:
    cohort = small_cohort([True, True, True, True, False, False, False, False], ["a", "b"] * 4)
    ct = {ENSEMBLE: np.array([0.9, 0.8, 0.2, 0.1, 0.7, 0.1, 0.1, 0.1])}
    phantoms = {ENSEMBLE: np.array([0.9, 0.8, 0.7, 0.45, 0.1, 0.1, 0.1, 0.1])}
    figures = implant_figures(cohort, ct, phantoms, 0.45, {"series": cohort.patient})
    assert [figures.by_series["sensitivity at 0.45"].ct.value, figures.by_series["sensitivity at 0.45"].drop.value] == [
        0.5,
        0.5,
    ]
    assert [figures.by_node["specificity at 0.45"].ct.value, figures.by_node["specificity at 0.45"].drop.value] == [0.75, 0.25]
    assert figures.by_node[f"AUROC, {ENSEMBLE}"].ct.value == (4 + 4 + 3 + 3 * 0.5) / 16
    assert [subset.name for subset in figures.subsets] == ["all", "a", "b"]
    table = implant_tables(figures)
    assert "| sensitivity at 0.45 | 0.500 (" in table
    assert "| a | 4 | 2 |" in table
    alone = implant_figures(replace(cohort, patient=np.array(["a"] * 8)), ct, phantoms, 0.45, {})
    assert alone.by_series == {}
    assert "| sensitivity at 0.45 | 0.500 | 1.000 | +0.500 |" in implant_tables(alone)


class LastChannel(torch.nn.Module):
    """A network that sees only the attenuation of the blood."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return crops[:, -1].mean(dim=(1, 2))[:, None]


def test_the_attenuation_of_the_blood_is_exchanged_between_ct_and_phantoms() -> None:
    ct = small_cohort([True, False], ["a", "a"])
    phantoms = replace(ct, fsc=ct.fsc // 2, asc=ct.asc // 2)
    models = dict.fromkeys(Crop, LastChannel())
    in_ct, in_phantoms = bundle_scores((ct, phantoms), models, 1.0, blood=True)
    exchanged = f"{ENSEMBLE}, attenuation of the blood exchanged"
    np.testing.assert_allclose(np.round(in_ct[exchanged], 4), in_phantoms[ENSEMBLE])
    np.testing.assert_allclose(np.round(in_phantoms[exchanged], 4), in_ct[ENSEMBLE])
    assert exchanged not in bundle_scores((ct, phantoms), models, 1.0, blood=False)[0]


def test_the_command_measures_the_series_and_says_what_the_figures_are(data: Path, tmp_path: Path) -> None:
    small = str(bundles.write_bundle(tmp_path / "bundle"))
    command = ["evaluate-implants", "--data", str(data), "--bundle", small, "--seed", "881900", "--nodes", "2"]
    command += ["--work", str(tmp_path / "work")]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "a.json"), "--pictures", str(tmp_path / "a.png")])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "empty: not used." in text
    assert "They are no evidence about patients." in text
    assert "| AUROC, ensemble |" in text
    assert "| contrast phase venous |" in text
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["series"] == 1
    assert figures["nodes"] > figures["malignant"] > 0
    assert figures["by_series"] == {}
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width == 3 * (4 * 112 + 6)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    again = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "b.json")])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == before


def test_a_seed_of_the_training_is_refused_and_so_is_a_folder_without_a_chest(data: Path, tmp_path: Path) -> None:
    provenance = bundle.load(bundle.resolve("demo")).manifest.provenance
    for name, said in (("seed", "was used to make this bundle"), ("pretraining_seed", "was used to pretrain this bundle")):
        used = CliRunner().invoke(app, ["evaluate-implants", "--data", str(data), "--seed", str(provenance[name])])
        assert used.exit_code == 2
        assert said in " ".join(used.output.split())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "empty").symlink_to(data / "empty")
    none = CliRunner().invoke(app, ["evaluate-implants", "--data", str(tmp_path / "data"), "--work", str(tmp_path / "work")])
    assert none.exit_code == 1
    assert "no series shows an axilla" in str(none.exception)


def test_the_contact_sheet_shows_nodes_of_each_class_and_series(tmp_path: Path) -> None:
    cohort = small_cohort([True] * 5 + [False] * 2, ["a"] * 7)
    scores = np.linspace(0, 1, 7)
    assert draw_contact_sheet(cohort, cohort, (scores, scores), tmp_path / "sheet.png") == 5
    assert (tmp_path / "sheet.png").stat().st_size > 1000
