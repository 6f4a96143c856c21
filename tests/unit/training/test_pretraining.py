"""Pretraining: networks learn the parameters of auxiliary phantoms, and trainings start from their weights."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
import torch
from discs import discs
from safetensors.torch import load_file

from alnnode.imaging.crop import CropSettings
from alnnode.phantom import PhantomSettings
from alnnode.records import Crop
from training.data.cohort import LeakageError, PhantomSource
from training.data.node_features import GENERATOR_PARAMETERS, FeatureCohort
from training.fit import grid, pretraining, reproduce, reproduction_terms
from training.fit.member import Trainer, TrainingData, TrainSettings
from training.fit.pretraining import Pretrainer, PretrainingTask, pretraining_data

SETTINGS = TrainSettings(architecture="resnet18", epochs=2, batch=8, output_stride=32, bf16=False, averaging=0.5)
NAMES = [name.replace(",", "") for name in GENERATOR_PARAMETERS]


def drawn(count: int = 80) -> FeatureCohort:
    """Return discs of four to a phantom, whose first parameter is their short axis; the others say nothing about them."""
    nodes = dataclasses.replace(discs(count, 0, "x"), patient=np.array([f"9:{n // 4:03d}" for n in range(count)]))
    columns = np.random.default_rng(1).uniform(1, 2, (count, len(GENERATOR_PARAMETERS))).astype(np.float32)
    columns[:, 0] = nodes.short_axis
    columns[:, 1] = 1.0  # the same for all nodes
    empty = np.zeros((count, 1), np.float32)
    return FeatureCohort(nodes, empty, empty, columns, np.full((count, 5), "", "U24"))


def last_line(path) -> dict[str, float]:
    with path.open() as source:
        return {name: float(value) for name, value in list(csv.DictReader(source))[-1].items()}


def test_a_network_learns_what_the_image_shows_and_is_judged_on_other_phantoms(tmp_path) -> None:
    data = pretraining_data(drawn())
    assert not data.train.patients & data.validation.patients
    assert len(data.train.patients) == 9 * len(data.validation.patients)
    np.testing.assert_allclose(data.targets.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.targets.std(0), [1, 0, *[1] * 9], atol=1e-5)
    Pretrainer(Crop.FSC, data, dataclasses.replace(SETTINGS, epochs=12), tmp_path).fit(lambda: None)
    found = last_line(tmp_path / "fsc.csv")
    assert found["r2 short axis mm"] > 0.9
    assert all(found[f"r2 {name}"] < 0.3 for name in NAMES[2:])


def test_an_interrupted_pretraining_resumes_to_the_same_weights(tmp_path) -> None:
    data = pretraining_data(drawn())

    def stop() -> None:
        raise KeyboardInterrupt

    whole = Pretrainer(Crop.ASC, data, SETTINGS, tmp_path / "whole").fit(lambda: None)
    with pytest.raises(KeyboardInterrupt):
        Pretrainer(Crop.ASC, data, SETTINGS, tmp_path / "halved").fit(stop)
    resumed = Pretrainer(Crop.ASC, data, SETTINGS, tmp_path / "halved").fit(lambda: None)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert whole["fc.weight"].shape[0] == len(GENERATOR_PARAMETERS)


def test_a_training_starts_from_the_pretrained_weights_wherever_their_folder_lies(tmp_path) -> None:
    Pretrainer(Crop.FSC, pretraining_data(drawn()), SETTINGS, tmp_path / "one").fit(lambda: None)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    made = []
    for folder in ("one", "other"):
        weights = tmp_path / folder / "fsc-weights.safetensors"
        settings = dataclasses.replace(SETTINGS, weights=str(weights), averaging=0.0)
        made.append(grid.TrainingTask("resnet18", Crop.FSC, 0, settings).identity)
        begun = Trainer(Crop.FSC, TrainingData(discs(16, 1, "1"), discs(16, 2, "2")), settings, tmp_path / "run").model
        assert torch.equal(begun.state_dict()["layer4.1.conv2.weight"], load_file(weights)["layer4.1.conv2.weight"])
        assert begun.state_dict()["fc.weight"].shape[0] == 1
    assert made[0] == made[1]
    weights.write_bytes((tmp_path / "one" / "fsc-weights.safetensors").read_bytes()[:-1] + b"!")
    assert grid.TrainingTask("resnet18", Crop.FSC, 0, settings).identity != made[0]


def test_a_pretraining_with_other_phantoms_settings_or_code_is_not_reused(tmp_path, monkeypatch) -> None:
    task = PretrainingTask("resnet18", Crop.FSC, PhantomSource(1, PhantomSettings(), CropSettings()), 3, SETTINGS)
    task.folder(tmp_path).mkdir(parents=True)
    task.mark_finished(tmp_path)
    assert task.finished(tmp_path)
    assert not dataclasses.replace(task, phantoms=4).finished(tmp_path)
    assert not dataclasses.replace(task, settings=dataclasses.replace(SETTINGS, epochs=5)).finished(tmp_path)
    monkeypatch.setattr(pretraining, "training_code_digest", lambda: "other code")
    assert not task.finished(tmp_path)


def test_auxiliary_phantoms_that_are_in_the_cohort_stop_the_reproduction(tmp_path, monkeypatch) -> None:
    plan = reproduction_terms.read_plan("tiny", tmp_path, processes=0)
    nodes = drawn(8)
    monkeypatch.setattr(reproduce.node_features, "collect_features", lambda *_: nodes)
    with pytest.raises(LeakageError, match="both pretraining and cohort"):
        reproduce.pretrain(plan, nodes.cohort, lambda _name, _count: lambda: None)
