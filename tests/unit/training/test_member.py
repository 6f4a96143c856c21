"""Training of one network: it learns, an interrupted run resumes with the same result, and augmentation keeps the size of FSC crops."""

import csv
import dataclasses
import shutil
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import discs

from alnnode.records import Crop
from training.data import augment as augmentation
from training.data.augment import augment
from training.data.cohort import Cohort, select_nodes
from training.evaluate import roc
from training.fit import grid
from training.fit import member as training_code
from training.fit.member import DivergedError, Trainer, TrainingData, TrainSettings, balanced_order
from training.networks.inference import predict_logits

SETTINGS = TrainSettings(epochs=2, batch=8, output_stride=16, bf16=False, patience=9)
PERMUTED = dataclasses.replace(SETTINGS, architecture="resnet18", epochs=4, output_stride=16)


@pytest.fixture(scope="module")
def parts() -> tuple[Cohort, Cohort]:
    return discs(48, 0, "1:0"), discs(16, 1, "2:0")


def rows(path) -> list[dict[str, str]]:
    with path.open() as source:
        return list(csv.DictReader(source))


@pytest.mark.parametrize("architecture", ["densenet121", "efficientnet-b0"])  # the second has dropout
def test_an_interrupted_run_resumes_with_the_same_result(tmp_path, parts, architecture) -> None:
    settings = dataclasses.replace(SETTINGS, architecture=architecture)
    whole = Trainer(Crop.FSC, TrainingData(*parts), settings, tmp_path / "whole").fit(lambda: None)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(Crop.FSC, TrainingData(*parts), settings, tmp_path / "halved").fit(stop)
    steps: list[int] = []
    resumed = Trainer(Crop.FSC, TrainingData(*parts), settings, tmp_path / "halved").fit(lambda: steps.append(1))
    assert len(steps) == 2
    assert rows(tmp_path / "halved" / "fsc.csv") == rows(tmp_path / "whole" / "fsc.csv")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


_RUN = """
import sys; sys.path[:0] = sys.argv[2:]
from pathlib import Path
from discs import discs
from test_member import SETTINGS
from alnnode.records import Crop
from training.fit.member import Trainer, TrainingData
if __name__ == "__main__":
    Trainer(Crop.FSC, TrainingData(discs(48, 0, "1"), discs(16, 1, "2")), SETTINGS, Path(sys.argv[1])).fit(lambda: print("epoch", flush=True))
"""


def test_killing_training_changes_no_byte_of_what_it_learns(tmp_path, parts) -> None:
    Trainer(Crop.FSC, TrainingData(*parts), SETTINGS, tmp_path / "whole").fit(lambda: None)
    command = [sys.executable, "-c", _RUN, str(tmp_path / "killed"), *(str(Path(__file__).parents[n]) for n in (0, 2, 3))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "epoch\n"
        process.kill()  # in the middle of the second epoch
    assert process.returncode == -signal.SIGKILL
    assert len(rows(tmp_path / "killed" / "fsc.csv")) == 1
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name in ("fsc-weights.safetensors", "fsc.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_permuted_labels_give_no_skill(tmp_path) -> None:
    """The labels of the cohort are permuted: a network that still ranks the test nodes profits from a leak."""
    parts = [discs(count, seed, str(seed)) for seed, count in enumerate((64, 32, 96))]
    patients = np.repeat(np.arange(32), 3).astype(str)
    found = {}
    for name in ("right", "permuted"):
        rng = np.random.default_rng(5)
        if name == "permuted":
            parts = [dataclasses.replace(part, malignant=rng.permutation(part.malignant)) for part in parts]
        train, validation, test = parts
        trainer = Trainer(Crop.FSC, TrainingData(train, validation), PERMUTED, tmp_path / name)
        trainer.model.load_state_dict(trainer.fit(lambda: None))
        shutil.rmtree(tmp_path / name)  # 220 MB
        found[name] = roc.auroc(test.malignant, predict_logits(trainer.model, test, Crop.FSC), patients)
    assert found["right"].low > 0.9
    assert found["permuted"].low < 0.5


def test_a_checkpoint_of_other_data_is_not_resumed(tmp_path, parts) -> None:
    train, validation = parts
    Trainer(Crop.ASC, TrainingData(train, validation), SETTINGS, tmp_path).fit(lambda: None)
    other = Trainer(Crop.ASC, TrainingData(discs(48, 7, "3:0"), validation), SETTINGS, tmp_path)
    other._resume()
    assert other.next_epoch == 0


def test_a_cohort_smaller_than_a_batch_is_trained_on_all_the_same(tmp_path, parts) -> None:
    _, few = parts
    trainer = Trainer(Crop.FSC, TrainingData(few, few), dataclasses.replace(SETTINGS, batch=32), tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.fit(lambda: None)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in trainer.model.named_parameters() if tensor.ndim > 1)


def test_diverging_training_raises_and_writes_no_weights(tmp_path, parts) -> None:
    train, validation = parts
    trainer = Trainer(Crop.FSC, TrainingData(train, validation, np.full(len(train), np.nan, np.float32)), SETTINGS, tmp_path)
    with pytest.raises(DivergedError, match="densenet121 under FSC: epoch 1 gave no finite loss"):
        trainer.fit(lambda: None)
    assert not list(tmp_path.iterdir())


def test_both_classes_have_equal_weight_in_the_choice_of_the_epoch(tmp_path, parts) -> None:
    train, validation = parts
    rare = select_nodes(validation, np.r_[np.flatnonzero(~validation.malignant), np.flatnonzero(validation.malignant)[:1]])
    trainer = Trainer(Crop.FSC, TrainingData(train, rare), SETTINGS, tmp_path)
    trainer.fit(lambda: None)
    last = predict_logits(trainer.model, rare, Crop.FSC)
    loss = np.logaddexp(0, np.where(rare.malignant, -last, last))
    expected = (loss[rare.malignant].mean() + loss[~rare.malignant].mean()) / 2
    assert float(rows(tmp_path / "fsc.csv")[-1]["validation_loss"]) == pytest.approx(expected, abs=1e-4)


def test_training_does_not_stop_while_the_learning_rate_is_high(tmp_path, parts, monkeypatch) -> None:
    """The loss fluctuates there; patience applies only after the learning rate has fallen to half of its maximum."""
    train, validation = parts
    settings = dataclasses.replace(SETTINGS, architecture="resnet18", epochs=10, patience=1)
    losses = iter([0.1] + [0.9] * 9)
    monkeypatch.setattr(training_code, "log_loss", lambda *_, **__: next(losses))
    Trainer(Crop.FSC, TrainingData(train, validation), settings, tmp_path).fit(lambda: None)
    assert (
        len(rows(tmp_path / "fsc.csv")) == 7
    )  # of 10: the rate rises in three and falls in seven epochs, and reaches half at 6.5


def test_a_diverging_last_step_raises(tmp_path, parts, monkeypatch) -> None:
    train, validation = parts
    monkeypatch.setattr(training_code, "predict_logits", lambda *_: np.full(len(validation), np.nan))
    with pytest.raises(DivergedError, match="epoch 1"):
        Trainer(Crop.FSC, TrainingData(train, validation), SETTINGS, tmp_path).fit(lambda: None)


def test_scores_of_other_settings_or_code_are_not_reused(tmp_path, parts, monkeypatch) -> None:
    train, validation = parts
    task = grid.TrainingTask("resnet18", Crop.FSC, 0, dataclasses.replace(PERMUTED, epochs=1))
    other = dataclasses.replace(task, settings=dataclasses.replace(task.settings, output_stride=32))
    found = []
    for asked in (task, task, other):
        grid.train_networks(
            lambda _: grid.FoldData(train, validation, validation), [asked], tmp_path, lambda: None, processes=0
        )
        found.append(asked.file(tmp_path).stat().st_mtime_ns)
    assert found[0] == found[1] < found[2]
    assert other.finished(tmp_path)
    monkeypatch.setattr(grid, "training_code_digest", lambda: "other code")
    assert not other.finished(tmp_path)


def test_both_classes_are_drawn_equally_often() -> None:
    malignant = np.array([True] * 5 + [False] * 45)
    order = balanced_order(malignant, np.random.default_rng(0))
    assert len(order) == 50
    assert malignant[order].sum() == 25
    assert set(order[malignant[order]]) == set(range(5))


@pytest.mark.parametrize("crop", Crop)
def test_crops_get_more_and_less_noise_down_to_none(crop) -> None:
    """With one noise level for all crops, batch normalisation learns the noise and fails on crops without it."""
    strengths = augment(torch.full((400, 1, 24, 24), 0.5), crop, torch.Generator().manual_seed(1)).std((1, 2, 3))
    assert strengths.min() < 0.001
    assert strengths.max() == pytest.approx(0.03, rel=0.1)
    assert strengths.median() == pytest.approx(0.015, rel=0.2)


@pytest.mark.parametrize("crop", Crop)
def test_a_quarter_of_the_crops_are_not_smoothed_by_interpolation(crop, monkeypatch) -> None:
    for name in ("NOISE", "BRIGHTNESS", "CONTRAST"):
        monkeypatch.setattr(augmentation, name, 0.0)
    rough = torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(2))
    found = augment(rough.expand(400, -1, -1, -1), crop, torch.Generator().manual_seed(1))
    mirrored = torch.cat([rough.flip(dims) for dims in ((), (2,), (3,), (2, 3))])
    nearest = (found[:, None] - mirrored[None]).abs().amax((2, 3, 4)).amin(1)
    assert (nearest < 1e-4).float().mean() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("crop", Crop)
def test_the_attenuation_of_the_blood_is_not_augmented(crop) -> None:
    batch = torch.full((40, 3, 16, 16), 0.5)
    batch[:, 2] = torch.arange(40).view(-1, 1, 1) / 255  # 0: unknown
    found = augment(batch, crop, torch.Generator().manual_seed(3), numbers=1)
    assert torch.equal(found[:, 2], batch[:, 2])
    assert (found[:, :2].flatten(1).std(1) > 0).all()
    torch.testing.assert_close(found[:, :2], augment(batch, crop, torch.Generator().manual_seed(3))[:, :2])


def test_parallel_networks_use_the_gpus_in_turn(monkeypatch) -> None:
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    taken = get_context("spawn").Value("i", 0)
    for _ in range(3):
        grid.use_next_gpu(taken)
    assert chosen == [0, 1, 0]


@pytest.mark.parametrize(("crop", "keeps_size"), [(Crop.FSC, True), (Crop.ASC, False)])
def test_only_the_adjustable_crop_is_scaled(crop: Crop, keeps_size: bool) -> None:
    v, u = np.mgrid[:64, :64]
    disc = torch.from_numpy(((v - 31.5) ** 2 + (u - 31.5) ** 2 < 15**2).astype(np.float32) * 0.5 + 0.25)
    batch = disc.expand(24, 1, 64, 64)
    turned = augment(batch, crop, torch.Generator().manual_seed(0))
    middle = turned.flatten(1).quantile(0.02, dim=1) / 2 + turned.flatten(1).quantile(0.98, dim=1) / 2
    area = (turned > middle.view(-1, 1, 1, 1)).flatten(1).sum(1) / (disc > 0.5).sum()
    assert (abs(area - 1).max() < 0.05) == keeps_size
    assert 0 <= turned.min() <= turned.max() <= 1
