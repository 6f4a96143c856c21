"""Train one member of the ensemble: AdamW, one cosine, the epoch that is best on validation."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from alnnode.model import network
from alnnode.records import Crop
from training.augment import augment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from training.cohort import Cohort


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a member is trained."""

    epochs: int = 10
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    patience: int = 5  # epochs without a better validation AUROC
    seed: int = 1
    device: str = "cpu"
    bf16: bool = True


def images(cohort: Cohort, crop: Crop) -> npt.NDArray[np.uint8]:
    """Return the crops of one kind, (N, variants, C, S, S)."""
    return cohort.fsc if crop is Crop.FSC else cohort.asc


def train_member(
    crop: Crop, train: Cohort, validation: Cohort, settings: TrainSettings, folder: Path, progress: Callable[[], None]
) -> dict[str, torch.Tensor]:
    """Return the weights of the best epoch; resumes from ``folder`` where an earlier run of the same settings stopped.

    Every random number is drawn from (seed, epoch), so that a resumed run is the run that was not stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model = network.build(train.fsc.shape[2]).to(settings.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    steps = max(len(train) // settings.batch, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, epochs=settings.epochs, steps_per_epoch=steps
    )
    state = folder / f"{crop.value}-last.ckpt"
    best, best_epoch, first = -1.0, -1, 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        if saved["settings"] == asdict(settings):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            schedule.load_state_dict(saved["schedule"])
            best, best_epoch, first = saved["best"], saved["best_epoch"], saved["epoch"] + 1
    for _ in range(first):
        progress()
    for epoch in range(first, settings.epochs):
        if epoch - best_epoch > settings.patience and best_epoch >= 0:
            break
        loss = _epoch(model, optimizer, schedule, train, crop, settings, epoch)
        score = float(roc_auc_score(validation.malignant, logits(model, validation, crop, settings.device)))
        if score > best:
            best, best_epoch = score, epoch
            save_file(
                {name: t.contiguous() for name, t in model.state_dict().items()}, folder / f"{crop.value}-best.safetensors"
            )
        _log(folder / f"{crop.value}.csv", epoch, loss, score)
        torch.save(
            {
                "settings": asdict(settings),
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "best": best,
                "best_epoch": best_epoch,
                "epoch": epoch,
            },
            state.with_suffix(".part"),
        )
        state.with_suffix(".part").rename(state)
        progress()
    return dict(load_file(folder / f"{crop.value}-best.safetensors"))


def _epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
    cohort: Cohort,
    crop: Crop,
    settings: TrainSettings,
    epoch: int,
) -> float:
    rng = np.random.default_rng([settings.seed, epoch, 7])
    generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    torch.manual_seed(settings.seed * 1000 + epoch)
    source = images(cohort, crop)
    order = _balanced(cohort.malignant, rng)
    losses = []
    model.train()
    for start in range(0, len(order) // settings.batch * settings.batch, settings.batch):
        rows = order[start : start + settings.batch]
        variants = rng.integers(0, source.shape[1], len(rows))
        batch = augment(torch.from_numpy(source[rows, variants]).float() / 255, crop, generator)
        batch = batch.to(settings.device, memory_format=torch.channels_last)
        target = torch.from_numpy(cohort.malignant[rows]).float().to(settings.device)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.bf16):
            logit = model(batch).float().squeeze(1)
        loss = functional.binary_cross_entropy_with_logits(logit, target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def _balanced(malignant: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return a shuffled order of as many rows as there are, half of each class."""
    half = len(malignant) // 2
    parts = []
    for rows, count in ((np.flatnonzero(malignant), half), (np.flatnonzero(~malignant), len(malignant) - half)):
        whole = np.concatenate([rng.permutation(rows) for _ in range(-(-count // len(rows)))])
        parts.append(whole[:count])
    return rng.permutation(np.concatenate(parts))


@torch.inference_mode()
def logits(
    model: torch.nn.Module, cohort: Cohort, crop: Crop, device: str = "cpu", variant: int = 0
) -> npt.NDArray[np.float64]:
    """Return the member's logits (N,) on one variant of each node, in float32."""
    model.eval()
    source = images(cohort, crop)[:, variant]
    found = [
        model((torch.from_numpy(source[start : start + 64]).float() / 255).to(device, memory_format=torch.channels_last))
        .squeeze(1)
        .cpu()
        for start in range(0, len(source), 64)
    ]
    return torch.cat(found).double().numpy()


def _log(path: Path, epoch: int, loss: float, score: float) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink)
        if fresh:
            writer.writerow(["epoch", "training_loss", "validation_auroc"])
        writer.writerow([epoch, f"{loss:.5f}", f"{score:.5f}"])
