"""The text that stands for the device in the identity of a report: it differs where the device gives other last bits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from analyses import CONTEXT, analysis
from bundles import write_bundle

from alnnode import report
from alnnode.imaging.crop import crop_box
from alnnode.model import bundle, saliency
from alnnode.model.ensemble import BATCH, Ensemble
from alnnode.records import ObjectRole, ReportOptions

if TYPE_CHECKING:
    from pathlib import Path

# The values of a map show more of the last bits than its picture.
MAPS = replace(CONTEXT, options=ReportOptions(kinds=frozenset({ObjectRole.PARAMETRIC_MAP})))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def results(ensemble: Ensemble) -> dict[str, bytes]:
    """Return the objects of a series with four nodes, by their UIDs."""
    of = analysis(4)
    layers = [network.get_submodule("class_layers.out") for network in ensemble.members.values()]
    for layer in layers:  # this bundle was not trained: its maps would be empty
        layer.weight.data *= 64
    crops = [crop_box(of.volume, one.node.box, one.node.slice_index, ensemble.crop_settings) for one in of.findings]
    found = zip(of.findings, ensemble.predict(crops), saliency.explain(ensemble, crops), strict=True)
    findings = tuple(replace(one, prediction=prediction, heatmaps=maps) for one, prediction, maps in found)
    for layer in layers:
        layer.weight.data /= 64
    return {item.sop_instance_uid: item.data for item in report.build(replace(of, findings=findings), MAPS)}


@pytest.mark.filterwarnings("ignore:TF32")  # of torch.backends.mkldnn.flags
def test_processors_with_other_last_bits_share_no_uid_and_no_identity(folder: Path) -> None:
    """A processor for which oneDNN has no code, and this one; `make validate` has more of them, and whole series."""
    here, there = (Ensemble(bundle.load(folder), "cpu") for _ in range(2))
    made, identity = results(here), here.arithmetic
    with torch.backends.mkldnn.flags(enabled=False):
        other, other_identity = results(there), there.arithmetic
    assert set(made) != set(other), "both gave the same bits, so this test shows nothing"
    assert {uid for uid in set(made) & set(other) if made[uid] != other[uid]} == set()
    assert identity != other_identity, "one revision of a report for two devices"
    assert Ensemble(bundle.load(folder), "cpu").arithmetic == identity


def test_another_number_of_threads_is_another_arithmetic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble, found = Ensemble(bundle.load(folder), "cpu"), set()
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.add(ensemble.arithmetic)
    assert len(found) == 2


def test_the_arithmetic_of_a_gpu_names_a_smaller_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU")
    ensemble = Ensemble(bundle.load(folder), "cpu")
    ensemble.device = torch.device("cuda")
    whole = ensemble.arithmetic
    ensemble.batch = BATCH // 2
    assert ensemble.arithmetic == whole + ", batch 4"
