"""Many networks on one cohort: each family under each crop in each fold, side by side, every one of them resumable."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.data import arrays
from training.fit.member import Trainer, TrainSettings, code, logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.sharedctypes import Synchronized
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.records import Crop
    from training.data.cohort import Cohort

    Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Parts:
    """One fold; ``targets`` are what the training nodes teach where more is known than their label."""

    train: Cohort
    validation: Cohort
    test: Cohort
    targets: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One network to train: a family, a crop, a fold."""

    family: str
    crop: Crop
    fold: int
    settings: TrainSettings

    def folder(self, work: Path) -> Path:
        """Return where its checkpoints and scores are kept."""
        return work / f"seed-{self.settings.seed}" / self.family / f"fold-{self.fold}"

    def file(self, work: Path) -> Path:
        """Return the file of its logits on validation and test."""
        return self.folder(work) / f"{self.crop.value}-scores.npz"

    def finished(self, work: Path) -> bool:
        """Whether its scores are there; those of a network of other settings or other code are not taken for its own."""
        if not self.file(work).exists():
            return False
        with np.load(self.file(work), allow_pickle=False) as kept:
            return "settings" in kept and str(kept["settings"]) == self.described

    @property
    def described(self) -> str:
        """Its settings, and the digest of the code that trains it, as text."""
        return json.dumps(asdict(self.settings) | {"code": code()}, sort_keys=True)

    def scores(self, work: Path) -> dict[str, Scores]:
        """Return its logits on "validation" and "test"."""
        with np.load(self.file(work), allow_pickle=False) as kept:
            return {name: kept[name] for name in ("validation", "test")}


def train(
    data: Callable[[int], Parts], tasks: Sequence[Task], work: Path, report: Callable[[], None], processes: int = 2
) -> None:
    """Train what is not trained yet; a killed run goes on where it stopped.

    Args:
        data: gives the parts of a fold in another process, so it must be picklable.
        tasks: what to train.
        work: where checkpoints and scores are kept.
        report: called after each network.
        processes: networks trained side by side, on the GPUs in turn where there are several; 0 trains them here, one after another.
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
    with ProcessPoolExecutor(min(processes, len(todo)), spawn, take_gpu, (spawn.Value("i", 0),)) as pool:
        for done in as_completed([pool.submit(_train, data, task, work) for task in todo]):
            done.result()
            report()


def take_gpu(taken: Synchronized[int]) -> None:
    """Work on the next GPU from now on.

    One network fits on one GPU many times over: whole networks side by side need no exchange of gradients, and give the same
    weights as one after another.
    """
    with taken.get_lock():
        number = taken.value
        taken.value += 1
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _train(data: Callable[[int], Parts], task: Task, work: Path) -> None:
    parts = data(task.fold)
    trainer = Trainer(task.crop, parts.train, parts.validation, task.settings, task.folder(work), parts.targets)
    trainer.model.load_state_dict(trainer.fit(lambda: None))
    found = {
        name: logits(trainer.model, part, task.crop, task.settings.device)
        for name, part in (("validation", parts.validation), ("test", parts.test))
    }
    arrays.save(task.file(work), found | {"settings": np.array(task.described)})
