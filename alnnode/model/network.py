"""The classification networks for 2D crops, from MONAI: the three families of Park et al."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, get_args

import torch
from monai.networks.nets.densenet import DenseNet121, DenseNet169
from monai.networks.nets.efficientnet import EfficientNet, efficientnet_params
from monai.networks.nets.resnet import resnet18, resnet50

from alnnode.errors import BundleError
from alnnode.model.manifest import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

ARCHITECTURES: Final[tuple[Architecture, ...]] = get_args(Architecture)
OUTPUT_STRIDES: Final = (8, 16, 32)
# The stages of EfficientNet (Tan & Le, ICML 2019, table 1): repeats, kernel, stride, expansion, channels in and out, squeeze.
_STAGES: Final = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)


def build(channels: int, output_stride: int, architecture: Architecture = "densenet121") -> torch.nn.Module:
    """Return a network for 2D crops: input (N, channels, S, S), output one logit (N, 1).

    Args:
        channels: of the input, one per window.
        output_stride: crop pixels per cell of the last feature map: 32 is the published network; 16 and 8 leave out the halving of
            its last one or two stages. The weights are the same, and Grad-CAM on small crops has more than 2 x 2 cells.
        architecture: one of `ARCHITECTURES`.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride is {output_stride}; it is one of {OUTPUT_STRIDES}")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture is {architecture}; it is one of {', '.join(ARCHITECTURES)}")
    if architecture.startswith("densenet"):
        return _densenet(channels, output_stride, architecture)
    if architecture.startswith("resnet"):
        return _resnet(channels, output_stride, architecture)
    return _efficientnet(channels, output_stride, architecture)


def _densenet(channels: int, output_stride: int, architecture: Architecture) -> torch.nn.Module:
    """Huang et al., CVPR 2017."""
    maker = DenseNet121 if architecture == "densenet121" else DenseNet169
    network: torch.nn.Module = maker(spatial_dims=2, in_channels=channels, out_channels=1)
    for number, stride in ((3, 16), (2, 8)):
        if output_stride <= stride:
            network.get_submodule(f"features.transition{number}").pool = torch.nn.Identity()
    # MONAI's last ReLU works in place, which on CPU also overwrites the activations that Grad-CAM stores.
    network.get_submodule("class_layers").relu = torch.nn.ReLU()
    return network


def _resnet(channels: int, output_stride: int, architecture: Architecture) -> torch.nn.Module:
    """He et al., CVPR 2016. The published stride of the first convolution is 2; MONAI's default is 1."""
    maker = resnet18 if architecture == "resnet18" else resnet50
    network: torch.nn.Module = maker(spatial_dims=2, n_input_channels=channels, num_classes=1, conv1_t_stride=2)
    for stage, stride in (("layer4", 16), ("layer3", 8)):
        if output_stride <= stride:
            for module in network.get_submodule(stage).modules():
                if isinstance(module, torch.nn.Conv2d):
                    module.stride = (1, 1)
    return network


def _efficientnet(channels: int, output_stride: int, architecture: Architecture) -> torch.nn.Module:
    """Tan & Le, ICML 2019."""
    stages = list(_STAGES)
    for stage, stride in ((5, 16), (3, 8)):
        if output_stride <= stride:
            stages[stage] = stages[stage].replace("s22", "s11")
    width, depth, _, dropout, drop_connect = efficientnet_params[architecture]
    network: torch.nn.Module = EfficientNet(
        stages, 2, channels, 1, width, depth, dropout_rate=dropout, drop_connect_rate=drop_connect
    )
    # MONAI uses one activation module several times; Grad-CAM needs a module that only the last feature map passes.
    pool = OrderedDict(features=torch.nn.Identity(), pool=torch.nn.AdaptiveAvgPool2d(1))
    network.add_module("_avg_pooling", torch.nn.Sequential(pool))
    return network


def restore(
    channels: int, output_stride: int, tensors: Mapping[str, torch.Tensor], architecture: Architecture = "densenet121"
) -> torch.nn.Module:
    """Return the network with the given weights in float32, in evaluation mode.

    Raises:
        BundleError: names or shapes of the weights are not those of the network, or a weight is not a finite number.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise BundleError("a weight is not a finite number; train and export the bundle again")
    network = build(channels, output_stride, architecture)
    try:
        network.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        )
    except RuntimeError as error:
        raise BundleError(f"the weights do not fit a {architecture} with these channels; export the bundle again") from error
    # Grad-CAM needs gradients only from the last normalisation layer on, which keeps its backward pass short.
    network.requires_grad_(False)
    _last_norm(network).requires_grad_(True)
    return network.eval()


def target_layer(network: torch.nn.Module) -> torch.nn.Module:
    """Return the target layer of Grad-CAM: the last feature map, after normalisation and activation."""
    for name in ("class_layers.relu", "layer4", "_avg_pooling.features"):
        if _has(network, name):
            return network.get_submodule(name)
    raise ValueError("the network was not built by alnnode.model.network.build")


def _last_norm(network: torch.nn.Module) -> torch.nn.Module:
    # The shortcut of a residual block has a normalisation layer only where the block changes the shape; the last block does not.
    return [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]


def _has(network: torch.nn.Module, name: str) -> bool:
    return any(found == name for found, _ in network.named_modules())
