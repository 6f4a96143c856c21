"""Pretraining: networks regress the parameters with which auxiliary phantoms were drawn, and trainings on a cohort start from their weights.

A label says one bit about a node. The parameters of the generator (size, cortex, hilum, shape, attenuation, contrast phase) say what is to
be seen in it. The auxiliary phantoms have a seed of their own and no label is used, so nothing of the cohort is seen.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from training.data import node_features
from training.data.node_features import GENERATOR_PARAMETERS
from training.fit import grid
from training.fit.member import Trainer, TrainingData, TrainSettings, training_code_digest
from training.networks.inference import predict_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from alnnode.records import Crop
    from training.data.cohort import Cohort, PhantomSource
    from training.data.node_features import FeatureCohort

    Floats = npt.NDArray[np.float32]

LENGTHS: Final = ("short axis, mm", "cortex, mm")  # their logarithm is regressed: an error counts by its share of the length
HELD_OUT: Final = 10  # every tenth phantom measures what the networks learned


@dataclass(frozen=True, slots=True)
class PretrainingTask:
    """One network to pretrain.

    Attributes:
        source: of the auxiliary phantoms.
        phantoms: how many are drawn.
    """

    family: str
    crop: Crop
    source: PhantomSource
    phantoms: int
    settings: TrainSettings

    def folder(self, work: Path) -> Path:
        """Return the folder of its checkpoints, weights and log."""
        return work / "pretraining" / f"seed-{self.source.seed}" / self.family

    def weights(self, work: Path) -> Path:
        """Return the file of its weights."""
        return self.folder(work) / f"{self.crop.value}-weights.safetensors"

    def finished(self, work: Path) -> bool:
        """Return whether it is trained to the end, with these settings, phantoms and code."""
        path = self._mark(work)
        return path.exists() and path.read_text(encoding="utf-8") == self.identity

    def mark_finished(self, work: Path) -> None:
        """Record that it is trained to the end."""
        self._mark(work).write_text(self.identity, encoding="utf-8")

    def _mark(self, work: Path) -> Path:
        return self.folder(work) / f"{self.crop.value}-finished.json"

    @property
    def identity(self) -> str:
        """Its settings, phantoms and the digest of its code as JSON."""
        drawn = self.source.folder(Path()).name
        return json.dumps(
            self.settings.identity | {"phantoms": self.phantoms, "source": drawn, "code": _code_digest()}, sort_keys=True
        )


@dataclass(frozen=True, slots=True)
class PretrainingData:
    """Auxiliary nodes with their standardised parameters (N, parameters)."""

    train: Cohort
    targets: Floats
    validation: Cohort
    expected: Floats


class Pretrainer(Trainer):
    """The training of one network on parameters instead of labels; it is judged on phantoms that it is not trained on."""

    def __init__(self, crop: Crop, data: PretrainingData, settings: TrainSettings, folder: Path) -> None:
        """Prepare a training, as `Trainer` does."""
        self.expected = data.expected
        super().__init__(crop, TrainingData(data.train, data.validation, data.targets), settings, folder)

    @property
    def outputs(self) -> int:
        """The number of parameters."""
        return int(self.targets.shape[1])

    def code_digest(self) -> str:
        """Return the digest (hex) of the code of this training."""
        return _code_digest()

    def _order(self, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        return rng.permutation(len(self.train))

    def _loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.smooth_l1_loss(output, target)

    def _judge(self, model: torch.nn.Module) -> dict[str, float]:
        """Return the loss, and for each parameter the share of its variance that the network explains (R squared)."""
        found = predict_logits(model, self.validation, self.crop, self.settings.device)
        loss = functional.smooth_l1_loss(torch.from_numpy(found), torch.from_numpy(self.expected).double())
        spread = self.expected.var(0)
        explained = 1 - ((found - self.expected) ** 2).mean(0) / np.where(spread > 0, spread, 1)
        names = [f"r2 {name}".replace(",", "") for name in GENERATOR_PARAMETERS]
        return {"validation_loss": float(loss)} | dict(zip(names, explained.tolist(), strict=True))


def pretrain_networks(
    tasks: Sequence[PretrainingTask], cache: Path, work: Path, report: Callable[[], None], processes: int = 2
) -> None:
    """Train every network that is not trained to the end; an interrupted run is resumed.

    Args:
        tasks: the networks.
        cache: folder of the crops of the phantoms, which are drawn before.
        work: folder of checkpoints and weights.
        report: called after each network.
        processes: networks trained in parallel, distributed over the GPUs; 0 trains them in this process.
    """
    todo = [task for task in tasks if not task.finished(work)]
    for _ in range(len(tasks) - len(todo)):
        report()
    if not processes:
        for task in todo:
            _pretrain(task, cache, work)
            report()
    elif todo:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(todo)), spawn, grid.use_next_gpu, (spawn.Value("i", 0),)) as pool:
            for done in as_completed([pool.submit(_pretrain, task, cache, work) for task in todo]):
                done.result()
                report()


def pretraining_data(nodes: FeatureCohort) -> PretrainingData:
    """Return auxiliary nodes, of which every tenth phantom is held out, with parameters of zero mean and unit variance in the others."""
    held = np.isin(nodes.cohort.patient, np.unique(nodes.cohort.patient)[::HELD_OUT])
    parameters = nodes.drawn.astype(np.float64)
    for name in LENGTHS:
        column = GENERATOR_PARAMETERS.index(name)
        parameters[:, column] = np.log(parameters[:, column])
    centre, spread = parameters[~held].mean(0), parameters[~held].std(0)
    standardised = ((parameters - centre) / np.where(spread > 0, spread, 1)).astype(np.float32)
    train, validation = (node_features.select_nodes(nodes, np.flatnonzero(rows)).cohort for rows in (~held, held))
    return PretrainingData(train, standardised[~held], validation, standardised[held])


def _pretrain(task: PretrainingTask, cache: Path, work: Path) -> None:
    nodes = node_features.collect_features(task.source, task.phantoms, cache, lambda: None, processes=0)
    Pretrainer(task.crop, pretraining_data(nodes), task.settings, task.folder(work)).fit(lambda: None)
    task.mark_finished(work)


def _code_digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes() + training_code_digest().encode()).hexdigest()
