"""Train one member of the ensemble: AdamW, one cosine, the epoch that is best on validation."""

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

from alnnode.errors import AlnnodeError
from alnnode.model import network
from alnnode.records import Crop
from training.data import augment as augmentation
from training.data.augment import augment
from training.networks import build

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from training.data.cohort import Cohort

    Logits = npt.NDArray[np.float64]


WARMING = 0.3  # of the steps: the learning rate rises, then falls by a cosine


class DivergedError(AlnnodeError):
    """A training loss is not a number."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a member is trained.

    Attributes:
        architecture: one of `alnnode.model.network.ARCHITECTURES`, or `networks.LITE`.
        weights: safetensors to start from; empty for weights drawn from the seed.
        patience: epochs without a lower validation loss before training stops, once the learning rate has fallen below half of its highest:
            before, the loss swings, and the cosine is still to come.
        bf16: autocast to bfloat16; three times as fast on processors that have it.
        threads: of one member; both are trained side by side. 0 leaves it to torch.
    """

    architecture: str = "densenet121"
    weights: str = ""
    epochs: int = 10
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    patience: int = 5
    output_stride: int = 8
    seed: int = 1
    device: str = "cpu"
    bf16: bool = True
    threads: int = 1


def images(cohort: Cohort, crop: Crop) -> npt.NDArray[np.uint8]:
    """Return the crops of one kind, (N, variants, C, S, S)."""
    return cohort.fsc if crop is Crop.FSC else cohort.asc


def code() -> str:
    """Return the digest (hex) of the code that decides what a network becomes: what other code trained is not gone on with."""
    files = [Path(__file__), *(Path(str(module.__file__)) for module in (augmentation, network, build))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class Trainer:
    """One member on its way through the epochs; every random number comes from (seed, epoch), so that a resumed run repeats."""

    def __init__(
        self,
        crop: Crop,
        train: Cohort,
        validation: Cohort,
        settings: TrainSettings,
        folder: Path,
        targets: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Args: targets: (N,) 0 to 1 for the training nodes where more is known than the label, as the mean of several readers."""
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.crop, self.train, self.validation, self.settings, self.folder = crop, train, validation, settings, folder
        self.targets = train.malignant.astype(np.float32) if targets is None else targets
        initial = Path(settings.weights) if settings.weights else None
        self.model = build.build(settings.architecture, images(train, crop).shape[2], settings.output_stride, initial)
        self.model.to(settings.device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        self.batch = min(settings.batch, len(train))  # a smaller cohort is one batch, not none
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            settings.learning_rate,
            epochs=settings.epochs,
            steps_per_epoch=len(train) // self.batch,
            pct_start=WARMING,
        )
        # Both classes count alike, as in training: else the rarer one would have little say in which epoch is the best.
        counts = np.bincount(validation.malignant, minlength=2)
        self.balance = len(validation) / 2 / np.maximum(counts, 1)[validation.malignant.astype(int)]
        self.best, self.best_epoch, self.next_epoch = float("inf"), -1, 0
        # A checkpoint of other settings or other data is not this run's.
        arrays = (images(train, crop), self.targets, images(validation, crop), validation.malignant)
        data = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        self.run = asdict(settings) | {"crop": crop.value, "data": data, "code": code()}
        folder.mkdir(parents=True, exist_ok=True)

    def fit(self, progress: Callable[[], None]) -> dict[str, torch.Tensor]:
        """Return the weights of the best epoch; goes on from where an earlier run of the same settings, data and code stopped.

        Raises:
            DivergedError: the loss is not a number.
        """
        self._resume()
        for _ in range(self.next_epoch):
            progress()
        while self.next_epoch < self.settings.epochs and not self._stalled:
            loss = self._epoch(self.next_epoch)
            scores = logits(self.model, self.validation, self.crop, self.settings.device)
            if not np.isfinite(loss) or not np.isfinite(scores).all():
                told = f"{self.settings.architecture} under {self.crop.value.upper()}: epoch {self.next_epoch + 1}"
                raise DivergedError(f"{told} gave no finite loss; train with another --seed, or without this family")
            probability = 1 / (1 + np.exp(-scores))
            validation_loss = float(
                log_loss(self.validation.malignant, probability, sample_weight=self.balance, labels=[False, True])
            )
            if validation_loss < self.best:
                self.best, self.best_epoch = validation_loss, self.next_epoch
                save_file({name: t.contiguous() for name, t in self.model.state_dict().items()}, self._weights)
            self._log(loss, validation_loss, float(roc_auc_score(self.validation.malignant, scores)))
            self.next_epoch += 1
            self._keep()
            progress()
        return dict(load_file(self._weights))

    @property
    def _stalled(self) -> bool:
        half = self.next_epoch >= self.settings.epochs * (1 + WARMING) / 2
        return half and self.next_epoch - self.best_epoch > self.settings.patience

    @property
    def _weights(self) -> Path:
        return self.folder / f"{self.crop.value}-best.safetensors"

    @property
    def _checkpoint(self) -> Path:
        return self.folder / f"{self.crop.value}-last.ckpt"

    def _resume(self) -> None:
        saved: dict[str, Any] = torch.load(self._checkpoint, weights_only=True) if self._checkpoint.exists() else {}
        if saved.get("run") != self.run:
            return
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(saved[name])
        self.best, self.best_epoch, self.next_epoch = saved["best"], saved["best_epoch"], saved["next_epoch"]

    def _keep(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")}
        state |= {name: getattr(self, name) for name in ("run", "best", "best_epoch", "next_epoch")}
        partial = self._checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.rename(self._checkpoint)

    def _epoch(self, epoch: int) -> float:
        rng = np.random.default_rng([self.settings.seed, epoch, 7])
        generator = torch.Generator().manual_seed(self.settings.seed * 1000 + epoch)
        torch.manual_seed(self.settings.seed * 1000 + epoch)  # dropout has no generator of its own
        order = balanced(self.train.malignant, rng)
        self.model.train()
        size = self.batch
        losses = [
            self._step(order[start : start + size], rng, generator) for start in range(0, len(order) // size * size, size)
        ]
        return float(np.mean(losses))

    def _step(self, rows: npt.NDArray[np.intp], rng: np.random.Generator, generator: torch.Generator) -> float:
        source = images(self.train, self.crop)
        variants = rng.integers(0, source.shape[1], len(rows))
        batch = augment(torch.from_numpy(source[rows, variants]).float() / 255, self.crop, generator)
        batch = batch.to(self.settings.device, memory_format=torch.channels_last)
        target = torch.from_numpy(self.targets[rows]).to(self.settings.device)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.settings.bf16):
            logit = self.model(batch).float().squeeze(1)
        loss = functional.binary_cross_entropy_with_logits(logit, target)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def _log(self, training_loss: float, validation_loss: float, auroc: float) -> None:
        path = self.folder / f"{self.crop.value}.csv"
        with path.open("a" if self.next_epoch else "w", newline="", encoding="utf-8") as sink:
            writer = csv.writer(sink)
            if not self.next_epoch:
                writer.writerow(["epoch", "training_loss", "validation_loss", "validation_auroc"])
            writer.writerow([self.next_epoch, f"{training_loss:.5f}", f"{validation_loss:.5f}", f"{auroc:.5f}"])


def balanced(malignant: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return a shuffled order of as many rows as there are, half of each class."""
    half = len(malignant) // 2
    parts = []
    for rows, count in ((np.flatnonzero(malignant), half), (np.flatnonzero(~malignant), len(malignant) - half)):
        whole = np.concatenate([rng.permutation(rows) for _ in range(-(-count // len(rows)))])
        parts.append(whole[:count])
    return rng.permutation(np.concatenate(parts))


@torch.inference_mode()
def logits(model: torch.nn.Module, cohort: Cohort, crop: Crop, device: str = "cpu", variant: int = 0) -> Logits:
    """Return the member's logits (N,) on one variant of each node's box, in float32; variant 0 is the truth's box."""
    model.eval()
    source = images(cohort, crop)[:, variant]
    found = [
        model((torch.from_numpy(source[start : start + 64]).float() / 255).to(device, memory_format=torch.channels_last))
        .squeeze(1)
        .cpu()
        for start in range(0, len(source), 64)
    ]
    return torch.cat(found).double().numpy()
