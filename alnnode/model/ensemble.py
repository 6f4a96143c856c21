"""The ensemble: one network per crop, mean of their calibrated probabilities."""

from __future__ import annotations

import hashlib
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import structlog
import torch

from alnnode.errors import BundleError
from alnnode.model import network
from alnnode.model.weights import load_tensors
from alnnode.records import Crop, Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from alnnode.imaging.crop import CropSettings
    from alnnode.model.bundle import Bundle
    from alnnode.records import CropPair, ModelIdentity

R = TypeVar("R")

log = structlog.get_logger()

# All batches have this size, unless memory is short, padded with zeros: another batch size may select another algorithm with other last bits.
BATCH = 8
# Rounding hides the last bits, in which the same crop may differ by its position in the batch.
DECIMALS = 4


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    Raises:
        BundleError: "cuda" was requested, and no CUDA device is visible.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise BundleError('no CUDA device is visible; set [analysis] device = "auto" or "cpu", or check the driver')
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """Return a description of the device for `alnnode check`."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def device_memory() -> dict[str, float]:
    """Return bytes of GPU memory: the total of the device, and the peak of this process; empty without CUDA."""
    if not torch.cuda.is_available():
        return {}
    return {"total": torch.cuda.get_device_properties(0).total_memory, "peak": torch.cuda.max_memory_reserved()}


class Ensemble:
    """Both members of a bundle on one device.

    Attributes:
        batch: size of all batches: `BATCH`, or less since the device ran out of memory.
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.batch = BATCH
        self.identity: ModelIdentity = bundle.identity
        self.crop_settings: CropSettings = bundle.crop_settings
        self.temperature = bundle.manifest.temperature
        channels = self.crop_settings.channels
        self.members = {
            member.crop: network.restore(
                channels, member.output_stride, load_tensors(bundle, member.crop.value), member.architecture
            ).to(self.device)
            for member in bundle.manifest.members
        }

    @property
    def arithmetic(self) -> str:
        """Return what the last bits of a result depend on beside input and weights.

        Of a GPU: its name, the number format, and the size of a smaller batch. Of a CPU: the number of threads, and what the networks
        answer to a fixed input, because processors with the same instruction set may still add in another order.
        """
        if self.device.type == "cuda":
            smaller = "" if self.batch == BATCH else f", batch {self.batch}"
            return f"{torch.cuda.get_device_name(self.device)}, bfloat16, torch {torch.__version__}{smaller}"
        return f"CPU, {torch.get_num_threads()} thread(s), float32, torch {torch.__version__}, {self._answer}"

    @cached_property
    def _answer(self) -> str:
        """The sha256 (hex) of both networks' logits, with all their bits, of one batch of fixed noise; computed once in a process."""
        shape = (BATCH, self.crop_settings.channels, self.crop_settings.pixels, self.crop_settings.pixels)
        noise = torch.from_numpy(np.random.default_rng(0).random(shape, np.float32)).to(self.device)
        with torch.inference_mode():
            return hashlib.sha256(b"".join(self.members[crop](noise).numpy().tobytes() for crop in Crop)).hexdigest()

    def predict(self, crops: Sequence[CropPair]) -> list[Prediction]:
        """Return one prediction per node, in order; it does not depend on the other nodes."""
        scores = {crop: self.with_memory(partial(self._probabilities, crop, crops)) for crop in Crop}
        return [
            Prediction(
                probability=round(float(np.mean([scores[crop][n] for crop in Crop])), DECIMALS),
                members={crop: round(scores[crop][n], DECIMALS) for crop in Crop},
            )
            for n in range(len(crops))
        ]

    def batches(self, crop: Crop, crops: Sequence[CropPair]) -> Iterator[tuple[torch.Tensor, int]]:
        """Yield the crops of one kind as tensors (batch, C, S, S) on the device, and the number of crops in each without padding."""
        size = self.batch
        for start in range(0, len(crops), size):
            part = [pair.fsc if crop is Crop.FSC else pair.asc for pair in crops[start : start + size]]
            batch = np.zeros((size, *part[0].shape), np.float32)
            batch[: len(part)] = part
            yield torch.from_numpy(batch).to(self.device), len(part)

    def with_memory(self, work: Callable[[], list[R]]) -> list[R]:
        """Return what ``work`` returns; when the device runs out of memory, halve the batches of this process and call it again.

        Raises:
            torch.OutOfMemoryError: the memory does not suffice for one crop.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if self.batch == 1:
                    raise
            # Here the exception no longer holds the tensors of the failed batch.
            self.batch //= 2
            log.warning("batch_halved", batch=self.batch)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def _probabilities(self, crop: Crop, crops: Sequence[CropPair]) -> list[float]:
        found: list[float] = []
        for batch, count in self.batches(crop, crops):
            # bfloat16 halves memory and time on tensor cores. CPUs compute in float32, in which they differ in the last bits only.
            with repeatable(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                logits = self.members[crop](batch).float().squeeze(1)
            found.extend(torch.sigmoid(logits / self.temperature).cpu().tolist()[:count])
        return found


def repeatable() -> AbstractContextManager[None]:
    """Return a context in which cuDNN uses only deterministic algorithms, without benchmarking."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    return flags
