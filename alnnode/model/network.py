"""The networks by name, from MONAI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from monai.networks.nets.densenet import DenseNet121

from alnnode.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTPUT_STRIDES: Final = (8, 16, 32)


def build(channels: int, output_stride: int) -> torch.nn.Module:
    """Return a DenseNet121 (Huang et al., CVPR 2017) for 2D crops: input (N, channels, S, S), output one logit (N, 1).

    Args:
        channels: of the input, one per window.
        output_stride: crop pixels per cell of the last feature map: 32 is the published network; 16 and 8 leave out the pooling of
            its last one or two transitions. The weights are the same; on small crops Grad-CAM of the last layer is not 2 x 2 cells.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride is {output_stride}; it is one of {OUTPUT_STRIDES}")
    network: torch.nn.Module = DenseNet121(spatial_dims=2, in_channels=channels, out_channels=1)
    for number, stride in ((3, 16), (2, 8)):
        if output_stride <= stride:
            network.get_submodule(f"features.transition{number}").pool = torch.nn.Identity()
    # MONAI's last ReLU overwrites its input, and Grad-CAM's copy of it on CPU with it.
    network.get_submodule("class_layers").relu = torch.nn.ReLU()
    return network


def restore(channels: int, output_stride: int, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Return the network with the given weights in float32, in evaluation mode.

    Raises:
        BundleError: names or shapes of the weights are not those of the network, or a weight is not a finite number.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise BundleError("a weight is not a finite number; train and export the bundle again")
    network = build(channels, output_stride)
    try:
        network.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        )
    except RuntimeError as error:
        raise BundleError("the weights do not fit a DenseNet121 with these channels; export the bundle again") from error
    # Grad-CAM needs gradients from the last normalisation on and no further back: its backward pass costs next to nothing.
    network.requires_grad_(False)
    network.get_submodule("features.norm5").requires_grad_(True)
    return network.eval()


def target_layer(network: torch.nn.Module) -> torch.nn.Module:
    """Return the layer that Grad-CAM looks at: the feature map after the last dense block, its norm and ReLU."""
    return network.get_submodule("class_layers.relu")
