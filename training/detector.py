"""``python -m training.detector``: train the network that scores lymph node candidates, on phantoms.

Every candidate is labelled by its overlap (intersection over union) with the truth: a good reading of a node is a
positive, a poor reading of one something in between, vessels and muscle ends are negatives. Writes
``detector.safetensors`` and ``detector.json``, which ``python -m training demo --detector DIR`` puts into a bundle.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer
from safetensors.torch import save
from torch import nn

from alnnode import phantom
from alnnode.locate.candidates import GRID_MM, propose
from alnnode.locate.detector import Detector, DetectorSettings, ScoreNet, patch_of
from alnnode.phantom import PhantomSettings
from training import detection_report, examine, froc
from training.cohort import as_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from alnnode.locate.candidates import Candidate, SearchGrid

GOOD_OVERLAP = 0.55  # from here on a reading is right
POOR_OVERLAP = 0.15  # below it is none
FALSE_POSITIVES = 0.5  # per validation phantom at the operating threshold: real axillae hold more clutter than phantoms
NEGATIVES = 70  # per phantom; the rest resembles them


@dataclass(frozen=True, slots=True)
class Samples:
    """Candidates of a cohort.

    Attributes:
        patches: (n, s, s, s) bytes, CT windowed; masks: the same shape, bool.
        shapes: (n, 7) float32; overlap: (n,) float32 with the best fitting true node.
    """

    patches: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    shapes: npt.NDArray[np.float32]
    overlap: npt.NDArray[np.float32]

    @classmethod
    def load(cls, path: Path) -> Samples:
        """Read from an npz."""
        with np.load(path) as stored:
            return cls(stored["patches"], stored["masks"], stored["shapes"], stored["overlap"])

    @classmethod
    def joined(cls, parts: list[Samples]) -> Samples:
        """One after the other."""
        return cls(
            np.concatenate([p.patches for p in parts]),
            np.concatenate([p.masks for p in parts]),
            np.concatenate([p.shapes for p in parts]),
            np.concatenate([p.overlap for p in parts]),
        )


def truth_on(grid: SearchGrid, labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """The truth's labels at the points of a search grid (nearest voxel)."""
    canonical = grid.frame.canonical(labels)
    index = [
        np.clip(np.rint(s + np.arange(n) * GRID_MM / d).astype(int), 0, m - 1)
        for s, n, d, m in zip(grid.start, grid.hu.shape, grid.frame.spacing, canonical.shape, strict=True)
    ]
    found: npt.NDArray[np.uint16] = canonical[np.ix_(*index)]
    return found


def overlaps(candidates: list[Candidate], labels: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Intersection over union of every candidate with its best true node, and that node's number (0: none)."""
    truths = {c.grid.side: (c.grid, truth_on(c.grid, labels)) for c in {c.grid.side: c for c in candidates}.values()}
    count = int(labels.max()) + 1
    sizes = {side: np.bincount(truth.ravel(), minlength=count) for side, (_, truth) in truths.items()}
    values, numbers = np.zeros(len(candidates), dtype=np.float32), []
    for n, candidate in enumerate(candidates):
        box = tuple(slice(o, o + m) for o, m in zip(candidate.offset, candidate.mask.shape, strict=True))
        shared = np.bincount(truths[candidate.grid.side][1][box][candidate.mask], minlength=count)
        shared[0] = 0
        number = int(shared.argmax())
        values[n] = shared[number] / (sizes[candidate.grid.side][number] + candidate.mask.sum() - shared[number])
        numbers.append(number if shared[number] else 0)
    return values, numbers


def sample_patient(index: int, seed: int, settings: DetectorSettings, folder: Path) -> Path:
    """Make one phantom and store its candidates (all near a node, some of the others)."""
    path = folder / f"{seed}-{index}.npz"
    if path.exists():
        return path
    made = phantom.make_patient(seed, index)
    candidates = propose(as_volume(made))
    overlap, _ = overlaps(candidates, made.labels)
    rng = np.random.default_rng([seed, index, 1])
    others = np.flatnonzero(overlap < 0.1)
    kept = np.sort(np.concatenate([np.flatnonzero(overlap >= 0.1), rng.permutation(others)[:NEGATIVES]]))
    patches = [patch_of(candidates[n], settings) for n in kept]
    size = (settings.patch,) * 3
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(
        part,
        patches=np.array([np.rint(p[0] * 255) for p in patches], dtype=np.uint8).reshape(-1, *size),
        masks=np.array([p[1] > 0 for p in patches], dtype=bool).reshape(-1, *size),
        shapes=np.array([candidates[n].shape.features() for n in kept], dtype=np.float32).reshape(-1, 7),
        overlap=overlap[kept],
    )
    part.replace(path)
    return path


def collect(seed: int, patients: int, settings: DetectorSettings, folder: Path, processes: int) -> Samples:
    """Candidates of ``patients`` phantoms, made in parallel and kept in ``folder``."""
    job = partial(sample_patient, seed=seed, settings=settings, folder=folder)
    parts = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done, path in enumerate(pool.map(job, range(patients)), start=1):
            parts.append(Samples.load(path))
            if done % 10 == 0:
                print(f"phantoms of seed {seed}: {done}/{patients}", flush=True)
    return Samples.joined(parts)


def targets(overlap: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Soft labels: 0 up to `POOR_OVERLAP`, 1 from `GOOD_OVERLAP` on."""
    ramp: npt.NDArray[np.float32] = np.clip((overlap - POOR_OVERLAP) / (GOOD_OVERLAP - POOR_OVERLAP), 0, 1).astype(np.float32)
    return ramp


def batches(samples: Samples, size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, ...]]:
    """One epoch in random order, augmented: turned, moved, brighter or darker, noisier."""
    order = torch.randperm(len(samples.overlap), generator=generator).numpy()
    wanted = targets(samples.overlap)
    for first in range(0, len(order) - size + 1, size):
        chosen = order[first : first + size]
        pair = np.stack([samples.patches[chosen].astype(np.float32) / 255, samples.masks[chosen]], axis=1)
        patches = torch.from_numpy(pair.astype(np.float32))
        patches = _augmented(patches, generator)
        yield patches, torch.from_numpy(samples.shapes[chosen]), torch.from_numpy(wanted[chosen])


def _augmented(patches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Meaning stays: an axilla upside down or a few degrees of contrast apart has the same nodes."""

    def uniform(low: float, high: float) -> float:
        return float(torch.rand((), generator=generator)) * (high - low) + low

    if uniform(0, 1) < 0.5:
        patches = patches.flip(2)
    if uniform(0, 1) < 0.5:
        patches = patches.flip(3)
    if uniform(0, 1) < 0.5:
        patches = patches.flip(4)
    shift = [int(torch.randint(-2, 3, (), generator=generator)) for _ in range(3)]
    patches = patches.roll(shift, dims=(2, 3, 4)).clone()
    count = len(patches)
    gain = 1 + 0.1 * torch.randn((count, 1, 1, 1), generator=generator)
    bias = 0.04 * torch.randn((count, 1, 1, 1), generator=generator)
    noise = torch.randn(patches[:, 0].shape, generator=generator) * 0.06 * torch.rand((count, 1, 1, 1), generator=generator)
    patches[:, 0] = (patches[:, 0] * gain + bias + noise).clamp(0, 1)
    return patches


def fit(samples: Samples, settings: DetectorSettings, epochs: int, seed: int) -> ScoreNet:
    """Train from scratch; the same seed and thread count give the same weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = ScoreNet(settings.channels)
    size = 64
    steps = epochs * (len(samples.overlap) // size)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=max(steps, 2))
    loss_of = nn.BCEWithLogitsLoss()
    for epoch in range(epochs):
        network.train()
        total, count = 0.0, 0
        for patches, shapes, wanted in batches(samples, size, generator):
            loss = loss_of(network(patches, shapes), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total, count = total + float(loss.detach()), count + 1
        print(f"epoch {epoch + 1}/{epochs}: loss {total / max(count, 1):.4f}", flush=True)
    return network.eval()


def train(
    out: Annotated[Path, typer.Option(help="Folder for detector.safetensors and detector.json.")],
    work: Annotated[Path, typer.Option(help="Where candidates are kept; a second run goes on from there.")] = Path(
        "runs/detector"
    ),
    seed: Annotated[int, typer.Option(help="Of the training phantoms; validation has the next, test the one after.")] = 5000,
    patients: Annotated[int, typer.Option(help="Training phantoms.")] = 100,
    held_out: Annotated[int, typer.Option(help="Validation phantoms, and test phantoms.")] = 24,
    epochs: Annotated[int, typer.Option()] = 12,
    processes: Annotated[int, typer.Option()] = 2,
) -> None:
    """Train the detector, choose its threshold on validation phantoms, report on test phantoms."""
    settings = DetectorSettings()
    samples = collect(seed, patients, settings, work, processes)
    print(f"{len(samples.overlap)} candidates, {(samples.overlap >= GOOD_OVERLAP).sum()} good readings", flush=True)
    network = fit(samples, settings, epochs, seed)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    detector = Detector(weights, settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "detector.safetensors").write_bytes(save(weights))
    _write_settings(out, settings)  # what was trained is kept whatever happens to the examination
    chosen = froc.operating_threshold(_examined(detector, seed + 1, held_out, processes), FALSE_POSITIVES)
    detector.settings = replace(settings, threshold=chosen)
    _write_settings(out, detector.settings)
    print(
        detection_report.table(detection_report.figures(_examined(detector, seed + 2, held_out, processes), chosen)), flush=True
    )


def _write_settings(out: Path, settings: DetectorSettings) -> None:
    (out / "detector.json").write_text(json.dumps(settings.to_dict(), indent=2) + "\n", encoding="utf-8")


def _examined(detector: Detector, seed: int, patients: int, processes: int) -> froc.Examined:
    return froc.join(list(examine.examine(examine.Plan(detector, seed, PhantomSettings()), patients, processes)))


if __name__ == "__main__":
    typer.run(train)
