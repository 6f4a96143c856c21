"""Train many networks on one cohort: each family under each crop in each fold, in parallel; each training can be resumed."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.data import arrays
from training.fit.member import Trainer, TrainingData, TrainSettings, training_code_digest
from training.networks.inference import predict_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.sharedctypes import Synchronized
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.records import Crop
    from training.data.cohort import Cohort

    Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FoldData:
    """The cohorts of one fold; ``targets`` as in `training.fit.member.TrainingData`."""

    train: Cohort
    validation: Cohort
    test: Cohort
    targets: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """One network to train: a family, a crop, a fold."""

    family: str
    crop: Crop
    fold: int
    settings: TrainSettings

    def folder(self, work: Path) -> Path:
        """Return the folder of its checkpoints and scores."""
        return work / f"seed-{self.settings.seed}" / self.family / f"fold-{self.fold}"

    def file(self, work: Path) -> Path:
        """Return the file of its logits on validation and test nodes."""
        return self.folder(work) / f"{self.crop.value}-scores.npz"

    def finished(self, work: Path) -> bool:
        """Return whether its scores exist; scores of other settings or other code do not count."""
        if not self.file(work).exists():
            return False
        with np.load(self.file(work), allow_pickle=False) as stored:
            return "settings" in stored and str(stored["settings"]) == self.identity

    @property
    def identity(self) -> str:
        """Its settings and the digest of the training code as JSON."""
        return json.dumps(self.settings.identity | {"code": training_code_digest()}, sort_keys=True)

    def scores(self, work: Path) -> dict[str, Scores]:
        """Return its logits on "validation" and "test" nodes."""
        with np.load(self.file(work), allow_pickle=False) as stored:
            return {name: stored[name] for name in ("validation", "test")}


def train_networks(
    data: Callable[[int], FoldData], tasks: Sequence[TrainingTask], work: Path, report: Callable[[], None], processes: int = 2
) -> None:
    """Train every network that is not trained yet; an interrupted run is resumed.

    Args:
        data: returns the cohorts of a fold; it runs in another process, so it must be picklable.
        tasks: the networks.
        work: folder of checkpoints and scores.
        report: called after each network.
        processes: networks trained in parallel, distributed over the GPUs; 0 trains them in this process, one after another.
    """
    todo = [task for task in tasks if not task.finished(work)]
    for _ in range(len(tasks) - len(todo)):
        report()
    if not processes:
        for task in todo:
            _train(data, task, work)
            report()
        return
    if not todo:
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(todo)), spawn, use_next_gpu, (spawn.Value("i", 0),)) as pool:
        for done in as_completed([pool.submit(_train, data, task, work) for task in todo]):
            done.result()
            report()


def use_next_gpu(taken: Synchronized[int]) -> None:
    """Select the next GPU for this process.

    A GPU has room for several networks. Processes that each train a whole network exchange no gradients, and give the same weights as
    training one network after another.

    Args:
        taken: number of processes that have selected a GPU, shared by all of them.
    """
    with taken.get_lock():
        number = taken.value
        taken.value += 1
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _train(data: Callable[[int], FoldData], task: TrainingTask, work: Path) -> None:
    parts = data(task.fold)
    training = TrainingData(parts.train, parts.validation, parts.targets)
    trainer = Trainer(task.crop, training, task.settings, task.folder(work))
    trainer.model.load_state_dict(trainer.fit(lambda: None))
    found = {
        name: predict_logits(trainer.model, part, task.crop, task.settings.device)
        for name, part in (("validation", parts.validation), ("test", parts.test))
    }
    arrays.save_arrays(task.file(work), found | {"settings": np.array(task.identity)})
