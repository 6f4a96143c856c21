"""The ensemble: one network per crop, mean of their calibrated probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from alnnode.errors import BundleError
from alnnode.model import network
from alnnode.records import Crop, CropPair, Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.imaging.crop import CropSettings
    from alnnode.model.bundle import Bundle
    from alnnode.records import FloatArray, ModelIdentity

BATCH = 16
# Rounding hides the last bits, in which the same network on other batch places may differ.
DECIMALS = 4


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    Raises:
        BundleError: "cuda" was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise BundleError('no CUDA device is visible; set [analysis] device = "auto" or "cpu", or check the driver')
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """Return the device in words for `alnnode check`."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


class Ensemble:
    """Both members of a bundle on one device."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.identity: ModelIdentity = bundle.identity
        self.crop_settings: CropSettings = bundle.crop_settings
        self.temperature = bundle.manifest.temperature
        channels = len(self.crop_settings.windows)
        self.members = {
            crop: network.restore(channels, bundle.member(crop).output_stride, bundle.tensors(crop.value)).to(self.device)
            for crop in Crop
        }

    def predict(self, crops: Sequence[CropPair]) -> list[Prediction]:
        """Return one prediction per node, in order."""
        scores = {crop: self._probabilities(crop, [_of(pair, crop) for pair in crops]) for crop in Crop}
        return [
            Prediction(
                probability=round(float(np.mean([scores[crop][n] for crop in Crop])), DECIMALS),
                members={crop: round(float(scores[crop][n]), DECIMALS) for crop in Crop},
            )
            for n in range(len(crops))
        ]

    def batch(self, crop: Crop, crops: Sequence[CropPair]) -> torch.Tensor:
        """Return the crops of one kind as a tensor (N, C, S, S) on the device."""
        return torch.from_numpy(np.stack([_of(pair, crop) for pair in crops])).to(self.device)

    @torch.inference_mode()
    def _probabilities(self, crop: Crop, images: list[FloatArray]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.stack(images[start : start + BATCH])).to(self.device)
            # Half the memory and twice the speed where tensor cores are; on CPU float32 keeps results the same everywhere.
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                logits = self.members[crop](batch).float().squeeze(1)
            found.extend(torch.sigmoid(logits / self.temperature).cpu().tolist())
        return found


def _of(pair: CropPair, crop: Crop) -> FloatArray:
    return pair.fsc if crop is Crop.FSC else pair.asc
