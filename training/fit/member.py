"""Train one network of the ensemble: AdamW, one learning-rate cycle, then averaged weights or the epoch with the lowest validation loss."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import log_loss, roc_auc_score
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alnnode.errors import AlnnodeError
from alnnode.model import network
from training.data import augment as augmentation
from training.data.augment import augment
from training.networks import build, inference
from training.networks.inference import crops_of_kind, predict_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from alnnode.records import Crop
    from training.data.cohort import Cohort


_STATES = ("model", "average", "optimizer", "schedule")  # of a checkpoint
WARM_UP = 0.3  # share of the steps in which the learning rate rises; then it falls along a cosine


class DivergedError(AlnnodeError):
    """A training loss or a validation logit is not finite."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a network is trained.

    Attributes:
        architecture: one of `alnnode.model.network.ARCHITECTURES`, or `training.networks.build.LITE`.
        weights: safetensors file of initial weights; empty for random weights from the seed.
        numbers: how many channels at the end hold one number each (the attenuation of the blood), which augmentation leaves as it is.
        averaging: decay per step of the exponential moving average of the weights. With it, the result is the average after the last epoch,
            so that no epoch is chosen on validation. 0: the result is the epoch with the lowest validation loss.
        patience: without averaging: epochs without a lower validation loss after which training stops. It is not applied before the learning rate has
            fallen to half of its maximum, because the loss fluctuates until then.
        bf16: autocast to bfloat16, which is three times as fast on processors that support it.
        threads: of one network; several are trained in parallel. 0 leaves the number to torch.
    """

    architecture: str = "densenet121"
    weights: str = ""
    numbers: int = 0
    epochs: int = 10
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    averaging: float = 0.0
    patience: int = 5
    output_stride: int = 8
    seed: int = 1
    device: str = "cpu"
    bf16: bool = True
    threads: int = 1

    @property
    def identity(self) -> dict[str, Any]:
        """The settings, with the digest of the initial weights instead of their path, so that a moved folder is the same run."""
        found = asdict(self)
        if self.weights:
            found["weights"] = hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()
        return found


def training_code_digest() -> str:
    """Return the digest (hex) of the code that determines a trained network.

    A checkpoint or stored scores of other code are not used.
    """
    files = [Path(__file__), *(Path(str(module.__file__)) for module in (augmentation, network, build, inference))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The cohorts that one network is trained and validated on.

    Attributes:
        targets: (N,) 0 to 1, the target of each training node where more than its label is known, such as the mean of several readers.
    """

    train: Cohort
    validation: Cohort
    targets: npt.NDArray[np.float32] | None = None


class Trainer:
    """The training of one network; every random number comes from (seed, epoch), so that a resumed run gives the same result."""

    def __init__(self, crop: Crop, data: TrainingData, settings: TrainSettings, folder: Path) -> None:
        """Prepare a training; ``folder`` gets the checkpoints and the log of the epochs."""
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        train, validation = data.train, data.validation
        self.crop, self.train, self.validation, self.settings, self.folder = crop, train, validation, settings, folder
        self.targets = train.malignant.astype(np.float32) if data.targets is None else data.targets
        initial = Path(settings.weights) if settings.weights else None
        channels = crops_of_kind(train, crop).shape[2]
        self.model = build.build(settings.architecture, channels, settings.output_stride, initial, self.outputs)
        self.model.to(settings.device).to(memory_format=torch.channels_last)
        # Batch statistics are averaged like the weights, so the average needs no further pass over the training crops.
        moving = get_ema_multi_avg_fn(settings.averaging)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.model, multi_avg_fn=moving, use_buffers=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        self.batch = min(settings.batch, len(train))  # a cohort smaller than a batch is one batch
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            settings.learning_rate,
            epochs=settings.epochs,
            steps_per_epoch=len(train) // self.batch,
            pct_start=WARM_UP,
        )
        self.best, self.best_epoch, self.next_epoch = float("inf"), -1, 0
        # A checkpoint of other settings, data or code must not be resumed.
        arrays = (crops_of_kind(train, crop), self.targets, crops_of_kind(validation, crop), validation.malignant)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        self.run = settings.identity | {"crop": crop.value, "data": digest, "code": self.code_digest()}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def outputs(self) -> int:
        """The number of outputs of the network."""
        return 1

    def code_digest(self) -> str:
        """Return the digest (hex) of the code of this training."""
        return training_code_digest()

    def fit(self, progress: Callable[[], None]) -> dict[str, torch.Tensor]:
        """Return the averaged weights or those of the best epoch; resume an interrupted run of the same settings, data and code.

        Args:
            progress: called after each epoch.

        Raises:
            DivergedError: a loss or a validation logit is not finite.
        """
        self._resume()
        for _ in range(self.next_epoch):
            progress()
        while self.next_epoch < self.settings.epochs and not self._stalled:
            loss = self._epoch(self.next_epoch)
            judged = self.average.module if self.settings.averaging else self.model
            measured = self._judge(judged)
            if not np.isfinite([loss, *measured.values()]).all():
                run = f"{self.settings.architecture} under {self.crop.value.upper()}: epoch {self.next_epoch + 1}"
                raise DivergedError(f"{run} gave no finite loss; train with another --seed, or without this family")
            validation_loss = measured["validation_loss"]
            if self.settings.averaging or validation_loss < self.best:
                self.best, self.best_epoch = validation_loss, self.next_epoch
                save_file({name: t.contiguous() for name, t in judged.state_dict().items()}, self._weights)
            self._log({"training_loss": loss} | measured)
            self.next_epoch += 1
            self._save_checkpoint()
            progress()
        return dict(load_file(self._weights))

    @property
    def _stalled(self) -> bool:
        half = self.next_epoch >= self.settings.epochs * (1 + WARM_UP) / 2
        return half and self.next_epoch - self.best_epoch > self.settings.patience

    @property
    def _weights(self) -> Path:
        return self.folder / f"{self.crop.value}-weights.safetensors"

    @property
    def _checkpoint(self) -> Path:
        return self.folder / f"{self.crop.value}-last.ckpt"

    def _resume(self) -> None:
        saved: dict[str, Any] = torch.load(self._checkpoint, weights_only=True) if self._checkpoint.exists() else {}
        if saved.get("run") != self.run:
            return
        for name in _STATES:
            getattr(self, name).load_state_dict(saved[name])
        self.best, self.best_epoch, self.next_epoch = saved["best"], saved["best_epoch"], saved["next_epoch"]

    def _save_checkpoint(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in _STATES}
        state |= {name: getattr(self, name) for name in ("run", "best", "best_epoch", "next_epoch")}
        partial = self._checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.rename(self._checkpoint)

    def _epoch(self, epoch: int) -> float:
        rng = np.random.default_rng([self.settings.seed, epoch, 7])
        generator = torch.Generator().manual_seed(self.settings.seed * 1000 + epoch)
        torch.manual_seed(self.settings.seed * 1000 + epoch)  # dropout has no generator of its own
        order = self._order(rng)
        self.model.train()
        size = self.batch
        losses = [
            self._step(order[start : start + size], rng, generator) for start in range(0, len(order) // size * size, size)
        ]
        return float(np.mean(losses))

    def _step(self, rows: npt.NDArray[np.intp], rng: np.random.Generator, generator: torch.Generator) -> float:
        source = crops_of_kind(self.train, self.crop)
        variants = rng.integers(0, source.shape[1], len(rows))
        batch = augment(torch.from_numpy(source[rows, variants]).float() / 255, self.crop, generator, self.settings.numbers)
        batch = batch.to(self.settings.device, memory_format=torch.channels_last)
        target = torch.from_numpy(self.targets[rows]).to(self.settings.device)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.settings.bf16):
            output = self.model(batch).float()
        loss = self._loss(output, target)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        if self.settings.averaging:
            self.average.update_parameters(self.model)
        return loss.item()

    def _order(self, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """Return the training rows of one epoch."""
        return balanced_order(self.train.malignant, rng)

    def _loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: output (B, outputs), target (B,) or (B, outputs)."""
        return functional.binary_cross_entropy_with_logits(output.squeeze(1), target)

    def _judge(self, model: torch.nn.Module) -> dict[str, float]:
        """Return the figures of a network on the validation nodes, by the name of their column in the log."""
        labels = self.validation.malignant
        scores = predict_logits(model, self.validation, self.crop, self.settings.device)
        if not np.isfinite(scores).all():
            return {"validation_loss": float("nan")}
        # Both classes have equal weight, as in training; otherwise the rarer class would hardly influence the choice of the epoch.
        counts = np.bincount(labels, minlength=2)
        balance = len(labels) / 2 / np.maximum(counts, 1)[labels.astype(int)]
        loss = log_loss(labels, 1 / (1 + np.exp(-scores)), sample_weight=balance, labels=[False, True])
        return {"validation_loss": float(loss), "validation_auroc": float(roc_auc_score(labels, scores))}

    def _log(self, measured: dict[str, float]) -> None:
        path = self.folder / f"{self.crop.value}.csv"
        with path.open("a" if self.next_epoch else "w", newline="", encoding="utf-8") as sink:
            writer = csv.writer(sink)
            if not self.next_epoch:
                writer.writerow(["epoch", *measured])
            writer.writerow([self.next_epoch, *(f"{value:.5f}" for value in measured.values())])


def balanced_order(malignant: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return a shuffled order of as many rows as the cohort has, half of each class; rows of the rarer class repeat."""
    half = len(malignant) // 2
    parts = []
    for rows, count in ((np.flatnonzero(malignant), half), (np.flatnonzero(~malignant), len(malignant) - half)):
        repeated = np.concatenate([rng.permutation(rows) for _ in range(-(-count // len(rows)))])
        parts.append(repeated[:count])
    return rng.permutation(np.concatenate(parts))
