"""Train the network of the detector: losses, learning-rate schedule, averaged weights."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from alnnode.locate.network import DEPTH, NODE, AxillaNet, inputs
from training.detection.samples import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.detection.samples import Batch, Store

WARM_UP = 100  # steps
AVERAGE = 0.995  # decay of the exponential moving average of the weights


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How a network is trained.

    Attributes:
        channels: of `AxillaNet`.
        steps: optimiser steps.
        batch: patches in each step.
        rate: highest learning rate.
        drawn: share of patches from real axillae with drawn nodes.
        phantoms: share of patches from phantoms; the other patches are from real axillae.
    """

    channels: tuple[int, ...] = (24, 48, 96, 128)
    steps: int = 2000
    batch: int = 8
    rate: float = 2e-3
    drawn: float = 0.5
    phantoms: float = 0.2
    seed: int = 1


def loss_of(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the loss: cross-entropy and Dice of "node", and cross-entropy of the depth; voxels of weight 0 do not count."""
    weight = batch.weight
    total = weight.sum().clamp(min=1)
    node, depth = logits[:, NODE].float(), logits[:, DEPTH].float()
    entropy = functional.binary_cross_entropy_with_logits(node, batch.node, reduction="none")
    deep = functional.binary_cross_entropy_with_logits(depth, batch.depth, reduction="none")
    heavier = weight * (1 + 3 * batch.node)
    chance = torch.sigmoid(node) * (weight > 0)
    truth = batch.node * (weight > 0)
    dice = 1 - (2 * (chance * truth).sum() + 50) / (chance.sum() + truth.sum() + 50)
    return 20 * (heavier * entropy).sum() / total + 20 * (heavier * deep).sum() / total + 0.3 * dice


class Learner:
    """The training of one network; several learners share a device by taking steps in turn."""

    def __init__(self, store: Store, allowed: Sequence[int], settings: FitSettings, start: AxillaNet | None = None) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.store = settings, store
        self.network = copy.deepcopy(start) if start is not None else AxillaNet(settings.channels)
        self.network.to(store.device).to(memory_format=torch.channels_last_3d).train()
        self.average = copy.deepcopy(self.network)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.rate, weight_decay=1e-2, fused=store.device.type == "cuda"
        )
        self.rng = np.random.default_rng([settings.seed, 3])
        self.done = 0
        self.pools = {kind: [n for n in allowed if store.axillae[n].kind is kind] for kind in Kind}

    def step(self) -> torch.Tensor:
        """Take one optimiser step and return the loss, which stays on the device."""
        settings = self.settings
        progress = self.done / settings.steps
        rate = settings.rate * min(1.0, (self.done + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = self.store.batch([self._choose() for _ in range(settings.batch)], self.rng)
        with torch.autocast(self.store.device.type, torch.bfloat16):
            logits = self.network(inputs(batch.hu, batch.place).contiguous(memory_format=torch.channels_last_3d))
        loss = loss_of(logits, batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.done += 1
        self._update_average()
        return loss.detach()

    def save_checkpoint(self, path: Path) -> None:
        """Write everything that is needed to resume with the same result."""
        part = path.with_suffix(".part")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "rng": self.rng.bit_generator.state,
                "done": self.done,
            },
            part,
        )
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Resume from a checkpoint if the file exists."""
        if not path.exists():
            return
        stored = torch.load(path, map_location=self.store.device, weights_only=True)
        self.network.load_state_dict(stored["network"])
        self.average.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.rng.bit_generator.state = stored["rng"]
        self.done = stored["done"]

    def _choose(self) -> int:
        settings = self.settings
        share = self.rng.random()
        kind = (
            Kind.PHANTOM
            if share < settings.phantoms
            else Kind.DRAWN
            if share < settings.phantoms + settings.drawn
            else Kind.REAL
        )
        pool = self.pools[kind] or next(pool for pool in self.pools.values() if pool)
        return pool[int(self.rng.integers(len(pool)))]

    def _update_average(self) -> None:
        share = 1 - min(AVERAGE, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            ours: list[torch.Tensor] = list(self.average.parameters())
            theirs: list[torch.Tensor] = list(self.network.parameters())
            torch._foreach_lerp_(ours, theirs, share)
            for mine, other in zip(self.average.buffers(), self.network.buffers(), strict=True):
                mine.copy_(other) if not mine.is_floating_point() else mine.lerp_(other, share)
